package cronexpr

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, wrong := range map[string]string{
		"30 19 * * 1-5":               "",
		"@daily":                      "",
		"@every 90s":                  "",
		"@every 1s":                   "",
		"0 0 29 2 *":                  "", // every fourth year
		"CRON_TZ=Europe/Oslo @daily":  "",
		"TZ=UTC 0 3 * * *":            "",
		"":                            "empty spec string",
		"61 * * * *":                  "above maximum",
		"* * * *":                     "expected exactly 5 fields",
		"0 0 30 2 *":                  "never comes",
		"0 0 31 4 *":                  "never comes",
		"@every 0s":                   "an interval of 0s is shorter than 1s",
		"@every -5m":                  "an interval of -5m0s is shorter than 1s",
		"@every 999ms":                "an interval of 999ms is shorter than 1s",
		"@every 1000000h":             "is longer than",
		"@every 9223372036s":          "is longer than",
		"@every soon":                 "failed to parse duration",
		"CRON_TZ=UTC":                 "missing behind the time zone",
		"TZ=":                         "missing behind the time zone",
		"CRON_TZ=Nowhere/Town @daily": "provided bad location",
		strings.Repeat("1,", 600):     "longer than 1000 bytes",
	} {
		s, err := Parse(text)
		if (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%q: %v, want %q", text, err, wrong)
		}
		if err == nil && s.Next(time.Now()).IsZero() {
			t.Errorf("%q: no next time", text)
		}
	}
}

// FuzzParse: whatever is taken has a next time, from any time before 2038 on.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"30 19 * * 1-5", "@every 90s", "CRON_TZ=UTC 0 0 29 2 *", "*/7 1-3 1,31 2-4 0", "TZ="} {
		f.Add(text, int64(1))
	}
	f.Fuzz(func(t *testing.T, text string, from int64) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		at := time.Unix(from%(1<<31), 0)
		if next := s.Next(at); !next.After(at) {
			t.Fatalf("%q: after %s comes %s", text, at, next)
		}
	})
}
