package ipmi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
	"rackpower/power/powertest"
)

// older makes the session one that was not just opened.
func older(d power.Driver) power.Driver {
	d.(*session).opened = time.Now().Add(-time.Minute)
	return d
}

// TestRightsGivenLater: what the BMC said of a user before is not what it says for ever.
func TestRightsGivenLater(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	ep := sim.Endpoint()
	dial := func() power.Driver {
		t.Helper()
		d, err := sim.Dial(t.Context(), ep)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	do := func(d power.Driver, cmd power.Command, want power.ErrorKind) {
		t.Helper()
		if err := d.Do(t.Context(), cmd); power.KindOf(err) != want {
			t.Errorf("%s: %v, want %q", cmd, err, want)
		}
	}
	sim.Privilege(2)
	kept := dial()
	do(kept, power.PowerOn, power.KindPrivilege)
	sim.Privilege(3)
	do(kept, power.PowerOn, "") // it was refused before, and is asked for again
	sim.Privilege(2)
	sim.Forget(ep)
	kept = dial()
	do(kept, power.PowerOn, power.KindPrivilege)
	do(older(kept), power.PowerOn, power.KindPrivilege)
	next := dial() // it is known to be a user
	if sim.recall(ep).role != types.PrivilegeLevelUser {
		t.Errorf("remembered: %+v", sim.recall(ep))
	}
	sim.Privilege(3)
	do(older(kept), power.PowerOn, "")
	do(next, power.PowerOff, "")
	do(next, power.ResetBMC, power.KindPrivilege)
	sim.Privilege(4)
	do(older(next), power.ResetBMC, "")
	if n := sim.Sessions(); n > 2 {
		t.Errorf("%d sessions are open: the old ones were left behind", n)
	}
}

// TestRightsTakenAway: a role that was given before and is refused now is asked for
// from the top.
func TestRightsTakenAway(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	ep := sim.Endpoint()
	for _, level := range []int{4, 2, 3, 2, 4} {
		sim.Privilege(level)
		d := older(mustDialBy(t, sim.Dialer, ep))
		wantState(t, d, power.Off)
		err := d.Do(t.Context(), power.PowerOff)
		if want := map[bool]power.ErrorKind{true: "", false: power.KindPrivilege}[level >= 3]; power.KindOf(err) != want {
			t.Errorf("level %d: %v, want %q", level, err, want)
		}
		d.Close()
	}
}

func mustDialBy(t *testing.T, d *Dialer, ep power.Endpoint) power.Driver {
	t.Helper()
	s, err := d.Dial(t.Context(), ep)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWhatIsRememberedAges: after an hour, on other credentials and when told to forget,
// the BMC is asked from the top.
func TestWhatIsRememberedAges(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	sim.Privilege(3)
	ep := sim.Endpoint()
	learn := func() {
		mustDialBy(t, sim.Dialer, ep).Close()
		if got := sim.recall(ep); got.role != types.PrivilegeLevelOperator || got.suite != 17 {
			t.Fatalf("remembered: %+v", got)
		}
	}
	learn()
	other := ep
	other.Password = "another"
	if got := sim.recall(other); got.role != 0 {
		t.Errorf("for another password the role is %v", got.role)
	}
	sim.Forget(ep)
	if got := sim.recall(ep); got != (agreement{}) {
		t.Errorf("forgotten: %+v", got)
	}
	learn()
	b := sim.learnt[ep.Key()]
	b.suiteAt = b.suiteAt.Add(-rememberFor)
	r := b.roles[ep.User]
	r.at = r.at.Add(-rememberFor)
	b.roles[ep.User] = r
	if got := sim.recall(ep); got != (agreement{}) {
		t.Errorf("after an hour: %+v", got)
	}
	learn()
	sim.Mute(true)
	if _, err := sim.Dial(t.Context(), ep); power.KindOf(err) != power.KindUnreachable {
		t.Errorf("mute: %v", err)
	}
	if got := sim.recall(ep); got != (agreement{}) {
		t.Errorf("after it was away: %+v", got)
	}
	sim.Mute(false)
	kept := mustDialBy(t, sim.Dialer, ep)
	learn()
	sim.BMC.Restart(0)
	if _, err := kept.State(t.Context()); power.KindOf(err) != power.KindUnreachable {
		t.Errorf("restarted: %v", err)
	}
	if got := sim.recall(ep); got != (agreement{}) {
		t.Errorf("after a session was lost: %+v", got)
	}
}

// refusing has the answers of one kind replaced by a refusal.
func refusing(k types.PayloadType, status types.RmcpStatusCode) powertest.Filter {
	return kind(k, func(p []byte) [][]byte {
		refusal := slices.Clone(p[:offPayload+8])
		binary.LittleEndian.PutUint16(refusal[offLength:], 8)
		refusal[offPayload+1] = byte(status)
		return [][]byte{refusal}
	})
}

// TestEveryStatus is the table of README.md: what a status means in each of the three
// answers, whether it counts as a refused log-in, and how often the user is named.
func TestEveryStatus(t *testing.T) {
	t.Parallel()
	const busy, auth, privilege, unsupported, refused = power.KindBusy, power.KindAuth, power.KindPrivilege, power.KindUnsupported,
		power.KindRefused
	type row struct {
		open, rakp2, rakp4 power.ErrorKind
		named2, named4     int32 // RAKP messages 1, in all
	}
	for status, want := range map[types.RmcpStatusCode]row{
		0x01: {busy, busy, busy, 1, 1},
		0x02: {busy, busy, busy, 3, 3}, 0x08: {busy, busy, busy, 3, 3}, // the session is opened anew
		0x03: {unsupported, unsupported, unsupported, 1, 1}, 0x04: {unsupported, unsupported, unsupported, 1, 1},
		0x09: {privilege, privilege, privilege, 3, 3}, 0x0A: {privilege, privilege, privilege, 3, 3}, // each lower role is tried
		0x0B: {busy, busy, busy, 2, 2},
		0x0C: {auth, auth, privilege, 1, 2}, 0x0D: {auth, auth, privilege, 2, 2},
		0x0E: {auth, auth, privilege, 1, 2}, 0x0F: {auth, auth, privilege, 1, 2},
		0x11: {unsupported, unsupported, unsupported, 1, 1},
		0x12: {unsupported, refused, refused, 1, 1}, 0x77: {refused, refused, refused, 1, 1},
	} {
		t.Run(fmt.Sprintf("%02x", byte(status)), func(t *testing.T) {
			t.Parallel()
			sim := startSim(t, Config{})
			proxy := powertest.StartProxy(t, sim.Endpoint())
			var named atomic.Int32
			proxy.ToBMC(kind(types.PayloadTypeRAKPMessage1, func(p []byte) [][]byte { named.Add(1); return [][]byte{p} }))
			try := func(in types.PayloadType, want power.ErrorKind, times int32) {
				t.Helper()
				named.Store(0)
				proxy.FromBMC(refusing(in, status))
				_, err := NewDialer(impatient).Dial(t.Context(), proxy.Endpoint())
				var e *power.Error
				if !errors.As(err, &e) || e.Kind != want || e.Sent {
					t.Errorf("in %v: %v, want %s", in, err, want)
					return
				}
				if counts := times > 0 && want != busy; e.Refused != counts {
					t.Errorf("in %v: counts as a refused log-in = %v, want %v", in, e.Refused, counts)
				}
				if n := named.Load(); n != times {
					t.Errorf("in %v: the user was named %d times, want %d", in, n, times)
				}
				if in == types.PayloadTypeRAKPMessage4 && want == privilege && !strings.Contains(err.Error(), "the password is right") {
					t.Errorf("after the password was proved: %v", err)
				}
			}
			try(types.PayloadTypeRmcpOpenSessionResponse, want.open, 0)
			try(types.PayloadTypeRAKPMessage2, want.rakp2, want.named2)
			try(types.PayloadTypeRAKPMessage4, want.rakp4, want.named4)
		})
	}
}

// TestRoleRefusedAsWrongUser: some BMCs call a user unauthorized who may not be an
// administrator.
func TestRoleRefusedAsWrongUser(t *testing.T) {
	t.Parallel()
	for _, message := range []types.PayloadType{types.PayloadTypeRAKPMessage2, types.PayloadTypeRAKPMessage4} {
		sim := startSim(t, impatient)
		sim.BMC.SetPower(power.On)
		proxy := powertest.StartProxy(t, sim.Endpoint())
		admin := byte(0)
		proxy.ToBMC(kind(types.PayloadTypeRAKPMessage1, func(p []byte) [][]byte {
			admin = p[offPayload+24] & 0x0F
			return [][]byte{p}
		}))
		refuse := refusing(message, types.RmcpStatusCodeUnauthorizedName)
		proxy.FromBMC(func(p []byte) [][]byte {
			if admin == byte(types.PrivilegeLevelAdministrator) {
				return refuse(p)
			}
			return [][]byte{p}
		})
		d, err := sim.Dial(t.Context(), proxy.Endpoint())
		if err != nil {
			t.Errorf("in %v: %v", message, err)
			continue
		}
		wantState(t, d, power.On)
		if err := d.Do(t.Context(), power.PowerOff); err != nil {
			t.Error(err)
		}
		d.Close()
		ep := proxy.Endpoint()
		ep.Level = power.LevelAdministrator
		if _, err := sim.Dial(t.Context(), ep); err == nil {
			t.Error("a level that a person named is not kept to")
		}
	}
}

// TestWrongChecksumBehindARightMAC: Supermicro's X9 sends such. Outside of a session the
// checksum is all there is.
func TestWrongChecksumBehindARightMAC(t *testing.T) {
	t.Parallel()
	sim := startSim(t, impatient)
	sim.BadChecksums(true)
	d := mustDial(t, impatient, sim.Endpoint())
	wantState(t, d, power.Off)
	if err := d.Do(t.Context(), power.PowerOn); err != nil {
		t.Error(err)
	}
	ep := listen(t, func(_ int, q []byte) [][]byte {
		p := plainAnswer(q, probeTag(q))
		p[len(p)-1]++
		return [][]byte{p}
	})
	if err := NewDialer(impatient).Probe(t.Context(), ep); power.KindOf(err) != power.KindUnreachable {
		t.Errorf("a probe's answer with a wrong checksum: %v", err)
	}
}

// TestThereAndOpensNoSession: a BMC that answers anything is not one to see to the cable of.
func TestThereAndOpensNoSession(t *testing.T) {
	t.Parallel()
	is15 := func(q []byte) bool { return q[offAuthType] == 0 }
	for name, tc := range map[string]struct {
		answer func(q []byte) [][]byte
		says   string
	}{
		"IPMI over LAN is off": {func(q []byte) [][]byte {
			if is15(q) {
				return [][]byte{plainAnswer(q, probeTag(q))}
			}
			return nil
		}, "is IPMI over LAN switched on"},
		"IPMI 1.5 alone": {func(q []byte) [][]byte {
			if !is15(q) {
				return nil
			}
			p := plainAnswer(q, probeTag(q))
			data := p[offPlainPayload+7:]
			data[1], data[3] = 0x15, 0
			data[len(data)-1] = 0
			data[len(data)-1] = checksum(p[offPlainPayload+3:])
			return [][]byte{p}
		}, "IPMI 1.5 only"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ep := listen(t, func(_ int, q []byte) [][]byte { return tc.answer(q) })
			start := time.Now()
			_, err := NewDialer(impatient).Dial(t.Context(), ep)
			wantKind(t, err, power.KindBusy, false)
			within(t, start, impatient.Timeout+time.Second)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v does not say %q", err, tc.says)
			}
		})
	}
	t.Run("goes silent half way", func(t *testing.T) {
		t.Parallel()
		sim := startSim(t, impatient)
		proxy := powertest.StartProxy(t, sim.Endpoint())
		proxy.FromBMC(kind(types.PayloadTypeRAKPMessage2, powertest.Lose))
		_, err := sim.Dial(t.Context(), proxy.Endpoint())
		wantKind(t, err, power.KindBusy, false)
		if err == nil || !strings.Contains(err.Error(), "does not go on") {
			t.Error(err)
		}
	})
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		_, err := NewDialer(impatient).Dial(t.Context(), listen(t, func(int, []byte) [][]byte { return nil }))
		wantKind(t, err, power.KindUnreachable, false)
		if err == nil || !strings.Contains(err.Error(), "no answer within 3 s") {
			t.Error(err)
		}
	})
}
