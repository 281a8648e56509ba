package ipmi

import (
	"testing"
	"time"
)

func TestTheWaitFollowsTheAnswers(t *testing.T) {
	const most = 2 * time.Second
	after := func(times ...time.Duration) time.Duration {
		var s trips
		for _, d := range times {
			s.took(d)
		}
		return s.wait(most)
	}
	const ms = time.Millisecond
	for _, tc := range []struct {
		name  string
		times []time.Duration
		want  time.Duration
	}{
		{"nothing is known", nil, most},
		{"a fast BMC", []time.Duration{ms, ms, ms}, leastAnswer},
		{"one answer", []time.Duration{200 * ms}, 600 * ms},
		{"a slow BMC", []time.Duration{3 * time.Second}, most},
		{"one that became slow", []time.Duration{40 * ms, 840 * ms}, 40*ms + 100*ms + 4*(20*ms+195*ms)},
	} {
		if got := after(tc.times...); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
