package central

import (
	"net/http/httptest"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/power"
)

// metricsText is what a scrape shows.
func (r *running) metricsText(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.c.metricsHandler()(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantMetrics(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

func TestMetricsHaveTheSite(t *testing.T) {
	r := run(t, Config{})
	specs := []api.NodeSpec{{Name: "a1", Rack: "ra"}, {Name: "a2", Rack: "ra"}, {Name: "b1", Rack: "rb"}}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	text := r.metricsText(t)
	wantMetrics(t, text, `rackpower_nodes{rack="ra",state="unknown"} 2`, `rackpower_nodes_reach{rack="rb",reach="never"} 1`,
		`rackpower_rack_agent_up{rack="ra"} 0`, `rackpower_rack_brake{rack="ra"} 0`, `rackpower_central_database_up 1`,
		`rackpower_operation_oldest_open_seconds 0`)
	for _, node := range []string{"a1", "a2", "b1"} {
		if strings.Contains(text, node) {
			t.Errorf("the metrics name node %s", node)
		}
	}
}

func TestMetricsCountWhatIsAskedFor(t *testing.T) {
	r := run(t, Config{})
	specs := []api.NodeSpec{{Name: "a1", Rack: "ra", BMC: "ipmi://admin@192.0.2.1", Password: "x"}, {Name: "a2", Rack: "ra"}}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	ask := api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a1", Action: power.ActOn}, {ID: newID(), Node: "a2", Action: power.ActOn}}}
	if _, err := r.AskOps(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CancelOp(t.Context(), ask.Ops[0].ID, api.CancelOp{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Nodes(t.Context(), "nonexistent"); err == nil {
		t.Error("a node that there is not was found")
	}
	wantMetrics(t, r.metricsText(t), `rackpower_operations_asked_total{action="on"} 2`,
		`rackpower_operations_ended_total{action="on",outcome="refused"} 1`, `rackpower_operations_ended_total{action="on",outcome="cancelled"} 1`,
		`rackpower_central_http_requests_total{code="200",route="POST /v1/ops"} 1`,
		`rackpower_central_http_requests_total{code="404",route="GET /v1/nodes"} 1`)
}
