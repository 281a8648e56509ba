package ipmi

import "time"

// leastAnswer is the least wait before a read is repeated, however fast the BMC answered before:
// it may be busy with something else for a moment.
const leastAnswer = 250 * time.Millisecond

// trips says how long a BMC takes to answer, smoothed as that of TCP is (RFC 6298). The zero trips
// know nothing.
type trips struct {
	smooth, varies time.Duration
}

// took takes the time of an exchange that was not repeated: of others it is not known which
// of the requests was answered.
func (t *trips) took(d time.Duration) {
	if t.smooth == 0 {
		t.smooth, t.varies = d, d/2
		return
	}
	off := t.smooth - d
	t.varies += (max(off, -off) - t.varies) / 4
	t.smooth -= off / 8
}

// wait is how long an answer is awaited before the request is repeated: at most so long as without
// anything known.
func (t *trips) wait(most time.Duration) time.Duration {
	if t.smooth == 0 {
		return most
	}
	return min(max(t.smooth+4*t.varies, leastAnswer), most)
}
