package bmcsim

import (
	"net/http"
	"runtime"
	"testing"
	"time"
)

// BenchmarkRedfish2000 reports what 2,000 BMCs with both protocols take to start, and what
// each takes: idle, and with a connection over TLS that is kept (its client, which is in this
// process too, included).
func BenchmarkRedfish2000(b *testing.B) {
	const count = 2000
	used := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse)
	}
	var ms, idle, kept, goroutines, goroutinesKept float64
	for range b.N {
		before, routines := used(), runtime.NumGoroutine()
		t0 := time.Now()
		f, err := Start(b.Context(), Config{Count: count, Redfish: &Redfish{Profiles: Profiles}})
		if err != nil {
			b.Fatal(err)
		}
		ms += float64(time.Since(t0).Microseconds()) / 1000
		idle += used() - before
		goroutines += float64(runtime.NumGoroutine() - routines)
		clients := make([]*web, count)
		for i := range clients {
			clients[i] = browse(b, f.BMC(i))
			clients[i].login()
		}
		kept += used() - before
		goroutinesKept += float64(runtime.NumGoroutine() - routines)
		for _, c := range clients {
			c.client.CloseIdleConnections()
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	n := float64(b.N)
	b.ReportMetric(ms/n, "ms/farm")
	b.ReportMetric(idle/n/count/1024, "KB/BMC")
	b.ReportMetric(kept/n/count/1024, "KB/BMC-connected")
	b.ReportMetric(goroutines/n/count, "goroutines/BMC")
	b.ReportMetric(goroutinesKept/n/count, "goroutines/BMC-connected")
}

// BenchmarkRedfishStatus is a status on a kept connection and session.
func BenchmarkRedfishStatus(b *testing.B) {
	_, c := oneWeb(b, "inline", Config{})
	c.login()
	for b.Loop() {
		c.do(http.StatusOK, http.MethodGet, c.system(), nil)
	}
}

// BenchmarkRedfishFresh is a status on a connection of its own, by Basic.
func BenchmarkRedfishFresh(b *testing.B) {
	_, c := oneWeb(b, "inline", Config{})
	for b.Loop() {
		c.do(http.StatusOK, http.MethodGet, c.system(), nil)
		c.client.CloseIdleConnections()
	}
}
