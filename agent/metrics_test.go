package agent

import (
	"strings"
	"testing"

	"rackpower/internal/metrics"
)

// shown is a sink that keeps values by name and labels.
type shown map[string]float64

func (s shown) Value(m *metrics.Metric, value float64, labels ...string) {
	if len(labels) != len(m.Labels) {
		panic(m.Name + " has other labels")
	}
	s[strings.Join(append([]string{m.Name}, labels...), " ")] = value
}

func (s shown) Distribution(m *metrics.Metric, d metrics.Distribution, labels ...string) {
	count := 0.0
	for _, n := range d.Counts {
		count += float64(n)
	}
	s.Value(m, count, labels...)
}

func TestMetricsOfAnAgent(t *testing.T) {
	r, _ := withControl(t, 3)
	got := shown{}
	r.a.Collect(got)
	if got["rackpower_agent_nodes"] != 3 || got["rackpower_agent_nodes_held"] != 0 || got["rackpower_agent_brake"] != 0 {
		t.Errorf("%v", got)
	}
	for name := range got {
		if strings.Contains(name, " n1") {
			t.Errorf("%s names a node", name)
		}
	}
}
