package bmcsim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"

	"rackpower/power"
)

// Farm is a number of running BMCs.
type Farm struct {
	cfg    Config
	bmcs   []*BMC
	byName map[string]*BMC
	log    *logFile
	states *logFile

	web    *http.Server // of all Redfish services
	webTLS *tls.Config

	wg       sync.WaitGroup // the BMCs' goroutines
	stopHTTP func() error
	control  net.Addr
	cancel   context.CancelFunc
	ended    chan struct{} // closed when nothing runs any more
	err      error         // of the end; read after ended
}

// Start opens all sockets and serves them until ctx ends or Close is called. When
// it returns, every BMC answers.
func Start(ctx context.Context, cfg Config) (*Farm, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &Farm{cfg: cfg, bmcs: make([]*BMC, 0, cfg.Count), byName: make(map[string]*BMC, cfg.Count), ended: make(chan struct{})}
	if err := f.open(); err != nil {
		f.end()
		return nil, err
	}
	for _, b := range f.bmcs {
		f.wg.Go(b.serve)
		if b.redfish != nil {
			f.wg.Go(b.serveRedfish)
		}
	}
	ctx, f.cancel = context.WithCancel(ctx)
	go func() { // waited for by Close, through f.ended
		<-ctx.Done()
		f.end()
	}()
	return f, nil
}

func (f *Farm) open() (err error) {
	if f.log, err = openLog(f.cfg.LogFile); err != nil {
		return err
	}
	known, states, err := openState(f.cfg.StateFile)
	if err != nil {
		return err
	}
	f.states = states
	if f.cfg.Redfish != nil {
		f.web, f.webTLS = f.webServer(), tlsOf()
	}
	addr := f.cfg.Listen
	for i := range f.cfg.Count {
		if err := f.openBMC(i, addr, known); err != nil {
			return err
		}
		if !f.cfg.SameAddress {
			addr = addr.Next()
		}
	}
	f.stopHTTP, err = f.serveControl()
	return err
}

func (f *Farm) openBMC(i int, addr netip.Addr, known map[string]power.State) error {
	name := f.cfg.Names(i)
	if name == "" || strings.Contains(name, "/") || f.byName[name] != nil {
		return fmt.Errorf("cannot name BMC %d %q: names are unique, not empty and have no slash", i, name)
	}
	port := f.cfg.Port
	if f.cfg.SameAddress && port != 0 {
		port += i
	}
	if !addr.IsValid() {
		return fmt.Errorf("cannot listen for BMC %s: there are not %d addresses from %s on", name, f.cfg.Count, f.cfg.Listen)
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))))
	if err != nil {
		hint := ""
		if errors.Is(err, syscall.EMFILE) {
			hint = fmt.Sprintf(" (%d BMCs need as many open files: raise ulimit -n)", f.cfg.Count)
		}
		return fmt.Errorf("cannot listen for BMC %s: %w%s", name, err, hint)
	}
	initial := f.cfg.Initial
	if s, ok := known[name]; ok {
		initial = s
	}
	b := newBMC(f, i, conn, initial)
	f.bmcs = append(f.bmcs, b)
	f.byName[name] = b
	return f.openRedfish(i, b)
}

// BMC returns BMC i, counted from 0.
func (f *Farm) BMC(i int) *BMC { return f.bmcs[i] }

// Named returns the BMC of that name, nil if there is none.
func (f *Farm) Named(name string) *BMC { return f.byName[name] }

// Len returns the number of BMCs.
func (f *Farm) Len() int { return len(f.bmcs) }

// Close ends all BMCs and waits for them. It may be called more than once.
func (f *Farm) Close() error {
	f.cancel()
	<-f.ended
	return f.err
}

// end stops in reverse order whatever was started.
func (f *Farm) end() {
	defer close(f.ended)
	var errs []error
	if f.stopHTTP != nil {
		errs = append(errs, f.stopHTTP())
	}
	if f.web != nil {
		errs = append(errs, f.web.Close())
	}
	for _, b := range f.bmcs {
		errs = append(errs, b.close())
	}
	f.wg.Wait()
	f.err = errors.Join(append(errs, f.log.close(), f.states.close())...)
}

func (b *BMC) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.agenda.stop()
	if b.redfish != nil {
		_ = b.redfish.listener.Close() // the HTTP server has, if it had begun
	}
	return b.conn.Close()
}

// Run starts a farm, says on out in one line where it is, and blocks until ctx
// ends. The error is that of the start or of the end.
func Run(ctx context.Context, cfg Config, out io.Writer) error {
	f, err := Start(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, f)
	<-ctx.Done()
	return f.Close()
}

// String describes the farm in one line, without the password.
func (f *Farm) String() string {
	first, last := f.bmcs[0].addr, f.bmcs[len(f.bmcs)-1].addr
	n := fmt.Sprintf("%d BMCs", len(f.bmcs))
	if len(f.bmcs) == 1 {
		n = "1 BMC"
	}
	where := fmt.Sprintf("%s-%s port %d", first.Addr(), last.Addr(), first.Port())
	switch {
	case len(f.bmcs) == 1:
		where = fmt.Sprintf("%s port %d", first.Addr(), first.Port())
	case f.cfg.Port == 0:
		where = fmt.Sprintf("%s-%s, a free port each", first.Addr(), last.Addr())
	case f.cfg.SameAddress:
		where = fmt.Sprintf("%s ports %d-%d", first.Addr(), first.Port(), last.Port())
	}
	line := fmt.Sprintf("%s on %s, user %s, cipher suites 3 and 17", n, where, f.cfg.User)
	if r := f.cfg.Redfish; r != nil {
		line += ", Redfish at " + f.redfishLine(r)
	}
	if f.control != nil {
		line += ", control at " + f.control.String()
	}
	return line
}

// redfishLine says where the Redfish services are.
func (f *Farm) redfishLine(r *Redfish) string {
	first, last := f.bmcs[0].redfish.addr, f.bmcs[len(f.bmcs)-1].redfish.addr
	where := fmt.Sprintf("%s://%s", r.scheme(), first)
	switch {
	case len(f.bmcs) == 1:
	case r.Port == 0:
		where = fmt.Sprintf("%s://%s-%s, a free port each", r.scheme(), first.Addr(), last.Addr())
	case f.cfg.SameAddress:
		where += fmt.Sprintf("-%d", last.Port())
	default:
		where = fmt.Sprintf("%s://%s-%s:%d", r.scheme(), first.Addr(), last.Addr(), first.Port())
	}
	names := make([]string, 0, len(r.Profiles))
	for _, p := range r.Profiles {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		names = append(names, Profiles[0].Name)
	}
	return where + " (" + strings.Join(names, ", ") + ")"
}
