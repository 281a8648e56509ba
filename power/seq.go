package power

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// Seq orders requests for a node wherever they entered: a hybrid logical clock,
// 48 bits of milliseconds since 1970 above 16 bits of counter (Kulkarni et al.,
// "Logical Physical Clocks", 2014). Within one clock it only grows; merged on
// every exchange, whatever was seen before is smaller than whatever comes after.
type Seq uint64

const seqCounterBits = 16

// MarshalJSON writes the sequence as a string: many readers of JSON keep numbers as
// floats, which round what is above 2^53.
func (s Seq) MarshalJSON() ([]byte, error) {
	return append(strconv.AppendUint([]byte{'"'}, uint64(s), 10), '"'), nil
}

// UnmarshalJSON reads a string, or a number as journals and databases of before have it.
func (s *Seq) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	text := data
	if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return fmt.Errorf("%s is no sequence", data)
	}
	*s = Seq(n)
	return nil
}

// Next returns the sequence for a request that enters at wall time now, when s
// is the largest sequence seen so far. A wall clock that went back is outrun.
func (s Seq) Next(now time.Time) Seq {
	return max(s+1, seqAt(now))
}

// Time is the wall time within the sequence, to the millisecond.
func (s Seq) Time() time.Time { return time.UnixMilli(int64(s >> seqCounterBits)) }

func seqAt(t time.Time) Seq { return Seq(max(t.UnixMilli(), 0)) << seqCounterBits }
