package printer

import (
	"fmt"
	"reflect"
	"regexp"
	"sync"
	"time"

	"rackpower/power"
)

// Clock is the time that a command line goes by, and the zone that its reader lives in.
type Clock struct {
	Now  func() time.Time
	Zone *time.Location
	// Verbatim leaves the times within texts as they are.
	Verbatim bool
}

// PeopleTime is how people are shown every time: in their own zone, with the day, so that
// all times of a screen read alike. Programs get RFC 3339 in UTC.
const PeopleTime = "2006-01-02 15:04:05Z07:00"

// Time writes a time for people.
func (c Clock) Time(t time.Time) string { return t.In(c.Location()).Format(PeopleTime) }

// OptionalTime is Time, "" where there is no time.
func (c Clock) OptionalTime(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return c.Time(*t)
}

// Location is the zone of who reads and types times.
func (c Clock) Location() *time.Location {
	if c.Zone == nil {
		return time.Local
	}
	return c.Zone
}

// written finds the times that agents and central write in their sentences (power.At).
var written = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`) })

// localized has the times within a text as people are shown them.
func (c Clock) localized(text string) string {
	if c.Verbatim || len(text) < len("2006-01-02T15:04:05Z") {
		return text
	}
	return written().ReplaceAllStringFunc(text, func(found string) string {
		t, err := time.Parse(time.RFC3339, found)
		if err != nil { // the 32nd of a month
			return found
		}
		return c.Time(t)
	})
}

// Since writes a time that is over with its age: "2026-03-01 14:01:02+02:00 (3 min ago)".
func (c Clock) Since(t time.Time) string {
	return fmt.Sprintf("%s (%s ago)", c.Time(t), power.Ago(c.Now().Sub(t)))
}

// Until writes a time to come with how long that is: "2026-03-01 14:30:00Z (in 21 s)".
// One that is over is due.
func (c Clock) Until(t time.Time) string {
	left := t.Sub(c.Now())
	if left <= 0 {
		return c.Time(t) + " (due)"
	}
	return fmt.Sprintf("%s (in %s)", c.Time(t), power.Ago(left.Round(time.Second)))
}

// UntilOr is Until after the word, or what ends it when there is no time.
func (c Clock) UntilOr(t time.Time, otherwise string) string {
	if t.IsZero() {
		return "until " + otherwise
	}
	return "until " + c.Until(t)
}

// After is the time a duration from now, none for 0.
func (c Clock) After(d time.Duration) time.Time {
	if d == 0 {
		return time.Time{}
	}
	return c.Now().Add(d)
}

var timeType = reflect.TypeFor[time.Time]()

// inUTC is a copy of rows in which every time is in UTC, for programs. What they point to
// is left as it is.
func inUTC[T any](rows []T) []T {
	v := reflect.ValueOf(rows)
	return utc(v).Interface().([]T)
}

func utc(v reflect.Value) reflect.Value {
	switch {
	case v.Type() == timeType:
		return reflect.ValueOf(v.Interface().(time.Time).UTC())
	case v.Kind() == reflect.Pointer && !v.IsNil():
		p := reflect.New(v.Type().Elem())
		p.Elem().Set(utc(v.Elem()))
		return p
	case v.Kind() == reflect.Slice && !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8:
		list := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			list.Index(i).Set(utc(v.Index(i)))
		}
		return list
	case v.Kind() == reflect.Struct:
		s := reflect.New(v.Type()).Elem()
		s.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				s.Field(i).Set(utc(v.Field(i)))
			}
		}
		return s
	}
	return v
}
