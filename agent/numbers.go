package agent

import (
	"time"

	"rackpower/internal/metrics"
	"rackpower/power"
)

// numbers are those of the metrics that nothing else keeps. They begin with the process.
type numbers struct {
	ended                 metrics.Counts
	accepted, sent, lasts *metrics.Histogram
	reads, rounds         *metrics.Histogram

	flushes, records *metrics.Histogram
	written, failed  metrics.Counts
}

func newNumbers() *numbers {
	return &numbers{
		accepted: metrics.NewHistogram(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300),
		sent:     metrics.NewHistogram(.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
		lasts:    metrics.NewHistogram(.1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
		reads:    metrics.NewHistogram(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
		rounds:   metrics.NewHistogram(.1, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
		flushes:  metrics.NewHistogram(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5),
		records:  metrics.NewHistogram(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
	}
}

// flushed counts what is written to one of the two logs.
func (n *numbers) flushed(log string) func(time.Duration, int, int64, error) {
	return func(took time.Duration, records int, bytes int64, err error) {
		if err != nil {
			n.failed.Add(1, log)
			return
		}
		n.flushes.Time(took, log)
		n.records.Observe(float64(records), log)
		n.written.Add(float64(bytes), log)
	}
}

func (n *numbers) opEnded(op power.Op, end power.End) {
	n.ended.Add(1, string(op.Action), string(op.Origin), string(end.Outcome))
	if end.Outcome == power.Succeeded && !end.Already {
		n.lasts.Time(max(end.At.Sub(op.AskedAt), 0), string(op.Action))
	}
}

func (n *numbers) collect(s metrics.Sink) {
	n.ended.Collect(s, opsEnded)
	n.accepted.Collect(s, opAccepted)
	n.sent.Collect(s, opSent)
	n.lasts.Collect(s, opTook)
	n.reads.Collect(s, readTook)
	n.rounds.Collect(s, roundTook)
	n.flushes.Collect(s, flushTook)
	n.records.Collect(s, flushRecords)
	n.written.Collect(s, flushBytes)
	n.failed.Collect(s, flushFailed)
}
