package ipmi

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/powertest"
)

// impatient keeps the tests short; the defaults have tests of their own.
var impatient = Config{
	Timeout:      3 * time.Second,
	ReadTimeout:  1500 * time.Millisecond,
	FirstAnswer:  400 * time.Millisecond,
	RAKPAnswer:   600 * time.Millisecond,
	CloseTimeout: 300 * time.Millisecond,
	ProbeTimeout: 800 * time.Millisecond,
}

// realTarget is a process of ipmi_sim behind a proxy, which stands for the network.
type realTarget struct {
	*powertest.IPMISim
	*Dialer
	proxy *powertest.Proxy
}

func (r realTarget) Patience() time.Duration  { return impatient.Timeout }
func (r realTarget) Endpoint() power.Endpoint { return r.proxy.Endpoint() }

// Lacks: ipmi_sim has neither a diagnostic interrupt nor a cold reset.
func (r realTarget) Lacks() []power.Command {
	return []power.Command{power.PulseDiag, power.ResetBMC}
}

func (r realTarget) Kill() {
	r.IPMISim.Kill()
	r.proxy.Close()
}

func (r realTarget) Lose(p float64) {
	rng := rand.New(rand.NewPCG(1, 2)) // used under the proxy's lock
	lossy := func(d []byte) [][]byte {
		if rng.Float64() < p {
			return nil
		}
		return [][]byte{d}
	}
	r.proxy.ToBMC(lossy)
	r.proxy.FromBMC(lossy)
}

func (r realTarget) Duplicate(on bool) {
	r.proxy.FromBMC(func(d []byte) [][]byte { return [][]byte{d, slices.Clone(d)} })
}

// LoseNextAnswers: the chassis logs a command before it is answered.
func (r realTarget) LoseNextAnswers(n int) {
	before := len(r.Log())
	r.proxy.FromBMC(func(d []byte) [][]byte {
		if len(r.Log()) > before && n > 0 {
			n--
			return nil
		}
		return [][]byte{d}
	})
}

func TestSuiteOnIPMISim(t *testing.T) {
	t.Parallel()
	powertest.Suite(t, func(t *testing.T) powertest.Target {
		sim := powertest.StartIPMISim(t, 1)[0]
		return realTarget{sim, NewDialer(impatient), powertest.StartProxy(t, sim.Endpoint())}
	})
}

// simTarget is a BMC of bmcsim.
type simTarget struct {
	*bmcsim.BMC
	*Dialer
	farm *bmcsim.Farm
}

// startSim starts one simulated BMC in this process.
func startSim(t testing.TB, cfg Config) simTarget {
	t.Helper()
	farm, err := bmcsim.Start(context.Background(), bmcsim.Config{
		Count: 1, Listen: netip.MustParseAddr("127.0.0.1"), BootTime: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		farm.Close()
		if n := farm.BMC(0).Panics(); n != 0 {
			t.Errorf("%d datagrams led to a bug in the simulator", n)
		}
	})
	return simTarget{farm.BMC(0), NewDialer(cfg), farm}
}

func (simTarget) Patience() time.Duration { return impatient.Timeout }

func (s simTarget) SetPower(p power.State) error { s.BMC.SetPower(p); return nil }
func (s simTarget) Hang()                        { s.Mute(true) }
func (s simTarget) Wake()                        { s.Mute(false) }
func (s simTarget) Kill()                        { s.farm.Close() }
func (s simTarget) Restart() error               { s.BMC.Restart(0); return nil }
func (s simTarget) LoseNextAnswers(n int)        { s.LoseAnswers(n) }
func (s simTarget) Lose(p float64)               { s.Loss(p, p) }
func (s simTarget) Duplicate(on bool)            { s.BMC.Duplicate(on) }

func (s simTarget) SetNoSession(full bool) {
	if full {
		s.SessionLimit(0)
	} else {
		s.SessionLimit(bmcsim.DefaultSessions)
	}
}

func (s simTarget) FailNext(n int, kind power.ErrorKind) {
	s.FailCode(map[power.ErrorKind]byte{
		power.KindBusy: 0xC0, power.KindUnsupported: 0xC1, power.KindPrivilege: 0xD4, power.KindRefused: 0xD5,
	}[kind], n)
}

func (s simTarget) Operator() power.Endpoint { s.Privilege(3); return s.Endpoint() }
func (s simTarget) Reader() power.Endpoint   { s.Privilege(2); return s.Endpoint() }

// Log translates what reached the BMC and was executed.
func (s simTarget) Log() []powertest.Entry {
	var log []powertest.Entry
	for _, e := range s.Commands() {
		if e.Code != 0 {
			continue
		}
		entry := powertest.Entry{BMC: e.BMC, At: e.Time, Command: power.Command(e.Command)}
		if dev, is := cutBoot(e.Command); is {
			entry.Command, entry.Boot = "", dev
		}
		log = append(log, entry)
	}
	return log
}

func cutBoot(command string) (power.BootDevice, bool) {
	const word = "set-boot"
	if len(command) < len(word) || command[:len(word)] != word {
		return "", false
	}
	dev := power.BootDevice(command[len(word):])
	if len(dev) > 0 {
		dev = dev[1:]
	}
	if dev == "none" {
		dev = power.BootNone
	}
	return dev, true
}

func TestSuiteOnBMCSim(t *testing.T) {
	t.Parallel()
	powertest.Suite(t, func(t *testing.T) powertest.Target { return startSim(t, impatient) })
}
