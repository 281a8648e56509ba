package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"rackpower/central/api"
)

// Schedule is a row of schedules. Its NextAt is for others to compute.
type Schedule struct {
	api.Schedule
	// Done is the time of the latest run that is over, carried out or missed, or
	// when the schedule was made: only later runs are due. It only grows, so that a
	// clock that goes back does not repeat a run, for as long as the schedule is there.
	Done time.Time
}

const scheduleColumns = `name, cron, nodes, want, lasts, reason, by, confirmed, created_at, done, last_at, last_message`

const (
	sqlSchedules   = `SELECT ` + scheduleColumns + ` FROM schedules ORDER BY name`
	sqlSchedule    = `SELECT ` + scheduleColumns + ` FROM schedules WHERE name = $1`
	sqlPutSchedule = `INSERT INTO schedules (` + scheduleColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, nodes = excluded.nodes, want = excluded.want, lasts = excluded.lasts,
		reason = excluded.reason, by = excluded.by, confirmed = excluded.confirmed, created_at = excluded.created_at,
		done = max(schedules.done, excluded.done), last_at = excluded.last_at, last_message = excluded.last_message`
	sqlDelSchedule = `DELETE FROM schedules WHERE name = $1`
)

func scanSchedule(scan func(...any) error) (s Schedule, err error) {
	var created, done, last int64
	err = scan(&s.Name, &s.Cron, &s.Nodes, &s.Want, (*int64)(&s.For), &s.Reason, &s.By, &s.Confirmed, &created, &done, &last, &s.LastMessage)
	s.CreatedAt, s.Done, s.LastAt = timeAt(created), timeAt(done), timeAt(last)
	return s, err
}

// Schedules returns all schedules by name.
func (t *Tx) Schedules() ([]Schedule, error) {
	var all []Schedule
	err := t.each(func(r *sql.Rows) error {
		s, err := scanSchedule(r.Scan)
		all = append(all, s)
		return err
	}, sqlSchedules)
	if err != nil {
		return nil, fmt.Errorf("cannot read schedules: %w", err)
	}
	return all, nil
}

// Schedule finds a schedule; ok is false when there is none of that name.
func (t *Tx) Schedule(name string) (s Schedule, ok bool, err error) {
	s, err = scanSchedule(t.row(sqlSchedule, name).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Schedule{}, false, nil
	}
	if err != nil {
		return Schedule{}, false, fmt.Errorf("cannot read schedule %s: %w", name, disk(err))
	}
	return s, true, nil
}

// PutSchedule adds a schedule or replaces one; Done never goes back.
func (t *Tx) PutSchedule(s Schedule) error {
	_, err := t.exec(sqlPutSchedule, s.Name, s.Cron, s.Nodes, string(s.Want), int64(s.For), s.Reason, s.By, s.Confirmed,
		nanos(s.CreatedAt), nanos(s.Done), nanos(s.LastAt), s.LastMessage)
	if err != nil {
		return fmt.Errorf("cannot save schedule %s: %w", s.Name, err)
	}
	return nil
}

// DeleteSchedule removes a schedule.
func (t *Tx) DeleteSchedule(name string) error {
	if _, err := t.exec(sqlDelSchedule, name); err != nil {
		return fmt.Errorf("cannot remove schedule %s: %w", name, err)
	}
	return nil
}
