package backoff

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestPausesDoubleUpToTheMost(t *testing.T) {
	d := Doubling{First: time.Second, Most: 5 * time.Second}
	var got []time.Duration
	for range 4 {
		got = append(got, d.Next())
	}
	d.Reset()
	got = append(got, d.Next())
	d.Most = 1500 * time.Millisecond // counts from the pause after the next
	got = append(got, d.Next(), d.Next())
	want := []time.Duration{1000, 2000, 4000, 5000, 1000, 2000, 1500}
	for i := range want {
		want[i] *= time.Millisecond
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := Sleep(ctx, time.Hour); !errors.Is(err, why) {
		t.Errorf("%v, want the cause", err)
	}
	if err := Sleep(t.Context(), time.Nanosecond); err != nil {
		t.Error(err)
	}
}
