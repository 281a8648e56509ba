package bmcsim

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rackpower/power"
)

// farm starts a farm that ends with the test.
func farm(t testing.TB, cfg Config) *Farm {
	t.Helper()
	f, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		for _, b := range f.bmcs {
			if b.counts.Panics > 0 {
				t.Errorf("%s: %d datagrams led to a panic", b.Name(), b.counts.Panics)
			}
		}
	})
	return f
}

// one starts a single BMC.
func one(t testing.TB, cfg Config) *BMC {
	t.Helper()
	cfg.Count = 1
	return farm(t, cfg).BMC(0)
}

func words(b *BMC) (out []string) {
	for _, e := range b.Commands() {
		out = append(out, e.Command)
	}
	return out
}

// wantWords checks which commands b got, in order.
func wantWords(t *testing.T, b *BMC, want ...string) {
	t.Helper()
	if got := words(b); !slices.Equal(got, want) {
		t.Fatalf("commands %q, want %q", got, want)
	}
}

// soon waits until cond holds, at most 5 seconds.
func soon(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"a free port each":    {Count: 3, Listen: netip.MustParseAddr("127.0.33.254")},
		"one address":         {Count: 3, SameAddress: true},
		"one address, a port": {Count: 3, SameAddress: true, Port: 39623},
		"an address each":     {Count: 3, Listen: netip.MustParseAddr("127.0.33.254"), Port: 39623},
	} {
		t.Run(name, func(t *testing.T) {
			f := farm(t, cfg)
			listen, seen := cfg.withDefaults().Listen, map[string]bool{}
			for i := range f.Len() {
				ep := f.BMC(i).Endpoint()
				if ep.Host != listen.String() || ep.Scheme != "ipmi" || ep.Port == 0 || ep.User != DefaultUser || ep.Password != DefaultPassword {
					t.Errorf("BMC %d: %+v", i, ep)
				}
				if cfg.Port != 0 && cfg.SameAddress && ep.Port != cfg.Port+i || cfg.Port != 0 && !cfg.SameAddress && ep.Port != cfg.Port {
					t.Errorf("BMC %d has port %d", i, ep.Port)
				}
				if seen[ep.Key()] || !okay(login(t, f.BMC(i))) {
					t.Errorf("BMC %d at %s: not reached, or not alone", i, ep.Key())
				}
				seen[ep.Key()] = true
				if !cfg.SameAddress {
					listen = listen.Next()
				}
			}
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{},
		{Count: -1},
		{Count: 1, Port: 70000},
		{Count: 9, Port: 65530, SameAddress: true},
		{Count: 1, User: "a-name-of-20-letters"},
		{Count: 1, Password: "more than twenty bytes of it"},
		{Count: 1, OnAfter: -1},
		{Count: 1, Initial: power.Unknown},
		{Count: 2, Names: func(int) string { return "same" }},
		{Count: 1, Names: func(int) string { return "a/b" }},
		{Count: 1, LogFile: "/nowhere/at/all"},
		{Count: 1, StateFile: "/nowhere/at/all"},
		{Count: 1, Control: "192.0.2.1:0"},
		{Count: 2, Listen: netip.MustParseAddr("255.255.255.255")},
	} {
		if f, err := Start(t.Context(), cfg); err == nil {
			t.Errorf("accepted: %+v", cfg)
			_ = f.Close()
		}
	}
}

func TestStartRollsBack(t *testing.T) {
	t.Parallel()
	taken := one(t, Config{Listen: netip.MustParseAddr("127.0.34.2")})
	port := taken.Endpoint().Port
	cfg := Config{Count: 2, Listen: netip.MustParseAddr("127.0.34.1"), Port: port}
	if _, err := Start(t.Context(), cfg); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "bmc2") {
		t.Fatalf("two on one address: %v", err)
	}
	cfg.Count = 1
	farm(t, cfg) // the first address is free again
}

func TestCloseAndContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f, err := Start(ctx, Config{Count: 3})
	if err != nil {
		t.Fatal(err)
	}
	b := f.BMC(0)
	b.Late(time.Hour, time.Hour)
	login(t, b).control(1)
	cancel()
	<-f.ended
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if len(b.Commands()) != 1 || b.Power() != power.Off {
		t.Error("the log is gone with the farm")
	}
	farm(t, Config{Count: 1, Listen: b.Addr().Addr(), Port: int(b.Addr().Port())})
}

func TestRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		done <- Run(ctx, Config{Count: 3, Listen: netip.MustParseAddr("127.0.35.1"), Port: 39624, User: "root", Password: "hush"}, w)
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if want := "3 BMCs on 127.0.35.1-127.0.35.3 port 39624, user root, cipher suites 3 and 17\n"; line != want {
		t.Errorf("%q %v, want %q", line, err, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := Run(t.Context(), Config{}, io.Discard); err == nil {
		t.Error("no error from a farm of none")
	}
}

func TestAThousand(t *testing.T) {
	t.Parallel()
	f := farm(t, Config{Count: 1000, Redfish: &Redfish{}})
	for _, i := range []int{0, 499, 999} {
		if login(t, f.BMC(i)).control(1) != 0 || f.BMC(i).Power() != power.On {
			t.Errorf("BMC %d", i)
		}
		browse(t, f.BMC(i)).wantState("On")
	}
	if f.Named("bmc500") != f.BMC(499) || f.Named("nobody") != nil {
		t.Error("names")
	}
}

func TestSameSeedSameGUIDs(t *testing.T) {
	t.Parallel()
	first, again := guid(1, "a"), guid(1, "a")
	if first != again || guid(1, "a") == guid(1, "b") || guid(1, "a") == guid(2, "a") {
		t.Error("GUIDs")
	}
}

// BenchmarkStart5000 reports how long 5,000 BMCs take to answer, and the memory
// they take from the system and of the heap.
func BenchmarkStart5000(b *testing.B) {
	var ms, heap, sys float64
	for range b.N {
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		t0 := time.Now()
		f, err := Start(b.Context(), Config{Count: 5000})
		if err != nil {
			b.Fatal(err)
		}
		ms += float64(time.Since(t0).Microseconds()) / 1000
		runtime.GC()
		runtime.ReadMemStats(&after)
		heap += float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse) / (1 << 20)
		sys += float64(after.Sys) / (1 << 20)
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	n := float64(b.N)
	b.ReportMetric(ms/n, "ms/farm")
	b.ReportMetric(heap/n, "MB/farm")
	b.ReportMetric(sys/n, "MB-sys/farm")
}

func BenchmarkStatus(b *testing.B) {
	c := login(b, one(b, Config{}))
	for b.Loop() {
		c.on()
	}
}

func BenchmarkLogin(b *testing.B) {
	bmc := one(b, Config{})
	bmc.SessionLimit(1)
	c := dial(b, bmc)
	for b.Loop() {
		if err := c.open(); err != nil {
			b.Fatal(err)
		}
		c.ask(netFnApp, cmdCloseSession, le(c.bmcID)...)
	}
}
