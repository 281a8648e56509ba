// Package metrics describes the numbers that a daemon shows to a monitoring system, and keeps
// those of them that nothing else keeps: counts and histograms. Package prom shows them to
// Prometheus; whoever has numbers need not know that.
package metrics

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Kind is what a metric's values mean.
type Kind int

// The kinds of metrics.
const (
	KindGauge Kind = iota
	KindCounter
	KindHistogram
)

// String is the kind's name in Prometheus' text format.
func (k Kind) String() string { return [...]string{"gauge", "counter", "histogram"}[k] }

// Metric describes a number: its name, what it says, and the names of its labels.
type Metric struct {
	Name, Help string
	Kind       Kind
	Labels     []string
}

// Set is a list of metrics.
type Set []*Metric

// Gauge adds a number that goes up and down.
func (s *Set) Gauge(name, help string, labels ...string) *Metric {
	return s.add(KindGauge, name, help, labels)
}

// Counter adds a number that only grows, and begins at 0 with the process.
func (s *Set) Counter(name, help string, labels ...string) *Metric {
	return s.add(KindCounter, name, help, labels)
}

// Histogram adds a distribution.
func (s *Set) Histogram(name, help string, labels ...string) *Metric {
	return s.add(KindHistogram, name, help, labels)
}

func (s *Set) add(kind Kind, name, help string, labels []string) *Metric {
	m := &Metric{Name: name, Help: help, Kind: kind, Labels: labels}
	*s = append(*s, m)
	return m
}

// Sink takes values at the time when they are asked for.
type Sink interface {
	// Value takes the value of a gauge or counter; there are as many labels as the metric names.
	Value(m *Metric, value float64, labels ...string)
	// Distribution takes that of a histogram.
	Distribution(m *Metric, d Distribution, labels ...string)
}

// Source gives all its values to a sink. It may be called concurrently.
type Source func(Sink)

// Collector is what has a Source.
type Collector interface{ Collect(Sink) }

// Bool is 1 for true.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Counts counts by labels. Its zero value is ready, and it may be used concurrently.
type Counts struct {
	mu sync.Mutex
	by map[string]float64
}

const labelEnd = "\x00"

// Add counts n more.
func (c *Counts) Add(n float64, labels ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]float64{}
	}
	c.by[strings.Join(labels, labelEnd)] += n
}

// Collect gives the counts to a sink.
func (c *Counts) Collect(s Sink, m *Metric) {
	c.mu.Lock()
	by := maps.Clone(c.by)
	c.mu.Unlock()
	if len(m.Labels) == 0 && len(by) == 0 {
		s.Value(m, 0)
	}
	for key, n := range by {
		s.Value(m, n, split(m, key)...)
	}
}

func split(m *Metric, key string) []string {
	if len(m.Labels) == 0 {
		return nil
	}
	return strings.Split(key, labelEnd)
}

// Distribution is how many values there were up to each bound.
type Distribution struct {
	Bounds []float64
	Counts []uint64 // by bound, values above the bound before only; one more for those above all
	Sum    float64
}

// Histogram counts values by bounds, and by labels.
type Histogram struct {
	bounds []float64

	mu sync.Mutex
	by map[string]*Distribution
}

// NewHistogram makes a histogram with these bounds, which grow. Values without labels are shown
// from the start.
func NewHistogram(bounds ...float64) *Histogram {
	return &Histogram{bounds: bounds, by: map[string]*Distribution{}}
}

// Observe counts a value.
func (h *Histogram) Observe(value float64, labels ...string) {
	at, _ := slices.BinarySearch(h.bounds, value) // a bound is part of its bucket
	key := strings.Join(labels, labelEnd)
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.by[key]
	if d == nil {
		d = h.empty()
		h.by[key] = d
	}
	d.Counts[at]++
	d.Sum += value
}

// Time counts a duration, in seconds.
func (h *Histogram) Time(d time.Duration, labels ...string) { h.Observe(d.Seconds(), labels...) }

func (h *Histogram) empty() *Distribution {
	return &Distribution{Bounds: h.bounds, Counts: make([]uint64, len(h.bounds)+1)}
}

// Collect gives the distributions to a sink.
func (h *Histogram) Collect(s Sink, m *Metric) {
	h.mu.Lock()
	by := make(map[string]Distribution, len(h.by))
	for key, d := range h.by {
		by[key] = Distribution{Bounds: d.Bounds, Counts: slices.Clone(d.Counts), Sum: d.Sum}
	}
	h.mu.Unlock()
	if len(m.Labels) == 0 && len(by) == 0 {
		s.Distribution(m, *h.empty())
	}
	for key, d := range by {
		s.Distribution(m, d, split(m, key)...)
	}
}
