package settings

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDurationsHaveDaysAndWeeks(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "1d": 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1w1d1h": 193 * time.Hour,
		"0d": 0, "1d1.5h": 25*time.Hour + 30*time.Minute, "0": 0, "-1h": -time.Hour,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q is %s (%v), want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "d", "1", "1d2", "1d-1h", "1d+1h", "-1d", "1.5d", "1d1w", "1dd", "106752d", "99999999999d", "15251w",
		"1 d",
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		w, d := rapid.IntRange(0, 500).Draw(t, "weeks"), rapid.IntRange(0, 500).Draw(t, "days")
		rest := time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "rest"))
		want := time.Duration(7*w+d)*24*time.Hour + rest
		if got, err := ParseDuration(fmt.Sprintf("%dw%dd%s", w, d, rest)); err != nil || got != want {
			t.Fatalf("%s (%v), want %s", got, err, want)
		}
	})
}

func TestTimesAreReadAsTheyAreShown(t *testing.T) {
	zone := time.FixedZone("", 2*60*60)
	for text, want := range map[string]string{
		"2026-03-01T14:01:02Z": "2026-03-01T14:01:02Z", "2026-03-01T14:01:02.5+01:00": "2026-03-01T13:01:02.5Z",
		"2026-03-01 14:01:02+02:00": "2026-03-01T12:01:02Z", "2026-03-01 14:01:02Z": "2026-03-01T14:01:02Z",
		"2026-03-01T14:01:02": "2026-03-01T12:01:02Z", "2026-03-01 14:01": "2026-03-01T12:01:00Z", "2026-03-01": "2026-02-28T22:00:00Z",
	} {
		got, err := ParseTime(text, zone)
		if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %s (%v), want %s", text, got.UTC().Format(time.RFC3339Nano), err, want)
		}
	}
	for _, text := range []string{"", "14:01", "2026-02-30", "yesterday", "2026-03-01 14:01:02 +0200"} {
		if got, err := ParseTime(text, zone); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}
