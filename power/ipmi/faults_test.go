package ipmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
	"rackpower/power/powertest"
)

// behindProxy starts an ipmi_sim and a proxy to it, and returns an endpoint that
// insists on suite 3, the only one it serves.
func behindProxy(t *testing.T) (*powertest.IPMISim, *powertest.Proxy, power.Endpoint) {
	t.Helper()
	sim := powertest.StartIPMISim(t, 1)[0]
	proxy := powertest.StartProxy(t, sim.Endpoint())
	ep := proxy.Endpoint()
	ep.Suite = 3
	return sim, proxy, ep
}

func mustDial(t testing.TB, cfg Config, ep power.Endpoint) *session {
	t.Helper()
	d, err := NewDialer(cfg).Dial(context.Background(), ep)
	if err != nil {
		t.Fatalf("cannot dial: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*session)
}

func wantState(t *testing.T, d power.Driver, want power.State) {
	t.Helper()
	if got, err := d.State(t.Context()); err != nil || got != want {
		t.Errorf("State = %v, %v, want %v", got, err, want)
	}
}

func wantKind(t *testing.T, err error, kind power.ErrorKind, sent bool) {
	t.Helper()
	var e *power.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Sent != sent {
		t.Errorf("got %v (sent %v), want kind %s, sent %v", err, power.WasSent(err), kind, sent)
	}
}

func within(t *testing.T, start time.Time, bound time.Duration) {
	t.Helper()
	if took := time.Since(start); took > bound {
		t.Errorf("took %v, want at most %v", took, bound)
	}
}

// nth is a filter that treats the nth datagram, counted from 0, by f.
func nth(n int, f powertest.Filter) powertest.Filter {
	i := -1
	return func(p []byte) [][]byte {
		if i++; i == n {
			return f(p)
		}
		return powertest.Pass(p)
	}
}

// kind is a filter that treats packets of one payload type by f.
func kind(k types.PayloadType, f powertest.Filter) powertest.Filter {
	return func(p []byte) [][]byte {
		if len(p) > offPayType && p[offPayType] == byte(k) {
			return f(p)
		}
		return powertest.Pass(p)
	}
}

const sealed = types.PayloadType(flags) // payload type of packets in a session

func TestHandshakeSurvivesEachLostPacket(t *testing.T) {
	t.Parallel()
	targets := map[string]power.Endpoint{"ipmi_sim": powertest.StartIPMISim(t, 1)[0].Endpoint(), "bmcsim": startSim(t, impatient).Endpoint()}
	for name, ep := range targets {
		for i := range 3 {
			for _, way := range []string{"to", "from"} {
				t.Run(name+" "+way+" "+string(rune('1'+i)), func(t *testing.T) {
					t.Parallel()
					proxy := powertest.StartProxy(t, ep)
					ep := proxy.Endpoint()
					ep.Suite = 3
					if way == "to" {
						proxy.ToBMC(nth(i, powertest.Lose))
					} else {
						proxy.FromBMC(nth(i, powertest.Lose))
					}
					wantState(t, mustDial(t, impatient, ep), power.Off)
				})
			}
		}
	}
}

// forgeries makes packets that claim to be the answer p, saying that the power is
// on, without the keys to it.
func forgeries(p []byte) [][]byte {
	header := func(kind byte) []byte {
		f := slices.Clone(p[:offPayload])
		f[offPayType] = kind
		return f
	}
	status := []byte{addrConsole, 0x04, 0, addrBMC, 0, 0x01, 0, 0x21, 0x10, 0x40, 0}
	status[2] = checksum(status[:2])
	plain := make([][]byte, 0, 64)
	for tag := range byte(64) { // whatever tag is waited for
		status[4] = tag << 2
		status[10] = checksum(status[3:10])
		f := header(0)
		binary.LittleEndian.PutUint16(f[offLength:], uint16(len(status)))
		plain = append(plain, append(f, status...))
	}
	badMAC := slices.Clone(p)
	badMAC[len(badMAC)-1] ^= 1
	changed := slices.Clone(p)
	changed[offPayload+blockSize] ^= 1
	other := slices.Clone(p)
	other[offSession] ^= 1
	unsigned := append(header(types.PayloadFlagEncrypted), p[offPayload:len(p)-14]...)
	zeroMAC := append(slices.Clone(p[:len(p)-12]), make([]byte, 12)...)
	garbage := bytes.Repeat([]byte{0xFF}, 64)
	return append(plain, badMAC, changed, other, unsigned, zeroMAC, garbage,
		p[:len(p)-5], p[:offPayload], p[:3], append(header(byte(sealed)), garbage...), nil)
}

func TestForgedAnswersAreIgnored(t *testing.T) {
	t.Parallel()
	_, proxy, ep := behindProxy(t)
	d := mustDial(t, impatient, ep)
	proxy.FromBMC(func(p []byte) [][]byte { return append(forgeries(p), p) })
	for range 3 {
		wantState(t, d, power.Off)
	}
	proxy.FromBMC(forgeries) // and the true answer is lost
	start := time.Now()
	_, err := d.State(t.Context())
	wantKind(t, err, power.KindUnreachable, false)
	within(t, start, impatient.ReadTimeout+time.Second)
}

func TestForgedRefusalsAreIgnored(t *testing.T) {
	t.Parallel()
	_, proxy, ep := behindProxy(t)
	for name, tc := range map[string]struct {
		kind   types.PayloadType
		status types.RmcpStatusCode
	}{
		"no suite":    {types.PayloadTypeRmcpOpenSessionResponse, types.RmcpStatusCodeNoCipherSuiteMatch},
		"no session":  {types.PayloadTypeRmcpOpenSessionResponse, types.RmcpStatusCodeNoResToCreateSess},
		"wrong user":  {types.PayloadTypeRAKPMessage2, types.RmcpStatusCodeUnauthorizedName},
		"wrong role":  {types.PayloadTypeRAKPMessage2, types.RmcpStatusCodeInvalidRole},
		"wrong check": {types.PayloadTypeRAKPMessage4, types.RmcpStatusCodeInvalidIntegrityCheckValue},
	} {
		proxy.FromBMC(kind(tc.kind, func(p []byte) [][]byte {
			refusal := slices.Clone(p[:offPayload+8])
			binary.LittleEndian.PutUint16(refusal[offLength:], 8)
			refusal[offPayload+1] = byte(tc.status)
			broken := slices.Clone(p)
			broken[len(broken)-1] ^= 1 // the RAKP code
			return [][]byte{refusal, p[:offPayload+5], broken, p}
		}))
		d, err := NewDialer(impatient).Dial(t.Context(), ep)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantState(t, d, power.Off)
		d.Close()
	}
}

// A packet recorded from the BMC is no answer later, not even when the 6-bit tag
// of the messages has come round to it.
func TestReplayedAnswersAreIgnored(t *testing.T) {
	t.Parallel()
	sim, proxy, ep := behindProxy(t)
	d := mustDial(t, impatient, ep)
	var recorded []byte
	proxy.FromBMC(func(p []byte) [][]byte {
		if recorded == nil {
			recorded = slices.Clone(p)
		}
		return [][]byte{p}
	})
	wantState(t, d, power.Off)
	for range 63 {
		wantState(t, d, power.Off)
	}
	sim.SetPower(power.On)
	proxy.FromBMC(func(p []byte) [][]byte { return [][]byte{slices.Clone(recorded), p} })
	wantState(t, d, power.On)
}

// An answer that comes late belongs to its own request.
func TestLateAnswers(t *testing.T) {
	t.Parallel()
	sim, proxy, ep := behindProxy(t)
	d := mustDial(t, impatient, ep)
	var held []byte
	proxy.FromBMC(func(p []byte) [][]byte { // the first answer comes behind the second
		if held == nil {
			held = slices.Clone(p)
			return nil
		}
		return [][]byte{p, held}
	})
	wantState(t, d, power.Off)
	sim.SetPower(power.On)
	wantState(t, d, power.On)

	proxy.FromBMC(nth(0, powertest.Lose))
	start := time.Now()
	wantState(t, d, power.On) // by the repetition
	if took := time.Since(start); took < leastAnswer {
		t.Errorf("a read whose answer was lost took %v, less than the least wait before its repetition", took)
	}
}

// Each datagram has its own session sequence number, repetitions too.
func TestSequenceNumbersAreFresh(t *testing.T) {
	t.Parallel()
	_, proxy, ep := behindProxy(t)
	d := mustDial(t, impatient, ep)
	var last uint32
	proxy.ToBMC(func(p []byte) [][]byte {
		n := binary.LittleEndian.Uint32(p[offSequence:])
		if n <= last {
			t.Errorf("sequence number %d after %d", n, last)
		}
		last = n
		return [][]byte{p}
	})
	wantState(t, d, power.Off)
	proxy.FromBMC(powertest.Lose)
	before := proxy.Requests()
	_, err := d.State(t.Context())
	wantKind(t, err, power.KindUnreachable, false)
	if repeated := proxy.Requests() - before; repeated < 2 {
		t.Errorf("an unanswered read was sent %d times, want more than once", repeated)
	}
}

// Whatever becomes of its answer, a command is one datagram.
func TestNoCommandLeavesTwice(t *testing.T) {
	t.Parallel()
	for _, cmd := range []power.Command{power.HardReset, power.PulseDiag, power.ResetBMC, power.PowerOn, power.PowerOff, power.PressSoftOff} {
		t.Run(string(cmd), func(t *testing.T) {
			t.Parallel()
			sim := startSim(t, impatient)
			sim.BMC.SetPower(power.On)
			proxy := powertest.StartProxy(t, sim.Endpoint())
			d := mustDial(t, impatient, proxy.Endpoint())
			if err := d.raise(t.Context(), "test", types.PrivilegeLevelAdministrator); err != nil {
				t.Fatal(err)
			}
			before := proxy.Requests()
			proxy.FromBMC(powertest.Lose)
			wantKind(t, d.Do(t.Context(), cmd), power.KindUnreachable, true)
			if left := proxy.Requests() - before; left != 1 {
				t.Errorf("%d datagrams left, want 1", left)
			}
			if log := sim.Log(); len(log) != 1 || log[0].Command != cmd {
				t.Errorf("the BMC got %+v, want one %s", log, cmd)
			}
		})
	}
}

// What prepares a command may be lost without a doubt about the command.
func TestLostPreparationIsNotSent(t *testing.T) {
	t.Parallel()
	sim, proxy, ep := behindProxy(t)
	d := mustDial(t, impatient, ep)
	proxy.FromBMC(powertest.Lose)
	wantKind(t, d.Do(t.Context(), power.PowerOn), power.KindUnreachable, false)
	wantKind(t, d.Do(t.Context(), power.PowerOn), power.KindUnreachable, false)
	if log := sim.Log(); len(log) != 0 {
		t.Errorf("the BMC got %+v", log)
	}
}

// The password is tried once, and the BMC is told that nothing follows.
func TestWrongPasswordIsTriedOnce(t *testing.T) {
	t.Parallel()
	_, proxy, ep := behindProxy(t)
	ep.Password = "wrong"
	ep.Suite = 0
	var rakp1, rakp3 atomic.Int32
	proxy.ToBMC(func(p []byte) [][]byte {
		switch types.PayloadType(p[offPayType]) {
		case types.PayloadTypeRAKPMessage1:
			rakp1.Add(1)
		case types.PayloadTypeRAKPMessage3:
			rakp3.Add(1)
			if p[offPayload+1] == 0 || len(p) != offPayload+8 {
				t.Errorf("RAKP message 3 is % x, want a refusal", p[offPayload:])
			}
		}
		return [][]byte{p}
	})
	_, err := NewDialer(Config{}).Dial(t.Context(), ep)
	wantKind(t, err, power.KindAuth, false)
	time.Sleep(10 * time.Millisecond) // the refusal is on its way
	if rakp1.Load() != 1 || rakp3.Load() != 1 {
		t.Errorf("%d RAKP messages 1 and %d RAKP messages 3, want 1 and 1", rakp1.Load(), rakp3.Load())
	}
}

// A user whom the BMC does not know is named twice, as administrator and as operator:
// some BMCs call those unknown who are not the former. A user whom the BMC has refused
// is not refused to it once more: it might count another failed login.
func TestWrongUserIsNamedTwice(t *testing.T) {
	t.Parallel()
	_, proxy, ep := behindProxy(t)
	ep.User = "nobody"
	var rakp1, rakp3 atomic.Int32
	proxy.ToBMC(func(p []byte) [][]byte {
		switch types.PayloadType(p[offPayType]) {
		case types.PayloadTypeRAKPMessage1:
			rakp1.Add(1)
		case types.PayloadTypeRAKPMessage3:
			rakp3.Add(1)
		}
		return [][]byte{p}
	})
	_, err := NewDialer(Config{}).Dial(t.Context(), ep)
	wantKind(t, err, power.KindAuth, false)
	time.Sleep(10 * time.Millisecond) // what else is on its way
	if rakp1.Load() != 2 || rakp3.Load() != 0 {
		t.Errorf("%d RAKP messages 1 and %d RAKP messages 3, want 2 and 0", rakp1.Load(), rakp3.Load())
	}
}

// Wrong users and passwords, in whatever number, leave the BMC's session slots free.
func TestWrongLoginsDoNotLockOut(t *testing.T) {
	t.Parallel()
	ep := powertest.StartIPMISim(t, 1)[0].Endpoint()
	ep.Suite = 3
	password, user := ep, ep
	password.Password = "wrong"
	user.User = "nobody"
	dialer := NewDialer(Config{})
	for range 8 {
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				_, err := dialer.Dial(t.Context(), []power.Endpoint{password, user}[i%2])
				wantKind(t, err, power.KindAuth, false)
			})
		}
		wg.Wait()
	}
	wantState(t, mustDial(t, impatient, ep), power.Off)
}

// A Dial that is given up midway takes its half session back.
func TestCancelledDialFreesTheSession(t *testing.T) {
	t.Parallel()
	for _, lost := range []types.PayloadType{types.PayloadTypeRAKPMessage2, types.PayloadTypeRAKPMessage4} {
		sim := startSim(t, Config{})
		proxy := powertest.StartProxy(t, sim.Endpoint())
		ctx, cancel := context.WithCancel(t.Context())
		proxy.FromBMC(kind(lost, func([]byte) [][]byte {
			cancel()
			return nil
		}))
		_, err := sim.Dial(ctx, proxy.Endpoint())
		cancel()
		wantKind(t, err, power.KindCanceled, false)
		for end := time.Now().Add(5 * time.Second); sim.Sessions() != 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if n := sim.Sessions(); n != 0 {
			t.Errorf("%d sessions left after %v was lost", n, lost)
		}
	}
}

// An offer that was repeated because its answer was late has begun two sessions.
// The one too many is given back.
func TestSecondSessionIsGivenBack(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	proxy := powertest.StartProxy(t, sim.Endpoint())
	var late []byte
	proxy.FromBMC(func(p []byte) [][]byte {
		switch {
		case late == nil:
			late = slices.Clone(p)
			return nil
		case p[offPayType] == byte(types.PayloadTypeRmcpOpenSessionResponse):
			return [][]byte{late, p} // the late answer, and that to the repetition
		}
		return [][]byte{p}
	})
	wantState(t, mustDial(t, impatient, proxy.Endpoint()), power.Off)
	for end := time.Now().Add(5 * time.Second); sim.Sessions() != 1 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := sim.Sessions(); n != 1 {
		t.Errorf("%d sessions on the BMC, want 1", n)
	}
}

// A session that is lost is closed without waiting, and the BMC is told: it may
// have been its answers alone that were lost.
func TestCloseOfALostSession(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	proxy := powertest.StartProxy(t, sim.Endpoint())
	cfg := impatient
	cfg.CloseTimeout = 5 * time.Second
	d := mustDial(t, cfg, proxy.Endpoint())
	proxy.FromBMC(powertest.Lose)
	_, err := d.State(t.Context())
	wantKind(t, err, power.KindUnreachable, false)
	start := time.Now()
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	within(t, start, 2*time.Second)
	for end := time.Now().Add(5 * time.Second); sim.Sessions() != 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := sim.Sessions(); n != 0 {
		t.Errorf("%d sessions left on the BMC", n)
	}
}

// A BMC whose process is gone is found out by the network at once.
func TestKilledInMidSession(t *testing.T) {
	t.Parallel()
	sim := powertest.StartIPMISim(t, 1)[0]
	ep := sim.Endpoint()
	ep.Suite = 3
	d := mustDial(t, Config{}, ep)
	wantState(t, d, power.Off)
	sim.Kill()
	start := time.Now()
	_, err := d.State(t.Context())
	wantKind(t, err, power.KindUnreachable, false)
	wantKind(t, d.Do(t.Context(), power.HardReset), power.KindUnreachable, false)
	within(t, start, time.Second)
	if err := sim.Revive(); err != nil {
		t.Fatal(err)
	}
	wantState(t, mustDial(t, Config{}, ep), power.Off)
}

// The bounds that README.md promises, with the default settings.
func TestDefaultBounds(t *testing.T) {
	t.Parallel()
	type bound struct {
		name string
		kind power.ErrorKind
		most time.Duration
		try  func(t *testing.T, sim *powertest.IPMISim, ep power.Endpoint) error
	}
	dial := func(t *testing.T, ep power.Endpoint) error {
		_, err := NewDialer(Config{}).Dial(t.Context(), ep)
		return err
	}
	for _, b := range []bound{
		{"wrong password", power.KindAuth, 4500 * time.Millisecond, func(t *testing.T, _ *powertest.IPMISim, ep power.Endpoint) error {
			ep.Password = "wrong"
			return dial(t, ep)
		}},
		{"wrong user", power.KindAuth, 4500 * time.Millisecond, func(t *testing.T, _ *powertest.IPMISim, ep power.Endpoint) error {
			ep.User = "nobody"
			return dial(t, ep)
		}},
		{"closed port", power.KindUnreachable, time.Second, func(t *testing.T, sim *powertest.IPMISim, ep power.Endpoint) error {
			sim.Kill()
			return dial(t, ep)
		}},
		{"mute BMC", power.KindUnreachable, 11 * time.Second, func(t *testing.T, sim *powertest.IPMISim, ep power.Endpoint) error {
			sim.Hang()
			return dial(t, ep)
		}},
		{"restarted BMC", power.KindUnreachable, 6 * time.Second, func(t *testing.T, sim *powertest.IPMISim, ep power.Endpoint) error {
			ep.Suite = 3
			d := mustDial(t, Config{}, ep)
			wantState(t, d, power.Off)
			if err := sim.Restart(); err != nil {
				t.Fatal(err)
			}
			_, err := d.State(t.Context())
			return err
		}},
		{"command to a mute BMC", power.KindUnreachable, 11 * time.Second, func(t *testing.T, sim *powertest.IPMISim, ep power.Endpoint) error {
			ep.Suite = 3
			d := mustDial(t, Config{}, ep)
			if err := d.Do(t.Context(), power.PowerOn); err != nil {
				t.Fatal(err)
			}
			sim.Hang()
			return d.Do(t.Context(), power.PowerOff)
		}},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			sim := powertest.StartIPMISim(t, 1)[0]
			start := time.Now()
			err := b.try(t, sim, sim.Endpoint())
			if power.KindOf(err) != b.kind {
				t.Errorf("got %v, want kind %s", err, b.kind)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%v shows a password", err)
			}
			within(t, start, b.most)
		})
	}
}
