package redfish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"rackpower/power"
)

// Dialer opens sessions to BMCs. It remembers for each BMC where its sessions and Systems
// are. It may be used concurrently and holds nothing that must be closed.
type Dialer struct {
	cfg Config

	mu     sync.Mutex
	learnt map[string]*learnt // by Endpoint.Key
	notes  map[string]note    // where nobody keeps them
	mine   map[string]bool    // sessions that are open or asked for, by Key and name
}

// rememberFor is how long what was learnt of a BMC is a first guess.
const rememberFor = time.Hour

// learnt is where things are on a BMC.
type learnt struct {
	at       time.Time
	root     serviceRoot
	systems  map[string]link // by Endpoint.System
	starting time.Time       // since when it lists no Systems; zero: it does
}

// NewDialer returns a Dialer.
func NewDialer(cfg Config) *Dialer {
	return &Dialer{cfg: cfg.withDefaults(), learnt: map[string]*learnt{}, notes: map[string]note{}, mine: map[string]bool{}}
}

// UseNotes has what must outlive the process kept by notes.
func (d *Dialer) UseNotes(notes power.Notes) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cfg.Notes = notes
}

// Forget has the next Dial ask the BMC of the endpoint for everything again.
func (d *Dialer) Forget(ep power.Endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.learnt, ep.Key())
}

// know changes what is known of a BMC, and returns a copy of it.
func (d *Dialer) know(ep power.Endpoint, change func(*learnt)) learnt {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.learnt[ep.Key()]
	if b == nil || time.Since(b.at) > rememberFor {
		starting := time.Time{}
		if b != nil {
			starting = b.starting
		}
		b = &learnt{at: time.Now(), systems: map[string]link{}, starting: starting}
		d.learnt[ep.Key()] = b
	}
	if change != nil {
		change(b)
	}
	known := *b
	known.systems = map[string]link{ep.System: b.systems[ep.System]}
	return known
}

const (
	opOpen  = "open session"
	opState = "get system"
	opProbe = "probe"
	opBoot  = "set boot device"
	rootURL = "/redfish/v1/"
)

// checkEndpoint refuses what cannot work, before anything is sent.
func checkEndpoint(op string, ep power.Endpoint) *power.Error {
	bad := func(kind power.ErrorKind, format string, args ...any) *power.Error {
		return &power.Error{Kind: kind, Op: op, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case !ep.IsRedfish():
		return bad(power.KindUnsupported, "scheme %q is not Redfish", ep.Scheme)
	case ep.Host == "" || ep.Port == 0:
		return bad(power.KindUnsupported, "the endpoint has no host or port")
	case op != opProbe && ep.User == "":
		return bad(power.KindAuth, "Redfish needs a user: redfish://USER@HOST")
	}
	return nil
}

// Dial opens a session to the BMC of the endpoint. It is a power.Dialer.
//
// User and password are tried once: a wrong one is KindAuth at once. KindBusy means that the
// BMC is there and opens no session.
func (d *Dialer) Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	if err := checkEndpoint(opOpen, ep); err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeoutCause(ctx, d.cfg.Timeout, errNoAnswer)
	defer cancel()
	s := &session{dialer: d, cfg: d.cfg, ep: ep, client: newClient(d.cfg, ep, d.tlsFor(ep)), infos: map[link][]string{}}
	if err := s.open(within); err != nil {
		s.client.close()
		if err.Kind == power.KindUnreachable {
			d.Forget(ep)
		}
		return nil, s.within(ctx, err)
	}
	return s, nil
}

// within makes "unreachable" of what the bound on a Dial has ended, and not its caller.
func (s *session) within(ctx context.Context, err *power.Error) *power.Error {
	if err.Kind == power.KindCanceled && ctx.Err() == nil {
		err.Kind, err.Lost, err.Err = power.KindUnreachable, true, errNoAnswer
	}
	return err
}

// Probe asks the BMC of the endpoint whether it is there: for its service root, which it
// answers to everybody. User and password stay here and no session is opened. It returns nil
// when the BMC answered, whatever it said.
func (d *Dialer) Probe(ctx context.Context, ep power.Endpoint) error {
	if err := checkEndpoint(opProbe, ep); err != nil {
		return err
	}
	c := newClient(d.cfg, ep, d.tlsFor(ep))
	defer c.close()
	_, err := c.sendOnce(ctx, request{op: opProbe, method: http.MethodGet, path: rootURL, within: d.cfg.ProbeTimeout})
	if err != nil && err.Kind != power.KindAuth && err.Kind != power.KindUnsupported && err.Kind != power.KindRefused {
		return err
	}
	return nil
}

// Speaks reports whether the endpoint speaks Redfish: nil where it has a service root, which it
// gives to everybody. KindUnsupported means that something else answers, or nothing that can be
// spoken to.
func (d *Dialer) Speaks(ctx context.Context, ep power.Endpoint) error {
	if err := checkEndpoint(opProbe, ep); err != nil {
		return err
	}
	c := newClient(d.cfg, ep, d.tlsFor(ep))
	defer c.close()
	a, err := c.send(ctx, request{op: opProbe, method: http.MethodGet, path: rootURL, within: d.cfg.ProbeTimeout})
	if err != nil {
		return err
	}
	var root serviceRoot
	switch {
	case a.ok() && parse(a.body, &root) == nil && (root.Version != "" || root.Systems != ""), !a.ok() && len(said(a).ids) > 1:
		return nil
	case a.ok():
		return &power.Error{Kind: power.KindUnsupported, Op: opProbe, Err: errors.New("what answers has no service root")}
	}
	if err = refused(opProbe, a, false, false); err.Kind != power.KindBusy {
		err.Kind, err.Refused = power.KindUnsupported, false
	}
	return err
}

// ErrNoReset is what errors.Is finds where a BMC has no System that can be reset, ErrUseIPMI
// where it is better spoken to by IPMI.
var (
	ErrNoReset = errors.New("it has no System that can be reset")
	ErrUseIPMI = errors.New("IPMI is better")
)

// Resetter is a Driver of this package.
type Resetter interface {
	// CanReset returns an error, with ErrNoReset or ErrUseIPMI, where the System cannot be reset
	// or should not be.
	CanReset(ctx context.Context) error
}

// CanReset implements Resetter.
func (s *session) CanReset(ctx context.Context) error {
	if err := s.ready(ctx, opState); err != nil {
		return err
	}
	if err := s.readSystem(ctx, opState); err != nil {
		return s.check(err)
	}
	if s.system.reset().Target == "" {
		return &power.Error{Kind: power.KindUnsupported, Op: opState, Err: ErrNoReset}
	}
	if d := s.differs(ctx, opState, func(d difference) bool { return d.ipmi != "" }); d != nil {
		return &power.Error{Kind: power.KindUnsupported, Op: opState, Err: fmt.Errorf("%w: %s", ErrUseIPMI, d.ipmi)}
	}
	return nil
}

var _ Resetter = (*session)(nil)

// root is the service root, as it is known or as the BMC gives it.
func (s *session) root(ctx context.Context) (serviceRoot, *power.Error) {
	if known := s.dialer.know(s.ep, nil); known.root.Systems != "" {
		return known.root, nil
	}
	var root serviceRoot
	a, err := s.client.get(ctx, opOpen, rootURL)
	if err != nil {
		return root, err
	}
	if !a.ok() {
		return root, refused(opOpen, a, false, false)
	}
	if err := a.into(opOpen, &root); err != nil {
		return root, err
	}
	if root.Systems == "" {
		root.Systems = rootURL + "Systems"
	}
	if root.Links.value.Sessions == "" {
		root.Links.value.Sessions = rootURL + "SessionService/Sessions"
	}
	s.dialer.know(s.ep, func(b *learnt) { b.root = root })
	return root, nil
}

var errNoSession = errors.New("the BMC opened a session and did not say which")
