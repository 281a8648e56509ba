package central

import (
	"slices"
	"testing"
	"time"
	_ "time/tzdata"
)

// TestSchedulesOverTheChangeOfClocks has the hours that a clock leaves out or shows
// twice: what is to run once a day runs once, also on these days.
func TestSchedulesOverTheChangeOfClocks(t *testing.T) {
	for _, c := range []struct {
		name, cron, from, to string
		want                 []string
	}{
		{
			"a time that is left out", "CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z",
			[]string{"2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"},
		},
		{
			"a time that comes twice", "CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		},
		{
			"the same, asked between the two", "CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-25T01:10:00Z", "2026-10-26T12:00:00Z",
			[]string{"2026-10-26T01:30:00Z"},
		},
		{
			"the hour after", "CRON_TZ=Europe/Berlin 0 3 * * *", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"},
		},
		{
			"both of one schedule", "CRON_TZ=Europe/Berlin 0,30 2,3 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"},
		},
		{
			"a midnight that is left out", "CRON_TZ=Africa/Cairo 0 0 * * *", "2026-04-23T12:00:00Z", "2026-04-25T12:00:00Z",
			[]string{"2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		},
		{
			"a midnight that comes twice", "CRON_TZ=Africa/Cairo 30 23 * * *", "2026-10-29T12:00:00Z", "2026-10-30T23:00:00Z",
			[]string{"2026-10-29T20:30:00Z", "2026-10-30T21:30:00Z"},
		},
		{
			"half an hour", "CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-02T16:00:00Z", "2026-10-04T16:00:00Z",
			[]string{"2026-10-03T15:45:00Z", "2026-10-04T15:15:00Z"},
		},
		{
			"every hour", "CRON_TZ=Europe/Berlin 0 * * * *", "2026-10-24T22:30:00Z", "2026-10-25T03:30:00Z",
			[]string{"2026-10-24T23:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00Z"},
		},
	} {
		s, err := readTimes(c.cron)
		if err != nil {
			t.Fatal(err)
		}
		at := func(text string) time.Time {
			tm, err := time.Parse(time.RFC3339, text)
			if err != nil {
				t.Fatal(err)
			}
			return tm
		}
		var got []string
		for tm := next(s, at(c.from)); !tm.IsZero() && !tm.After(at(c.to)); tm = next(s, tm) {
			got = append(got, tm.Format(time.RFC3339))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		if from, to := at(c.from), at(c.to); !latest(s, from, to).Equal(at(c.want[len(c.want)-1])) {
			t.Errorf("%s: the latest is %s", c.name, latest(s, from, to))
		}
	}
}
