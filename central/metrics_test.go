package central

import (
	"net/http/httptest"
	"strings"
	"testing"

	"rackpower/central/api"
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
