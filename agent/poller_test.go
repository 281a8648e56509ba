package agent

import (
	"testing"
	"time"
)

func TestReadingsOfARoundArePaced(t *testing.T) {
	for _, c := range []struct {
		spread   time.Duration
		readings int
		pause    time.Duration
		together int
	}{
		{0, 10, 0, 1},
		{20 * time.Second, 0, 0, 1},
		{20 * time.Second, 40, 500 * time.Millisecond, 1},
		{20 * time.Second, 400, 50 * time.Millisecond, 1},
		{20 * time.Second, 1000, 60 * time.Millisecond, 3},
		{20 * time.Second, 5000, 52 * time.Millisecond, 13},
	} {
		pause, together := paced(c.spread, c.readings)
		if pause != c.pause || together != c.together {
			t.Errorf("%d in %s: %d, then a pause of %s", c.readings, c.spread, together, pause)
		}
	}
}
