package prom

import (
	"net/http/httptest"
	"strings"
	"testing"

	"rackpower/internal/metrics"
)

func TestHandlerShowsWhatTheSourceHas(t *testing.T) {
	var set metrics.Set
	gauge := set.Gauge("rackpower_test_things", "Things.", "kind")
	counter := set.Counter("rackpower_test_events_total", "Events.", "what")
	times := set.Histogram("rackpower_test_seconds", "Times.")
	var counts metrics.Counts
	h := metrics.NewHistogram(0.1, 1)
	h.Observe(0.1)
	h.Observe(0.5)
	h.Observe(7)
	counts.Add(1, "a")
	counts.Add(2, "a")
	handler := Handler("test", "1.2", func(s metrics.Sink) {
		s.Value(gauge, 4, "x")
		counts.Collect(s, counter)
		h.Collect(s, times)
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for _, line := range []string{
		`rackpower_test_things{kind="x"} 4`, "# TYPE rackpower_test_events_total counter", `rackpower_test_events_total{what="a"} 3`,
		`rackpower_test_seconds_bucket{le="0.1"} 1`, `rackpower_test_seconds_bucket{le="1"} 2`, `rackpower_test_seconds_bucket{le="+Inf"} 3`,
		`rackpower_test_seconds_sum 7.6`, `rackpower_build_info{component="test",go_version="go`, "process_resident_memory_bytes ",
		"go_goroutines ",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
}
