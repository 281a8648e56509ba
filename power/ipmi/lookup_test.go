package ipmi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
)

// names is a resolver whose answer a test sets.
type names struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	hang  bool
	asked int
}

func (n *names) set(change func(*names)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *names) lookup(ctx context.Context, _ string) ([]netip.Addr, error) {
	n.mu.Lock()
	n.asked++
	addrs, err, hang := append([]netip.Addr(nil), n.addrs...), n.err, n.hang
	n.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return addrs, err
}

// twoOfOneName starts two BMCs at addresses of their own and one port; the name is that
// of the first.
func twoOfOneName(t *testing.T) (n *names, d *Dialer, ep power.Endpoint, old, now *bmcsim.BMC) {
	t.Helper()
	first := netip.MustParseAddr("127.0.113.1")
	free, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(first, 0)))
	if err != nil {
		t.Fatal(err)
	}
	port := free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	farm, err := bmcsim.Start(context.Background(), bmcsim.Config{Count: 2, Listen: first, Port: port, Initial: power.On})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { farm.Close() })
	n = &names{addrs: []netip.Addr{first}}
	cfg := impatient
	cfg.Lookup, cfg.LookupTimeout = n.lookup, 200*time.Millisecond
	ep = farm.BMC(0).Endpoint()
	ep.Host = "bmc7.example"
	return n, NewDialer(cfg), ep, farm.BMC(0), farm.BMC(1)
}

// TestNameThatMoves: nothing that acts goes to an address that the name has no longer,
// and nothing goes on being read from there.
func TestNameThatMoves(t *testing.T) {
	n, dialer, ep, old, now := twoOfOneName(t)
	for name, act := range map[string]func(power.Driver) error{
		"off":  func(d power.Driver) error { return d.Do(t.Context(), power.PowerOff) },
		"boot": func(d power.Driver) error { return d.SetBoot(t.Context(), power.BootPXE) },
		"read": func(d power.Driver) error {
			d.(*session).link.at = time.Now().Add(-lookUpEvery)
			_, err := d.State(t.Context())
			return err
		},
	} {
		n.set(func(n *names) { n.addrs = []netip.Addr{old.Addr().Addr()} })
		d := mustDialBy(t, dialer, ep)
		wantState(t, d, power.On)
		n.set(func(n *names) { n.addrs = []netip.Addr{now.Addr().Addr()} })
		err := act(d)
		wantKind(t, err, power.KindUnreachable, false)
		if e := (*power.Error)(nil); !errors.As(err, &e) || !e.Lost || !strings.Contains(err.Error(), "another address") {
			t.Errorf("%s: %v", name, err)
		}
		d.Close()
		again := mustDialBy(t, dialer, ep)
		if err := act(again); err != nil {
			t.Errorf("%s at the new address: %v", name, err)
		}
		again.Close()
	}
	if got := len(old.Commands()); got != 0 {
		t.Errorf("the old address got %d commands", got)
	}
	if old.Sessions() != 0 {
		t.Errorf("%d sessions are left at the old address", old.Sessions())
	}
	if got := len(now.Commands()); got != 2 {
		t.Errorf("the new address got %d commands, want 2", got)
	}
}

// TestNameOfSeveralAddresses: one that the name still has is as good as before.
func TestNameOfSeveralAddresses(t *testing.T) {
	n, dialer, ep, old, now := twoOfOneName(t)
	d := mustDialBy(t, dialer, ep)
	defer d.Close()
	n.set(func(n *names) { n.addrs = []netip.Addr{now.Addr().Addr(), old.Addr().Addr()} })
	if err := d.Do(t.Context(), power.PowerOff); err != nil {
		t.Error(err)
	}
	if len(old.Commands()) != 1 {
		t.Errorf("the BMC got %d commands", len(old.Commands()))
	}
}

// TestResolverThatIsDown: nothing that acts is sent, a session that stands is read from,
// and people are told why.
func TestResolverThatIsDown(t *testing.T) {
	for name, tc := range map[string]struct {
		down func(*names)
		says string
	}{
		"silent":   {func(n *names) { n.hang = true }, "no answer from the name server within 0.2 s"},
		"broken":   {func(n *names) { n.err = &net.DNSError{Err: "server misbehaving", Name: "bmc7.example"} }, "server misbehaving"},
		"no name":  {func(n *names) { n.err = &net.DNSError{Err: "no such host", IsNotFound: true} }, "the name bmc7.example has no address"},
		"no addrs": {func(n *names) { n.addrs = nil }, "the name bmc7.example has no address"},
	} {
		t.Run(name, func(t *testing.T) {
			n, dialer, ep, old, _ := twoOfOneName(t)
			d := mustDialBy(t, dialer, ep)
			defer d.Close()
			n.set(tc.down)
			d.(*session).link.at = time.Now().Add(-lookUpEvery)
			wantState(t, d, power.On)
			start := time.Now()
			err := d.Do(t.Context(), power.PowerOff)
			within(t, start, time.Second)
			wantKind(t, err, power.KindUnreachable, false)
			if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "nothing is sent") {
				t.Error(err)
			}
			_, err = dialer.Dial(t.Context(), ep)
			wantKind(t, err, power.KindUnreachable, false)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Error(err)
			}
			if err := dialer.Probe(t.Context(), ep); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Error(err)
			}
			if len(old.Commands()) != 0 {
				t.Error("a command was sent")
			}
		})
	}
}

// TestAddressesAreNotLookedUp: nor are names, where nothing acts and little time has passed.
func TestAddressesAreNotLookedUp(t *testing.T) {
	n, dialer, ep, old, _ := twoOfOneName(t)
	d := mustDialBy(t, dialer, ep)
	defer d.Close()
	for range 5 {
		wantState(t, d, power.On)
	}
	if n.asked != 1 {
		t.Errorf("looked up %d times, want once", n.asked)
	}
	ep.Host = old.Addr().Addr().String()
	byAddr := mustDialBy(t, dialer, ep)
	defer byAddr.Close()
	if err := byAddr.Do(t.Context(), power.PowerOff); err != nil || n.asked != 1 {
		t.Errorf("%v, looked up %d times", err, n.asked)
	}
}
