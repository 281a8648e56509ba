package webhook

import (
	"strings"

	"rackpower/internal/metrics"
)

// counted is a sink that keeps values by name and labels.
type counted map[string]float64

func (c counted) Value(m *metrics.Metric, value float64, labels ...string) {
	c[strings.Join(append([]string{m.Name}, labels...), " ")] = value
}

func (c counted) Distribution(*metrics.Metric, metrics.Distribution, ...string) {}
