package powertest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"rackpower/power"
)

// DefaultTimeout is how long a fake driver waits for an answer that does not come.
const DefaultTimeout = 10 * time.Second

// Entry is one command that reached a BMC.
type Entry struct {
	BMC      string           // name of the BMC, see Fake.BMC
	Command  power.Command    // empty for a boot device
	Boot     power.BootDevice // of a SetBoot
	Limit    int              // of a SetLimit
	At       time.Time        // when it reached the BMC
	Executed bool             // false: refused, stuck or deaf
}

// Phase says where in an exchange a hook is called.
type Phase string

// The phases.
const (
	Before Phase = "before" // nothing has reached the BMC yet
	After  Phase = "after"  // the driver is about to return
)

// Event is what a hook is told. Op is "dial", "probe", "state", "consumption", "boot",
// "close" or the command's name. Err is what the driver will return (After only).
type Event struct {
	Phase Phase
	BMC   *BMC
	Op    string
	Err   error
}

// Fake is any number of BMCs in memory, made when they are first dialled or
// asked for. All methods may be called concurrently.
type Fake struct {
	mu      sync.Mutex
	bmcs    map[string]*BMC
	log     []Entry
	hook    func(Event)
	preset  func(*BMC)
	flying  int
	highest int
}

// NewFake returns a Fake without BMCs. A BMC that is dialled comes to be with
// its power off, answering at once and taking any password.
func NewFake() *Fake { return &Fake{bmcs: map[string]*BMC{}} }

// Preset has f called on each BMC that comes to be from now on, before its use.
func (f *Fake) Preset(fn func(*BMC)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.preset = fn
}

// Hook has fn called before and after each exchange, outside all locks and in
// the goroutine of the driver: it may change settings, block, cancel or panic. An fn
// of nil ends that. It stands for the whole fake; look at Event.BMC.
func (f *Fake) Hook(fn func(Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = fn
}

// BMC returns the BMC of that name: the endpoint's host, with ":port" behind it
// when the port is neither 0 nor 623.
func (f *Fake) BMC(name string) *BMC {
	f.mu.Lock()
	b := f.bmcs[name]
	preset := f.preset
	if b == nil {
		b = &BMC{fake: f, name: name, timeout: DefaultTimeout, real: power.Off, shown: power.Off, exception: power.LimitNoAction}
		f.bmcs[name] = b
	} else {
		preset = nil
	}
	f.mu.Unlock()
	if preset != nil {
		preset(b)
	}
	return b
}

// NameOf returns the name under which BMC finds the endpoint.
func NameOf(ep power.Endpoint) string {
	if ep.Port == 0 || ep.Port == power.DefaultIPMIPort {
		return ep.Host
	}
	return ep.Host + ":" + strconv.Itoa(ep.Port)
}

// Log returns every command that reached any BMC, in order.
func (f *Fake) Log() []Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// MaxInFlight returns the most exchanges that were ever in flight at once on all
// BMCs together.
func (f *Fake) MaxInFlight() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.highest
}

// Dial opens a session to the endpoint's BMC. It is a power.Dialer.
func (f *Fake) Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	b := f.BMC(NameOf(ep))
	d := &fakeDriver{bmc: b}
	opened := false
	err := b.exchange(ctx, "dial", func() *power.Error {
		b.counts.Dials++
		if kind, failed := b.failDials.take(); failed {
			return &power.Error{Kind: kind, Lost: kind == power.KindBusy, Refused: kind == power.KindAuth || kind == power.KindPrivilege}
		}
		switch {
		case b.deadLocked():
			return silent(false)
		case b.wrongPassword, b.password != "" && ep.Password != b.password, b.user != "" && ep.User != b.user:
			b.counts.AuthFailures++
			return &power.Error{Kind: power.KindAuth, Err: errors.New("wrong user or password")}
		case b.refuse != "":
			b.counts.AuthFailures++
			return &power.Error{Kind: b.refuse, Refused: true, Err: errors.New("the user is refused")}
		case b.noSession, b.maxSessions > 0 && b.sessions >= b.maxSessions:
			return &power.Error{Kind: power.KindBusy, Lost: true, Err: errors.New("out of sessions")}
		}
		b.sessions++
		b.counts.MaxSessions = max(b.counts.MaxSessions, b.sessions)
		d.boot = b.boots
		opened = true
		return nil
	})
	if err != nil {
		if opened {
			b.set(func() { b.sessions = max(0, b.sessions-1) })
		}
		return nil, err
	}
	return d, nil
}

// Probe asks whether the endpoint's BMC is there; no session is opened and no
// account looked at.
func (f *Fake) Probe(ctx context.Context, ep power.Endpoint) error {
	b := f.BMC(NameOf(ep))
	return b.exchange(ctx, "probe", func() *power.Error {
		b.counts.Probes++
		if b.deadLocked() {
			return silent(false)
		}
		return nil
	})
}

// silent marks an exchange whose answer never comes.
func silent(sent bool) *power.Error {
	return &power.Error{Kind: power.KindUnreachable, Sent: sent, Lost: true, Err: errNoAnswer}
}

var errNoAnswer = errors.New("no answer")

// event calls the hook, if there is one.
func (f *Fake) event(e Event) {
	f.mu.Lock()
	fn := f.hook
	f.mu.Unlock()
	if fn != nil {
		fn(e)
	}
}
