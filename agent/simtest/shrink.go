package simtest

import (
	"slices"
	"time"
)

// shrink makes a failing script shorter and plainer for as long as it
// fails, within a number of tries.
func shrink(s Script, tries int, fails func(Script) bool) Script {
	try := func(c Script) bool {
		if tries <= 0 || len(c) == 0 {
			return false
		}
		tries--
		if !fails(c) {
			return false
		}
		s = c
		return true
	}
	for size := len(s) / 2; size > 0; { // whole stretches go first
		gone := false
		for at := 0; at+size <= len(s); {
			if try(slices.Delete(slices.Clone(s), at, at+size)) {
				gone = true
			} else {
				at += max(1, size/2)
			}
		}
		if !gone || size > len(s) {
			size /= 2
		}
	}
	for i := 0; i < len(s); i++ { // then what a line says beyond its verb
		for j := len(s[i].Args) - 1; j >= 0; j-- {
			c := slices.Clone(s)
			c[i].Args = slices.Delete(slices.Clone(c[i].Args), j, j+1)
			try(c)
		}
		for _, after := range []time.Duration{0, s[i].After.Truncate(time.Second), s[i].After.Truncate(100 * time.Millisecond)} {
			if after < s[i].After {
				c := slices.Clone(s)
				c[i].After = after
				if try(c) {
					break
				}
			}
		}
	}
	return s
}
