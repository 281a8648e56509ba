package ipmi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// Dialer opens sessions to BMCs. It remembers for each BMC what was agreed on,
// so that the next Dial asks for it at once. It may be used concurrently and
// holds nothing that must be closed.
type Dialer struct {
	cfg Config

	mu     sync.Mutex
	learnt map[string]*learnt // by Endpoint.Key
}

// NewDialer returns a Dialer. cfg must be valid.
func NewDialer(cfg Config) *Dialer {
	return &Dialer{cfg: cfg.withDefaults(), learnt: map[string]*learnt{}}
}

// Dial is NewDialer(Config{}).Dial: it remembers nothing.
func Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	return NewDialer(Config{}).Dial(ctx, ep)
}

// Dial opens a session to the BMC of the endpoint. It is a power.Dialer.
//
// It returns when the session is open, when the BMC has refused it, when ctx ends
// (KindCanceled) or when Config.Timeout is over (KindUnreachable). Password and
// user are tried once: a wrong one is KindAuth at once. KindBusy means that the
// BMC is there and opens no session, KindUnsupported that no cipher suite is common.
func (d *Dialer) Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	if err := checkEndpoint(ep); err != nil {
		return nil, err
	}
	if ended(ctx) != nil {
		return nil, failed(ctx, opOpen, false, nil)
	}
	deadline := time.Now().Add(d.cfg.Timeout)
	resolve, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	l, err := d.open(resolve, ep)
	if err != nil {
		return nil, failed(ctx, opOpen, false, err)
	}
	defer l.watch(ctx)()
	s, bad := d.handshake(ctx, l, ep, deadline)
	if bad != nil {
		l.close()
		return nil, bad
	}
	return s, nil
}

// open looks the endpoint's host up and connects a socket to it.
func (d *Dialer) open(ctx context.Context, ep power.Endpoint) (*link, error) {
	addrs, err := d.cfg.addresses(ctx, ep.Host)
	if err != nil {
		return nil, err
	}
	return openLink(ep.Port, addrs)
}

// handshake opens a session over the link, beginning with what is known of the BMC,
// and notes what it finds out. A BMC that was silent is asked again next time.
func (d *Dialer) handshake(ctx context.Context, l *link, ep power.Endpoint, deadline time.Time) (*session, *power.Error) {
	h := &handshake{link: l, cfg: d.cfg, ep: ep, deadline: deadline, known: d.recall(ep)}
	s, bad := h.run(ctx)
	switch {
	case bad == nil:
		s.dialer, s.opened, s.guessed = d, time.Now(), h.guessed
		d.remember(h, true)
		return s, nil
	case bad.Kind == power.KindUnreachable:
		d.Forget(ep)
		return nil, h.unserved(bad)
	}
	d.remember(h, false)
	return nil, bad
}

// opOpen names the opening of a session in errors.
const opOpen = "open session"

// checkEndpoint refuses what cannot work, before anything is sent.
func checkEndpoint(ep power.Endpoint) error {
	bad := func(kind power.ErrorKind, format string, args ...any) error {
		return &power.Error{Kind: kind, Op: opOpen, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case ep.Scheme != "" && ep.Scheme != power.SchemeIPMI:
		return bad(power.KindUnsupported, "scheme %q is not IPMI", ep.Scheme)
	case ep.Host == "":
		return bad(power.KindUnsupported, "the endpoint has no host")
	case ep.Suite != 0 && ep.Suite != 3 && ep.Suite != 17:
		return bad(power.KindUnsupported, "cipher suite %d is not one of 3, 17", ep.Suite)
	case len(ep.User) > power.MaxUser:
		return bad(power.KindAuth, "the user name is longer than the 16 bytes of IPMI")
	}
	if err := power.CheckPassword(ep.Password, "ipmi:"); err != nil {
		return bad(power.KindAuth, "%w", err)
	}
	if _, err := power.ParseKG(ep.KG); err != nil {
		return bad(power.KindAuth, "%w", err)
	}
	return nil
}

// suites lists the cipher suites to offer, the likeliest first. sure means that
// the first is known to be served: silence then says nothing about it.
func suites(ep power.Endpoint, known agreement) (ids []types.CipherSuiteID, sure bool) {
	switch {
	case ep.Suite != 0:
		return []types.CipherSuiteID{types.CipherSuiteID(ep.Suite)}, true
	case known.suite == types.CipherSuiteID3:
		return []types.CipherSuiteID{types.CipherSuiteID3, types.CipherSuiteID17}, true
	}
	return []types.CipherSuiteID{types.CipherSuiteID17, types.CipherSuiteID3}, known.suite != 0
}

var errNoSuite = errors.New("the BMC serves none of the cipher suites offered")
