package bmcsim

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/clock"
	"github.com/bougou/go-ipmi/pkg/hal"

	"rackpower/power"
)

// BMC is one simulated BMC and the node it controls. All methods may be called
// from any goroutine.
type BMC struct {
	farm *Farm
	name string
	addr netip.AddrPort
	conn *net.UDPConn
	lib  *bmc.BMC
	// redfish is nil without.
	redfish *redfish

	mu       sync.Mutex // guards what follows
	closed   bool
	behind   map[uint8]*BMC // by IPMB address: other BMCs that commands are passed on to
	embeds   bool           // their answers come within that to Send Message
	agenda   agenda
	node     node
	faults   faults
	rng      *rand.Rand
	user     string
	kg       power.Secret
	password power.Secret
	level    int // the highest privilege of the account
	sessions map[uint32]*session
	silent   time.Time // no datagram comes in or goes out before
	pending  map[string]*exchange
	overlaps []Overlap // the newest maxOverlaps
	entries  []Entry
	counts   counts
}

// counts are what a BMC has seen since the farm started.
type counts struct {
	Datagrams    int `json:"datagrams"`     // that arrived, before any loss
	Requests     int `json:"requests"`      // of HTTP that arrived
	Reads        int `json:"reads"`         // Get Chassis Status and System answered
	Opened       int `json:"opened"`        // sessions that were activated, of either protocol
	Closed       int `json:"closed"`        // sessions that the other side closed
	AuthFailures int `json:"auth_failures"` // wrong user, wrong password, or a RAKP message refused by the other side
	Repeats      int `json:"repeats"`       // datagrams not executed because their sequence number was seen before
	MaxInFlight  int `json:"max_in_flight"`
	Panics       int `json:"panics"`
}

func newBMC(f *Farm, i int, conn *net.UDPConn, initial power.State) *BMC {
	b := &BMC{
		farm: f, name: f.cfg.Names(i), conn: conn,
		addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(),
		rng:  rand.New(rand.NewPCG(uint64(f.cfg.Seed), uint64(i))),
		user: f.cfg.User, password: f.cfg.Password, kg: f.cfg.KG,
		level: levelAdministrator,
	}
	b.faults.limit = DefaultSessions
	b.faults.idle = DefaultIdle
	b.faults.bootTime = f.cfg.BootTime
	b.faults.failCode = codeBusy
	b.node.onAfter, b.node.offAfter = f.cfg.OnAfter, f.cfg.OffAfter
	b.node.on = initial == power.On
	b.node.target, b.node.shown = b.node.on, b.node.on
	b.agenda.wake = b.wake

	b.lib = bmc.New(bmc.DeviceInfo{
		DeviceID: 0x20, DeviceRevision: 1, FirmwareMajor: 1, IPMIVersion: 0x02,
		ManufacturerID: 0xfffffe, ProductID: 1, AdditionalDeviceSupport: 0x80, // chassis device
	}, guid(f.cfg.Seed, b.name), machine{b: b}, bmc.WithV15Disabled(), bmc.WithKG(padded(f.cfg.KG)))
	// The session table proper is b.sessions; the library's only has to be no smaller.
	b.lib.Sessions = bmc.NewSessionStoreWithOptions(clock.Real,
		bmc.WithMaxSessions(maxSessions+1), bmc.WithInactivityTimeout(24*time.Hour))
	_ = b.lib.Users.Update(1, func(u *bmc.User) error { u.Enabled = false; return nil }) // nobody logs in without a name
	if u, err := b.lib.Users.Add(2, b.user); err == nil {
		u.Enabled = true
		u.SetPassword([]byte(string(b.password)))
		u.ChannelAccess[lanChannel] = bmc.UserChannelAccess{MaxPrivilege: bmc.PrivilegeLevelAdministrator, Enabled: true}
	}
	return b
}

// padded is K_g as the BMC counts with it (section 13.31): with zeros behind it.
func padded(kg power.Secret) []byte {
	key, err := power.ParseKG(kg)
	if err != nil || len(key) == 0 {
		return nil // Validate has refused it
	}
	return append(key, make([]byte, power.MaxPassword-len(key))...)
}

func guid(seed int64, name string) (g [16]byte) {
	h := fnv.New128a()
	_, _ = fmt.Fprintf(h, "%d/%s", seed, name)
	h.Sum(g[:0])
	return g
}

// machine is what go-ipmi's handlers see of the node; this package's own
// handlers do without it.
type machine struct {
	hal.HAL // nil
	b       *BMC
}

func (machine) Chassis() hal.ChassisHAL { return nil }
func (machine) Storage() hal.StorageHAL { return nil }
func (machine) Network() hal.NetworkHAL { return nil }
func (machine) Console() hal.ConsoleHAL { return nil }

// Name returns the BMC's name.
func (b *BMC) Name() string { return b.name }

// Addr returns the address and port the BMC listens on.
func (b *BMC) Addr() netip.AddrPort { return b.addr }

// Endpoint returns how to reach the BMC, credentials included.
func (b *BMC) Endpoint() power.Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	return power.Endpoint{
		Scheme: "ipmi", Host: b.addr.Addr().String(), Port: int(b.addr.Port()),
		User: b.user, Password: b.password, KG: b.kg,
	}
}

// look takes the lock with everything done that was due by now.
func (b *BMC) look() (now time.Time, unlock func()) {
	b.mu.Lock()
	now = time.Now()
	b.agenda.run(now)
	return now, b.mu.Unlock
}

// wake is the agenda's timer.
func (b *BMC) wake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.agenda.run(time.Now())
	}
}

// Power returns the true power of the node.
func (b *BMC) Power() power.State {
	_, unlock := b.look()
	defer unlock()
	return stateOf(b.node.on)
}

// Boot returns the boot device that is set for the next boot.
func (b *BMC) Boot() power.BootDevice {
	_, unlock := b.look()
	defer unlock()
	return b.node.bootDevice()
}

// LastBoot returns the boot device that the node's last boot found set.
func (b *BMC) LastBoot() power.BootDevice {
	_, unlock := b.look()
	defer unlock()
	return b.node.lastBoot
}

// Log returns all entries so far, oldest first.
func (b *BMC) Log() []Entry {
	_, unlock := b.look()
	defer unlock()
	return append([]Entry(nil), b.entries...)
}

// Commands returns the entries that are commands, oldest first.
func (b *BMC) Commands() []Entry {
	_, unlock := b.look()
	defer unlock()
	var out []Entry
	for _, e := range b.entries {
		if !e.Event {
			out = append(out, e)
		}
	}
	return out
}

// Cuts returns how often a command, cycle included, took a running node's power
// away.
func (b *BMC) Cuts() int { return b.number(func() int { return b.node.cuts }) }

// PowerOns returns how often a command turned on a node that was off.
func (b *BMC) PowerOns() int { return b.number(func() int { return b.node.powerOns }) }

// Resets returns how often a running node was hard-reset.
func (b *BMC) Resets() int { return b.number(func() int { return b.node.resets }) }

// Diags returns how many diagnostic interrupts a running node got.
func (b *BMC) Diags() int { return b.number(func() int { return b.node.diags }) }

// Limit returns the limit that holds on what the node takes, in watts; 0: none.
func (b *BMC) Limit() int { return b.number(func() int { return b.node.limit }) }

// Watts returns what the node takes.
func (b *BMC) Watts() int { return b.number(b.watts) }

// Reads returns how many times the power was read over the network.
func (b *BMC) Reads() int { return b.number(func() int { return b.counts.Reads }) }

// AuthFailures returns how many logins failed.
func (b *BMC) AuthFailures() int { return b.number(func() int { return b.counts.AuthFailures }) }

// Repeats returns how many datagrams were not executed because their sequence
// number had been seen before.
func (b *BMC) Repeats() int { return b.number(func() int { return b.counts.Repeats }) }

// Datagrams returns how many datagrams arrived, lost and muted ones included.
func (b *BMC) Datagrams() int { return b.number(func() int { return b.counts.Datagrams }) }

// Logins returns how many sessions were activated.
func (b *BMC) Logins() int { return b.number(func() int { return b.counts.Opened }) }

// Panics returns how many datagrams led to a bug in the simulator.
func (b *BMC) Panics() int { return b.number(func() int { return b.counts.Panics }) }

// Sessions returns how many sessions are open now, half-open ones included.
func (b *BMC) Sessions() int {
	return b.number(func() int { b.evict(time.Now()); return len(b.sessions) })
}

// MaxInFlight returns the highest number of chassis requests (status, control,
// boot options) and resets of the BMC that were in hand at the same time, from
// their arrival to their answer. A request repeated in its session while the
// first is unanswered is one. As a BMC works through datagrams one by one,
// requests overlap only when answers take time: set Delay.
func (b *BMC) MaxInFlight() int { return b.number(func() int { return b.counts.MaxInFlight }) }

// Overlap is a request that came while others were in hand.
type Overlap struct {
	At     time.Time
	Came   string   // the request: session, network function, command and data, in hexadecimal
	InHand []string // the others alike, with their times since they came first and last
}

// String is for a log.
func (o Overlap) String() string {
	return fmt.Sprintf("%s: %s came beside %s", o.At.Format("15:04:05.000000"), o.Came, strings.Join(o.InHand, " and "))
}

// exchange is a request in hand, and its repeats.
type exchange struct {
	first, last time.Time // when it came
	unanswered  int       // of it and its repeats
	repeats     int
}

// Overlaps returns the requests that came while another one was in hand, as MaxInFlight
// counts them; of many the newest 256.
func (b *BMC) Overlaps() []Overlap {
	_, unlock := b.look()
	defer unlock()
	return slices.Clone(b.overlaps)
}

// maxOverlaps bounds what Overlaps returns.
const maxOverlaps = 256

func (b *BMC) number(get func() int) int {
	_, unlock := b.look()
	defer unlock()
	return get()
}

// SetPower is someone at the machine: its power is s from now on, whatever was
// planned. States other than on and off are ignored.
func (b *BMC) SetPower(s power.State) {
	if s != power.On && s != power.Off {
		return
	}
	now, unlock := b.look()
	defer unlock()
	b.agenda.drop(kindPower)
	b.agenda.drop(kindBack)
	b.killSystem()
	b.node.target = s == power.On
	b.event(now, EventButton, "button")
	b.switched(now, b.node.target, false)
	b.agenda.run(now)
	b.keepState()
}

// record adds an entry to the log. The caller holds the lock.
func (b *BMC) record(e Entry) {
	e.BMC, e.Addr = b.name, b.addr.String()
	e.Time = e.Time.Round(0)
	b.entries = append(b.entries, e)
	if err := b.farm.log.append(e); err != nil {
		b.farm.cfg.Logger.Error("cannot write the log of commands", slog.String("bmc", b.name), slog.Any("err", err))
	}
}

func (b *BMC) event(at time.Time, word, source string) {
	before := b.node.on
	if word == EventOn || word == EventOff {
		before = !before
	}
	b.record(Entry{Time: at, Command: word, Event: true, Before: stateOf(before), After: stateOf(b.node.target), Source: source})
}

// keepState puts the power the node is going to have into the state file.
func (b *BMC) keepState() {
	if err := b.farm.states.append(stateRecord{BMC: b.name, State: stateOf(b.node.target)}); err != nil {
		b.farm.cfg.Logger.Error("cannot write the power states", slog.String("bmc", b.name), slog.Any("err", err))
	}
}
