package agent

import (
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/internal/metrics"
	"rackpower/power"
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
	r, client := withControl(t, 3)
	got := shown{}
	r.a.Collect(got)
	if got["rackpower_agent_nodes"] != 3 || got["rackpower_agent_nodes_held"] != 0 || got["rackpower_agent_brake"] != 0 {
		t.Errorf("%v", got)
	}
	if _, err := client.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "n1", Action: power.ActOn}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is on", func() bool {
		got = shown{}
		r.a.Collect(got)
		return got["rackpower_agent_operations_ended_total on local succeeded"] == 1
	})
	for _, name := range []string{
		"rackpower_agent_operation_accept_seconds", "rackpower_agent_operation_first_command_seconds",
		"rackpower_agent_operation_duration_seconds on", "rackpower_agent_journal_flush_seconds journal", "rackpower_agent_bmcs closed",
	} {
		if got[name] < 1 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	for name := range got {
		if strings.Contains(name, " n1") {
			t.Errorf("%s names a node", name)
		}
	}
}
