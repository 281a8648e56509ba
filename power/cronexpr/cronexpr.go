// Package cronexpr reads cron expressions, the same way at every place where one may be
// set: the monitor's schedule at an agent and at central, and schedules of holds.
package cronexpr

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Bounds of expressions: an interval is at least MinEvery, and the next time of any
// expression comes within MaxNext.
const (
	MinEvery = time.Second
	MaxNext  = 4*366*24*time.Hour + 24*time.Hour // February 29th comes at least that often, but for 2100
	maxText  = 1000
)

// Parse reads five fields (minute, hour, day of month, month, day of week), or a word such
// as @daily or @every 90s; CRON_TZ=ZONE may precede it. Its error says what to write.
func Parse(text string) (cron.Schedule, error) {
	s, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("cannot read cron expression %q: %w; write five fields (minute, hour, day of month, month, day of week) "+
			"such as \"30 19 * * 1-5\", or @hourly, @daily, @every 90s; CRON_TZ=Europe/Berlin before it names a time zone", text, err)
	}
	return s, nil
}

func parse(text string) (cron.Schedule, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("it is longer than %d bytes", maxText)
	}
	// The parser wants a space behind the zone, and does not look for it.
	if zoned := strings.HasPrefix(text, "TZ=") || strings.HasPrefix(text, "CRON_TZ="); zoned && !strings.Contains(text, " ") {
		return nil, errors.New("an expression is missing behind the time zone")
	}
	s, err := cron.ParseStandard(text)
	if err != nil {
		return nil, err
	}
	if every, ok := s.(cron.ConstantDelaySchedule); ok {
		return s, checkEvery(text, every)
	}
	// The year is one before a leap year, so that all days come soon.
	if from := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC); s.Next(from).IsZero() || s.Next(from).Sub(from) > MaxNext {
		return nil, errors.New("it names a time that never comes")
	}
	return s, nil
}

// checkEvery looks at the interval as it was written: the library rounds to seconds, and
// makes a second of what is less.
func checkEvery(text string, every cron.ConstantDelaySchedule) error {
	_, written, _ := strings.Cut(text, "@every ")
	if d, err := time.ParseDuration(strings.TrimSpace(written)); err == nil && d < MinEvery {
		return fmt.Errorf("an interval of %s is shorter than %s", d, MinEvery)
	}
	if every.Delay > MaxNext {
		return fmt.Errorf("an interval of %s is longer than %s", every.Delay, MaxNext)
	}
	return nil
}
