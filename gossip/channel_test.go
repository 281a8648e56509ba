package gossip

import (
	"bytes"
	"io"
	"slices"
	"testing"
)

// recorded is a stream on which one side has said its part already.
type recorded struct {
	io.Reader
	sent bytes.Buffer
}

func (r *recorded) Write(p []byte) (int, error) { return r.sent.Write(p) }

// TestAReplayedBeginGetsOtherKeys: who sends an old begin again gets an answer that is
// sealed with keys never used before, so that two answers tell nothing together.
func TestAReplayedBeginGetsOtherKeys(t *testing.T) {
	key := NewKey()
	caller := &recorded{Reader: bytes.NewReader(nil)}
	if _, err := call(caller, key, []byte("hello")); err == nil {
		t.Fatal("nobody answered, and it went well")
	}
	begin := caller.sent.Bytes()
	sealed := func() []byte {
		s := &recorded{Reader: bytes.NewReader(begin)}
		ch, first, err := answer(s, []Key{NewKey(), key})
		if err != nil || string(first) != "hello" {
			t.Fatalf("%q, %v", first, err)
		}
		before := s.sent.Len()
		if err := ch.send([]byte("the same each time")); err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(s.sent.Bytes()[before:])
	}
	if a, b := sealed(), sealed(); bytes.Equal(a, b) || bytes.Equal(a[len(a)-16:], b[len(b)-16:]) {
		t.Errorf("%x twice", a)
	}
}

// TestWhoIsGoneIsSomethingToHear: two tables with the same records are not the same
// when only one of them knows that an agent is gone, or that would never be told.
func TestWhoIsGoneIsSomethingToHear(t *testing.T) {
	sum := func(status string) uint64 {
		return sumOf([]brief{{agent: "r1", status: byte(slices.Index(briefStatuses, status))}})
	}
	if sum(StatusUnknown) == sum(StatusLeft) || sum(StatusAlive) == sum(StatusFailed) {
		t.Error("that an agent is gone makes no difference")
	}
	if sum(StatusLeft) != sum(StatusFailed) || sum(StatusAlive) != sum(StatusUnknown) {
		t.Error("members would compare for ever what they see differently")
	}
}
