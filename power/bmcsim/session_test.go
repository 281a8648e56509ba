package bmcsim

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"
	"pgregory.net/rapid"
)

func suiteID(n int) types.CipherSuiteID { return types.CipherSuiteID(n) }

func TestLoginIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	for _, suite := range []int{3, 17} {
		for _, tc := range []struct {
			user, password string
			want           error
		}{
			{"admin", "mistaken", statusError(statusBadIntegrity)},
			{"nobody", string(DefaultPassword), statusError(statusUnauthorized)},
			{"", "", statusError(statusUnauthorized)}, // no anonymous user
			{"a-name-of-20-letters", "", statusError(statusNameLength)},
			{"admin", string(DefaultPassword), nil},
		} {
			c := dial(t, b)
			c.suite, c.user, c.password = suiteID(suite), tc.user, tc.password
			if err := c.open(); !errors.Is(err, tc.want) {
				t.Errorf("suite %d, user %q, password %q: %v, want %v", suite, tc.user, tc.password, err, tc.want)
			}
		}
	}
	if b.AuthFailures() != 6 || b.Logins() != 2 || b.Sessions() != 2 {
		t.Errorf("failures %d, logins %d, sessions %d", b.AuthFailures(), b.Logins(), b.Sessions())
	}
}

func TestClientThatRefusesRAKP2FreesTheSession(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := dial(t, b)
	c.password = "mistaken"
	if err := c.openRequest(); err != nil {
		t.Fatal(err)
	}
	resp, err := c.setup(types.PayloadTypeRAKPMessage1, c.rakp1())
	if err != nil || c.rakp2OK(resp) {
		t.Fatalf("message 2 is fine with a wrong password: %v", err)
	}
	m3 := c.rakp3(resp)
	m3[1] = statusBadIntegrity
	c.wait = 50 * time.Millisecond
	if _, err = c.setup(types.PayloadTypeRAKPMessage3, m3); err == nil {
		t.Fatal("accepted")
	}
	if b.Sessions() != 0 || b.AuthFailures() != 1 {
		t.Errorf("sessions %d, failures %d", b.Sessions(), b.AuthFailures())
	}
}

func TestRepeatedRAKPGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := dial(t, b)
	if err := c.openRequest(); err != nil {
		t.Fatal(err)
	}
	m1 := c.rakp1()
	twice := func(kind types.PayloadType, msg []byte) []byte {
		t.Helper()
		first, err := c.setup(kind, msg)
		if err != nil {
			t.Fatal(err)
		}
		msg = bytes.Clone(msg)
		msg[0]++ // the tag
		second, err := c.setup(kind, msg)
		if err != nil || second[0] != msg[0] || !bytes.Equal(first[1:], second[1:]) {
			t.Fatalf("payload type %#x again: %v\n% x\n% x", kind, err, first, second)
		}
		return first
	}
	m2 := twice(types.PayloadTypeRAKPMessage1, m1)
	if !c.rakp2OK(m2) {
		t.Fatal("RAKP 2 does not know the password")
	}
	m3 := c.rakp3(m2)
	twice(types.PayloadTypeRAKPMessage3, m3)
	if c.on(); b.Logins() != 1 {
		t.Errorf("%d logins", b.Logins())
	}
	// Whoever saw the session's ID can neither restart nor end it.
	if _, err := c.setup(types.PayloadTypeRAKPMessage1, m1); !errors.Is(err, statusError(statusInactiveID)) {
		t.Errorf("RAKP 1 in an active session: %v", err)
	}
	m3[10] ^= 1
	if _, err := c.setup(types.PayloadTypeRAKPMessage3, m3); !errors.Is(err, statusError(statusInactiveID)) {
		t.Errorf("another RAKP 3 in an active session: %v", err)
	}
	c.on()
}

func TestUnknownSessionInRAKP(t *testing.T) {
	t.Parallel()
	c := dial(t, one(t, Config{}))
	c.bmcID = 0x12345678
	if _, err := c.setup(types.PayloadTypeRAKPMessage1, c.rakp1()); !errors.Is(err, statusError(statusInvalidID)) {
		t.Error(err)
	}
}

func TestPrivilege(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := dial(t, b)
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	if c.control(up) != codePrivilege || setBoot(c, 0x80, 1) != codePrivilege {
		t.Error("a new session may switch without having asked for privilege")
	}
	if c.on() {
		t.Error("executed")
	}
	if code, _ := c.ask(netFnApp, 0x3b, 3); code != 0 || c.control(up) != 0 || setBoot(c, 0x80, 1) != 0 {
		t.Error("an operator may not switch")
	}
	if code, _ := c.ask(netFnApp, cmdColdReset); code != codePrivilege {
		t.Errorf("an operator may reset the BMC: %#02x", code)
	}
	if len(b.Commands()) != 2 {
		t.Errorf("refused commands in the log: %q", words(b))
	}
	b.Privilege(2)
	if err := dial(t, b).open(); !errors.Is(err, statusError(0x0a)) { // it asks for administrator
		t.Errorf("a user becomes administrator: %v", err)
	}
}

func TestWithoutSession(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := dial(t, b)
	c.write(buildV15(message(netFnApp, 0x38, 1, 0x8e, 4))) // Get Channel Authentication Capabilities
	pkt, err := c.read()
	if err != nil || pkt[v15Payload+6] != 0 || pkt[v15Payload+8]&0x80 == 0 || pkt[v15Payload+10]&0x02 == 0 {
		t.Fatalf("capabilities: %v % x", err, pkt)
	}
	c.write(buildV15(message(netFnChassis, 2, 1, up)))
	if pkt, err = c.read(); err != nil || pkt[v15Payload+6] != codePrivilege || b.Power() != "off" {
		t.Fatalf("chassis control without a session: %v % x", err, pkt)
	}
	c.write([]byte{6, 0, 0xff, 6, 0, 0, 0x11, 0xbe, 0x80, 42, 0, 0}) // presence ping
	if pkt, err = c.read(); err != nil || pkt[8] != 0x40 || pkt[9] != 42 {
		t.Fatalf("ping: %v % x", err, pkt)
	}
}

func TestSameDatagramIsExecutedOnceFreshOnesEachTime(t *testing.T) {
	t.Parallel()
	b := one(t, Config{Initial: "on"})
	c := login(t, b)
	if c.control(reset) != 0 {
		t.Fatal("refused")
	}
	c.write(c.lastPacket) // the network made a copy
	c.silent()
	if b.Resets() != 1 || b.Repeats() != 1 {
		t.Fatalf("resets %d, repeats %d", b.Resets(), b.Repeats())
	}
	c.seq++ // the client sends it again, with the same request sequence
	c.write(c.sealed(c.seq, message(netFnChassis, 2, c.rqSeq, reset)))
	if _, _, err := c.hear(); err != nil || b.Resets() != 2 {
		t.Fatalf("%v, resets %d", err, b.Resets())
	}
	c.write(c.sealed(c.seq+16, message(netFnChassis, 2, 9, reset))) // out of the window
	c.silent()
	if b.Resets() != 2 {
		t.Fatalf("resets %d", b.Resets())
	}
}

func TestForgedDatagramsAreIgnored(t *testing.T) {
	t.Parallel()
	b := one(t, Config{})
	c := login(t, b)
	good := func() []byte { c.seq++; return c.sealed(c.seq, message(netFnChassis, 2, 1, up)) }
	for name, forge := range map[string]func() []byte{
		"a bit of the message":   func() []byte { p := good(); p[40] ^= 1; return p },
		"a bit of the auth code": func() []byte { p := good(); p[len(p)-1] ^= 1; return p },
		"the authenticated flag": func() []byte { p := good(); p[5] &^= flagAuthenticated; return p },
		"the session ID":         func() []byte { p := good(); p[7] ^= 1; return p },
		"without its trailer":    func() []byte { p := good(); return p[:len(p)-18] },
		"a checksum": func() []byte {
			msg := message(netFnChassis, 2, 1, up)
			msg[len(msg)-1] ^= 1
			c.seq++
			return c.sealed(c.seq, msg)
		},
		"the header's checksum": func() []byte {
			msg := message(netFnChassis, 2, 1, up)
			msg[2] ^= 1
			c.seq++
			return c.sealed(c.seq, msg)
		},
		"half a block, but signed": func() []byte { c.seq++; return c.signed(c.seq, make([]byte, 40)) },
		"no block, but signed":     func() []byte { c.seq++; return c.signed(c.seq, make([]byte, 16)) },
	} {
		c.write(forge())
		c.silent()
		if b.Power() != "off" {
			t.Fatalf("executed: %s is wrong", name)
		}
	}
	if c.control(up) != 0 {
		t.Error("the session is spoilt")
	}
}

// TestWindow compares the window with a naive one that remembers everything.
func TestWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.SampledFrom([]uint32{0, 100, 0xfffffff0}).Draw(t, "start")
		w := window{last: start, seen: 0xffff}
		high, seen := int64(start), map[int64]bool{}
		for i := int64(0); i <= 16; i++ {
			seen[int64(start)-i] = true
		}
		for range 60 {
			n := high + int64(rapid.IntRange(-20, 20).Draw(t, "step"))
			if uint32(n) == 0 {
				continue
			}
			want := n <= high+15 && n >= high-16 && !seen[n]
			got, repeat := w.accept(uint32(n))
			if got != want || repeat != (n <= high && n >= high-16 && seen[n]) {
				t.Fatalf("%d with highest %d: %v, repeat %v", n, high, got, repeat)
			}
			if want {
				seen[n] = true
				high = max(high, n)
			}
		}
	})
}
