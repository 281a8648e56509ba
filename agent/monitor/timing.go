package monitor

import "time"

// Timing bounds the monitor's waits. The zero value of a field means its default; tests
// shorten them.
type Timing struct {
	// Settle is how long the monitor leaves a node alone after it was changed.
	// Default 60 s.
	Settle time.Duration
	// Debounce is how far apart two equal readings must be at least before a
	// debounced desire is enforced. Default 30 s.
	Debounce time.Duration
	// Gather is how long a power-off that a change of desire wants, and nobody
	// confirmed, waits for other such changes. Default 5 s; they are waited for six
	// times as long at most.
	Gather time.Duration
	// SecondLook is how long after an operation that changed the power the node is read
	// once more: some fall back. Default 30 s.
	SecondLook time.Duration
	// Lasting is how long such a change must last: what falls back earlier, and nobody
	// asked for it, did not succeed. Default 30 min, the longest pause between the tries of
	// a fault: a node that is corrected more often is in fault.
	Lasting time.Duration
	// FaultAfter is how many corrections in a row fail before a node is in fault.
	// Default 3.
	FaultAfter int
	// FaultPause is the first pause between tries of a node in fault; it doubles up to
	// FaultPauseMax. Default 1 min and 30 min.
	FaultPause, FaultPauseMax time.Duration
	// BrakeWindow is how long a power-off by the monitor counts for the fleet brake.
	// Default 60 s.
	BrakeWindow time.Duration
	// Others is how long a correction that the fleet brake judges waits at most for
	// readings of the other nodes. Default 30 s.
	Others time.Duration
	// Moment is how long readings gather before they are compared. Default 50 ms.
	Moment time.Duration
	// Calm is how long readings that show nothing new gather. Default 5 s.
	Calm time.Duration
}

// DefaultDebounce is how far apart the readings are that a debounced desire waits for.
const DefaultDebounce = 30 * time.Second

// WithDefaults fills in what is not set.
func (t Timing) WithDefaults() Timing {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Settle, time.Minute},
		{&t.Debounce, DefaultDebounce},
		{&t.Gather, 5 * time.Second},
		{&t.SecondLook, 30 * time.Second},
		{&t.Lasting, 30 * time.Minute},
		{&t.FaultPause, time.Minute},
		{&t.BrakeWindow, time.Minute},
		{&t.Others, 30 * time.Second},
		{&t.Moment, 50 * time.Millisecond},
		{&t.Calm, 5 * time.Second},
		{&t.FaultPauseMax, 30 * time.Minute},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if t.FaultAfter == 0 {
		t.FaultAfter = 3
	}
	return t
}
