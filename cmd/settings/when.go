package settings

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
)

// daysForm is a duration with weeks and days before what time.ParseDuration reads.
var daysForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?:(\d+)w)?(?:(\d+)d)?(.*)$`) })

const day = 24 * time.Hour

// ParseDuration reads a duration, 90s, 1h30m, 1d12h or 2w. A day is 24 hours.
func ParseDuration(text string) (time.Duration, error) {
	part := daysForm().FindStringSubmatch(text)
	if part == nil || part[1]+part[2] == "" {
		return time.ParseDuration(text)
	}
	var whole time.Duration
	for i, unit := range []time.Duration{7 * day, day} {
		if part[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(part[i+1], 10, 32)
		if err != nil || time.Duration(n) > (math.MaxInt64-whole)/unit {
			return 0, errors.New("longer than can be")
		}
		whole += time.Duration(n) * unit
	}
	if part[3] == "" {
		return whole, nil
	}
	rest, err := time.ParseDuration(part[3])
	if err != nil || rest < 0 || rest > math.MaxInt64-whole || strings.HasPrefix(part[3], "+") {
		return 0, errors.New("not a duration")
	}
	return whole + rest, nil
}

// timeForms are how a time may be written: RFC 3339, as people are shown it, and without a
// zone in their own.
var timeForms = []string{
	time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04",
	time.DateOnly,
}

// ParseTime reads a time, in that zone where it names none.
func ParseTime(text string, zone *time.Location) (time.Time, error) {
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, text, zone); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 2006-01-02T15:04:05Z or 2006-01-02 15:04", text)
}

// TimeFlag is a flag that takes a duration from now, or back from it, or a time.
type TimeFlag struct{ cli.StringFlag }

// wrongTime says what is wrong with the value of a TimeFlag, "" if nothing is.
func wrongTime(text string) string {
	if d, err := ParseDuration(text); err == nil {
		if d < 0 {
			return fmt.Sprintf("%q is negative", text)
		}
		return ""
	}
	if _, err := ParseTime(text, time.UTC); err == nil {
		return ""
	}
	return fmt.Sprintf("%q is neither a duration such as 90m, 2h or 1d nor a time such as 2006-01-02T15:04:05Z", text)
}
