package bmcpool

import (
	"errors"
	"testing"
	"time"

	"rackpower/power"
)

func TestBreakerBacksOff(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	jitter := 0.0
	wait := probePauses{first: 30 * time.Second, longest: 10 * time.Minute, jitter: func() float64 { return jitter }}
	var b breaker
	mute := Failure{power.ReachUnreachable, "no answer"}
	if b.failed(now, now, mute, wait) || b.open() {
		t.Fatal("opened by one reading")
	}
	if !b.failed(now, now, mute, wait) || !b.open() || !b.next.Equal(now.Add(30*time.Second)) {
		t.Fatalf("after two: %+v", b)
	}
	if b.failed(now, now.Add(time.Second), mute, wait); !b.next.Equal(now.Add(30 * time.Second)) {
		t.Fatal("somebody who looked beside the schedule moved it")
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		now = b.next
		b.began = now // or the next full reading comes first
		if b.later(now, wait); !b.next.Equal(now.Add(want * time.Minute)) {
			t.Fatalf("the next probe is after %s, want %s min", b.next.Sub(now), want)
		}
	}
	b.trial = true
	if b.open() {
		t.Fatal("on trial and not read")
	}
	jitter = 0.8
	if now = b.next; b.failed(now, now, mute, wait) || !b.open() || b.next.Sub(now) != 8*time.Minute {
		t.Fatalf("a failed trial: %+v", b)
	}
	if !b.answered(now) || b.open() || b.answered(now) {
		t.Fatalf("answered: %+v", b)
	}
}

// TestSilenceCountsFromTheLastAnswer is about what explain and status say "since" of.
func TestSilenceCountsFromTheLastAnswer(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	wait := probePauses{first: 30 * time.Second, longest: 10 * time.Minute, jitter: func() float64 { return 0 }}
	mute, busy := Failure{power.ReachUnreachable, "no answer"}, Failure{power.ReachBusy, "no free session"}
	for _, c := range []struct {
		name   string
		events []Failure // one every 10 s; empty: an answer
		since  time.Time
	}{
		{"never answered", []Failure{mute, mute, mute}, at(0)},
		{"answered, then silent", []Failure{{}, mute, mute, mute}, at(0)},
		{"answered twice", []Failure{{}, mute, {}, mute, mute}, at(20)},
		{"silent, then busy", []Failure{{}, mute, mute, busy, busy}, at(30)},
		{"busy, then silent", []Failure{busy, mute}, at(10)},
	} {
		var b breaker
		for i, f := range c.events {
			if now := at(10 * i); f == (Failure{}) {
				b.answered(now)
			} else {
				b.failed(now, now, f, wait)
			}
		}
		if !b.since.Equal(c.since) {
			t.Errorf("%s: since %s, want %s", c.name, b.since.Sub(start), c.since.Sub(start))
		}
	}
}

func TestReachedTellsAnswersFromSilence(t *testing.T) {
	for kind, want := range map[power.ErrorKind]bool{
		power.KindAuth: true, power.KindBusy: true, power.KindRefused: true, power.KindPrivilege: true, power.KindUnsupported: true,
		power.KindUnreachable: false, power.KindCanceled: false,
	} {
		if got := reached(&power.Error{Kind: kind}); got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
	if !reached(nil) || reached(errors.New("of nobody knows what")) || unreached(nil) {
		t.Error("nil or another's error")
	}
}
