package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/journal"
)

const alarmPrefix = "alarm/"

// alarms is what a person has to know of this agent, over restarts too: at most one of
// a kind, kept in the assignment's log. Raising and ending them takes effect at once and
// may be done by anybody, from within the journal as well; the log follows a moment
// later, in keep.
type alarms struct {
	logger *slog.Logger
	tell   func() // has central told
	dirty  chan struct{}

	mu   lock.Mutex[lock.Alarms]
	now  map[string]api.Alarm
	kept map[string]api.Alarm // as they stand in the log
}

func newAlarms(logger *slog.Logger, tell func()) *alarms {
	return &alarms{logger: logger, tell: tell, dirty: make(chan struct{}, 1), now: map[string]api.Alarm{}, kept: map[string]api.Alarm{}}
}

// load takes what the log has. Alarms that were raised before stay.
func (s *alarms) load(live []journal.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range live {
		if r.Kind != kindAlarm {
			continue
		}
		var a api.Alarm
		if err := json.Unmarshal(r.Payload, &a); err != nil {
			return fmt.Errorf("cannot read alarm of record %d: %w", r.LSN, err)
		}
		a.Kind = strings.TrimPrefix(r.Key, alarmPrefix)
		s.kept[a.Kind] = a
		if a.Kind == api.AlarmDiskFull || a.Kind == api.AlarmAssignmentDiskFull || a.Kind == api.AlarmNotSealed {
			continue // opening the logs has just shown whether that is still so
		}
		if raised, ok := s.now[a.Kind]; !ok || raised.Message == a.Message {
			s.now[a.Kind] = a
		}
	}
	return nil
}

// raise shows an alarm from now on. One that is raised with the same message is left as it
// is; another message replaces it, and an acknowledgement of the one before does not
// end it. Where it needs an acknowledgement and no remedy is named, the remedy is to
// acknowledge it. Since is filled in.
func (s *alarms) raise(a api.Alarm) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.now[a.Kind]; ok && old.Message == a.Message {
		return
	}
	s.now[a.Kind] = alarmAt(a, time.Now())
	s.logger.Error("alarm", "kind", a.Kind, "message", a.Message, "remedy", s.now[a.Kind].Remedy)
	s.changed()
}

// alarmAt is the alarm as it is kept.
func alarmAt(a api.Alarm, now time.Time) api.Alarm {
	a.Since = now.UTC().Round(0)
	if a.NeedsAck && a.Remedy == "" {
		a.Remedy = "rackpower local ack " + a.Kind
	}
	return a
}

// clear ends an alarm whose cause is gone, if it is raised.
func (s *alarms) clear(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.now[kind]; ok {
		delete(s.now, kind)
		s.logger.Info("alarm is over", "kind", kind)
		s.changed()
	}
}

// acknowledge ends an alarm because a person has seen it, and returns it; since is when
// it had been raised that the person saw, zero: whenever. It reports false where there
// is none like that.
func (s *alarms) acknowledge(kind string, since time.Time, by string) (api.Alarm, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.now[kind]
	if !ok || !since.IsZero() && !since.Equal(a.Since) {
		return api.Alarm{}, false
	}
	delete(s.now, kind)
	s.logger.Info("alarm was acknowledged", "kind", kind, "message", a.Message, "by", by)
	s.changed()
	return a, true
}

func (s *alarms) changed() {
	poke(s.dirty)
	s.tell()
}

// list returns the alarms that stand, by kind.
func (s *alarms) list() []api.Alarm {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.now), func(a, b api.Alarm) int { return cmp.Compare(a.Kind, b.Kind) })
}

// active reports whether there is an alarm of the kind.
func (s *alarms) active(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.now[kind]
	return ok
}

// alarmEntry makes an alarm durable.
func alarmEntry(a api.Alarm) journal.Entry {
	return entry(journal.Put, kindAlarm, alarmPrefix+a.Kind, a)
}

// save makes durable what changed since it last was.
func (s *alarms) save(log appender) error {
	s.mu.Lock()
	now := maps.Clone(s.now)
	var entries []journal.Entry
	for kind, a := range now {
		if s.kept[kind] != a {
			entries = append(entries, alarmEntry(a))
		}
	}
	for kind := range s.kept {
		if _, ok := now[kind]; !ok {
			entries = append(entries, entry(journal.Drop, kindAlarm, alarmPrefix+kind, nil))
		}
	}
	s.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	if _, err := log.Append(entries...); err != nil {
		return fmt.Errorf("cannot keep the alarms: %w", err)
	}
	s.mu.Lock()
	s.kept = now
	s.mu.Unlock()
	return nil
}

// saveAlarmsEvery is how soon the log is tried again after it did not take an alarm.
const saveAlarmsEvery = 10 * time.Second

// keep saves whatever changes until ctx ends.
func (s *alarms) keep(ctx context.Context, log appender) {
	for {
		var again <-chan time.Time
		if err := s.save(log); err != nil {
			s.logger.Error("alarms are kept in memory only", "err", err)
			again = time.After(saveAlarmsEvery)
		}
		select {
		case <-ctx.Done():
			if err := s.save(log); err != nil {
				s.logger.Error("alarms are lost", "err", err)
			}
			return
		case <-s.dirty:
		case <-again:
		}
	}
}

// heedAcks ends the alarms that people acknowledged at central.
func (a *Agent) heedAcks(acks []api.AlarmAck) {
	for _, k := range acks {
		if alarm, ok := a.alarms.acknowledge(k.Kind, k.Since, k.By); ok {
			a.acknowledgedAlarm(alarm)
		}
	}
}

// ackAlarms ends alarms as somebody at the rack asked: that of a kind, "" for all but
// the one whose acknowledgement lets nodes go.
func (a *Agent) ackAlarms(in api.AckAlarm) ([]api.Alarm, error) {
	acked := []api.Alarm{}
	for _, alarm := range a.alarms.list() {
		if in.Kind != "" && alarm.Kind != in.Kind || in.Kind == "" && alarm.Kind == api.AlarmAssignmentShrank {
			continue
		}
		if gone, ok := a.alarms.acknowledge(alarm.Kind, alarm.Since, in.AskedBy); ok {
			acked = append(acked, gone)
			a.acknowledgedAlarm(gone)
		}
	}
	if err := a.alarms.save(a.assignLg); err != nil {
		return nil, err
	}
	if len(acked) == 0 {
		return nil, api.Problemf(api.CodeNotFound, "agent %s has no %s", a.cfg.Name, strings.TrimSpace("alarm "+in.Kind))
	}
	return acked, nil
}

// heedJournal takes an alarm of one of the two logs. It is called from within them.
func (a *Agent) heedJournal(sub string, al journal.Alarm) {
	full := api.AlarmDiskFull
	if sub == assignedDir {
		full = api.AlarmAssignmentDiskFull
	}
	switch al.Kind {
	case journal.AlarmRemoved:
		a.filesRemoved(al.Err)
	case journal.AlarmRoom:
		a.alarms.clear(full)
	case journal.AlarmFull:
		a.alarms.raise(api.Alarm{Kind: full, Message: al.Text, Remedy: "make room in " + a.cfg.Dir})
	case journal.AlarmWrite:
		a.alarms.raise(api.Alarm{Kind: api.AlarmWriteFailed, Message: fmt.Sprintf("%s: %v", al.Text, al.Err), Remedy: "check the disk of " +
			a.cfg.Dir, NeedsAck: true})
	case journal.AlarmStopped:
		a.stop(fmt.Errorf("%w: %s", errStopping, al.Text))
	}
}
