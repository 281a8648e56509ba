// Package prom shows metrics to Prometheus.
package prom

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rackpower/internal/metrics"
)

var (
	common    metrics.Set
	buildInfo = common.Gauge("rackpower_build_info", "1, with the version of the daemon in its labels", "component", "version", "go_version")
)

// Common are the metrics that every daemon has beside its own and those of the Go runtime and the
// process.
func Common() metrics.Set { return common }

// scrapesAtOnce bounds what many who ask at once cost.
const scrapesAtOnce = 4

// Handler serves the metrics of a daemon, which it asks from for at each request.
func Handler(component, version string, from metrics.Source) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{func(s metrics.Sink) {
			s.Value(buildInfo, 1, component, version, runtime.Version())
			from(s)
		}})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce})
}

// collector asks a source at each scrape. Which metrics come is not known before.
type collector struct{ from metrics.Source }

// Describe describes nothing: what a source gives may depend on the flags of the daemon.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect gives Prometheus all that the source has.
func (c *collector) Collect(out chan<- prometheus.Metric) { c.from(sink{out}) }

type sink struct{ out chan<- prometheus.Metric }

// Value passes a gauge or counter on.
func (s sink) Value(m *metrics.Metric, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if m.Kind == metrics.KindCounter {
		kind = prometheus.CounterValue
	}
	s.out <- prometheus.MustNewConstMetric(desc(m), kind, value, labels...)
}

// Distribution passes a histogram on.
func (s sink) Distribution(m *metrics.Metric, d metrics.Distribution, labels ...string) {
	upTo, count := make(map[float64]uint64, len(d.Bounds)), uint64(0)
	for i, n := range d.Counts {
		count += n
		if i < len(d.Bounds) {
			upTo[d.Bounds[i]] = count
		}
	}
	s.out <- prometheus.MustNewConstHistogram(desc(m), count, d.Sum, upTo, labels...)
}

func desc(m *metrics.Metric) *prometheus.Desc {
	return prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
}
