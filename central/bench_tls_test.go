package central

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
)

// busy is the processor time that this process has used.
func busy(b *testing.B) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// BenchmarkLogins opens a connection for each, shows a token and asks who it is: at central,
// and, for comparison, at a server of the same TLS that asks nobody. Both sides are in the
// figures. 10,000 of them: -bench Logins -benchtime 10000x.
func BenchmarkLogins(b *testing.B) {
	r, _ := onTLS(b)
	out, err := r.AddUser(b.Context(), api.AddUser{Name: "alice", Role: "viewer"})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	bare := &http.Server{TLSConfig: r.c.tls.config(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"name":"alice"}`)
	})}
	go func() { _ = bare.ServeTLS(l, "", "") }()
	defer bare.Close()
	for _, at := range []struct{ name, url string }{{"bare", "https://" + l.Addr().String()}, {"central", r.url()}} {
		b.Run(at.name, func(b *testing.B) {
			before := busy(b)
			clients(b, func(int, int) error {
				client, err := api.NewClient(at.url)
				if err != nil {
					return err
				}
				defer client.Close()
				client.Secure(auth.Pinned(r.c.tls.ca.Hash(), nil), out.Token)
				me, err := client.WhoAmI(context.Background())
				if err == nil && me.Name != "alice" {
					err = fmt.Errorf("I am %s", me.Name)
				}
				return err
			})
			b.ReportMetric(float64((busy(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

// BenchmarkOpsWithWatches takes a request after the other while nobody, and while 200 clients
// with a connection each, wait for news of operations and are told of every one.
func BenchmarkOpsWithWatches(b *testing.B) {
	for _, watches := range []int{0, 200} {
		b.Run(fmt.Sprint(watches), func(b *testing.B) {
			r, _ := onTLS(b)
			out, err := r.AddUser(b.Context(), api.AddUser{Name: "alice", Role: "viewer"})
			if err != nil {
				b.Fatal(err)
			}
			node := api.NodeSpec{Name: "a", Rack: "r1", BMC: "ipmi://u@192.0.2.1"}
			if _, err := r.AddNodes(b.Context(), api.AddNodes{Nodes: []api.NodeSpec{node}}); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			heap := inUse()
			seen := make([]atomic.Int64, watches) // the newest revision that each was told of
			for i := range watches {
				client, err := api.NewClient(r.url())
				if err != nil {
					b.Fatal(err)
				}
				defer client.Close()
				client.Secure(auth.Pinned(r.c.tls.ca.Hash(), nil), out.Token)
				go func() {
					for ctx.Err() == nil {
						found, err := client.QueryOps(ctx, api.QueryOps{AfterRev: seen[i].Load(), Wait: time.Minute})
						if err == nil && len(found.Ops) > 0 {
							seen[i].Store(found.Rev)
						}
					}
				}()
			}
			rev := int64(0)
			one := func() {
				_, err := r.AskOps(ctx, api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActOn}}})
				if err != nil {
					b.Fatal(err)
				}
				found, err := r.QueryOps(ctx, api.QueryOps{AfterRev: rev})
				if err != nil {
					b.Fatal(err)
				}
				for rev = found.Rev; ; time.Sleep(time.Millisecond) {
					late := 0
					for i := range seen {
						if seen[i].Load() < rev {
							late++
						}
					}
					if late == 0 {
						return
					}
				}
			}
			one() // all are connected
			if watches > 0 {
				b.ReportMetric((inUse()-heap)/1024/float64(watches), "KiB/watch")
			}
			before := busy(b)
			b.ResetTimer()
			for range b.N {
				one()
			}
			b.StopTimer()
			b.ReportMetric(float64((busy(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
			if watches > 0 {
				b.ReportMetric((inUse()-heap)/1024/float64(watches), "KiB/watch")
			}
		})
	}
}

// inUse is the memory that is in use, of both sides.
func inUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}
