package ipmi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// An answerer plays the BMC: it is given a command and returns completion code
// and data.
type answerer func(netFn types.NetFn, id byte, data []byte) (types.CompletionCode, []byte)

// scripted returns an open session to a BMC that the test plays, and what that
// BMC has been asked so far, which may be read between two calls.
func scripted(t *testing.T, play answerer) (s *session, asked func() []string) {
	t.Helper()
	peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done, log := make(chan struct{}), make(chan string, 100)
	go func() {
		defer close(done)
		serveScript(peer, play, log)
	}()
	addr := peer.LocalAddr().(*net.UDPAddr)
	l, err := openLink(addr.Port, []netip.Addr{addr.AddrPort().Addr().Unmap()})
	if err != nil {
		t.Fatal(err)
	}
	s = &session{
		link: l, cfg: impatient.withDefaults(), codec: *testCodec(12),
		limit: types.PrivilegeLevelAdministrator, level: types.PrivilegeLevelUser,
	}
	t.Cleanup(func() {
		s.Close()
		peer.Close()
		<-done
	})
	return s, func() (lines []string) {
		for len(log) > 0 {
			lines = append(lines, <-log)
		}
		return lines
	}
}

func serveScript(peer *net.UDPConn, play answerer, log chan<- string) {
	c := testCodec(12)
	buf := make([]byte, maxPacket)
	for sequence := uint32(1); ; sequence++ {
		n, from, err := peer.ReadFromUDP(buf)
		if err != nil {
			return
		}
		_, msg, err := c.open(buf[:n])
		if err != nil {
			continue
		}
		netFn, id, data := types.NetFn(msg[1]>>2), msg[5], msg[6:len(msg)-1]
		log <- strings.TrimSpace(fmt.Sprintf("%02x %02x: % x", byte(netFn), id, data))
		code, answer := play(netFn, id, data)
		res := []byte{addrConsole, byte(netFn+1) << 2, 0, addrBMC, msg[4], id, byte(code)}
		res[2] = checksum(res[:2])
		res = append(res, answer...)
		res = append(res, checksum(res[3:]))
		peer.WriteToUDP(c.seal(nil, sequence, res), from)
	}
}

// says answers every command with one code, but raises privileges.
func says(code types.CompletionCode) answerer {
	return func(_ types.NetFn, id byte, data []byte) (types.CompletionCode, []byte) {
		if id == types.CommandSetSessionPrivilegeLevel.ID {
			return 0, data
		}
		return code, []byte{0x01, 0, 0}
	}
}

func TestCompletionCodes(t *testing.T) {
	for code, want := range map[types.CompletionCode]power.ErrorKind{
		0x00: "",
		0xC0: power.KindBusy, 0xC4: power.KindBusy,
		0xC3: power.KindUncertain, 0xCA: power.KindUncertain, 0xCE: power.KindUncertain, 0xCF: power.KindUncertain, 0xD0: power.KindUncertain,
		0xD1: power.KindUncertain, 0xD2: power.KindUncertain, 0xD3: power.KindUncertain, 0xFF: power.KindUncertain,
		0x01: power.KindUncertain, 0x7E: power.KindUncertain, 0x80: power.KindUncertain, 0xBE: power.KindUncertain, 0xD7: power.KindUncertain,
		0xC1: power.KindUnsupported, 0xC2: power.KindUnsupported, 0xCC: power.KindUnsupported, 0xC9: power.KindUnsupported,
		0xD6: power.KindUnsupported,
		0xD4: power.KindPrivilege,
		0xC5: power.KindRefused, 0xC6: power.KindRefused, 0xC7: power.KindRefused, 0xC8: power.KindRefused, 0xCB: power.KindRefused,
		0xCD: power.KindRefused, 0xD5: power.KindRefused,
	} {
		s, asked := scripted(t, says(code))
		err := s.Do(t.Context(), power.HardReset)
		if power.KindOf(err) != want {
			t.Errorf("code %#02x: %v, want kind %q", uint8(code), err, want)
		}
		if got, want := asked(), []string{"06 3b: 03", "00 02: 03"}; !slices.Equal(got, want) {
			t.Errorf("code %#02x: the BMC was asked %q, want %q", uint8(code), got, want)
		}
		if want == "" {
			continue
		}
		var e *power.Error
		var ce *CodeError
		if !errors.As(err, &e) || !e.Sent || e.Lost || !errors.As(err, &ce) || ce.Code != code {
			t.Errorf("code %#02x: %+v, want it in a CodeError, Sent and not Lost", uint8(code), err)
		}
		if _, err := s.State(t.Context()); power.WasSent(err) {
			t.Errorf("code %#02x: a read has Sent: %v", uint8(code), err)
		}
	}
}

func TestStatusKinds(t *testing.T) {
	for status, want := range map[types.RmcpStatusCode]power.ErrorKind{
		0x01: power.KindBusy, 0x0B: power.KindBusy,
		0x0C: power.KindAuth, 0x0D: power.KindAuth, 0x0E: power.KindAuth, 0x0F: power.KindAuth,
		0x09: power.KindPrivilege, 0x0A: power.KindPrivilege,
		0x04: power.KindUnsupported, 0x05: power.KindUnsupported, 0x10: power.KindUnsupported, 0x11: power.KindUnsupported,
		0x12: power.KindRefused, 0x77: power.KindRefused,
	} {
		if got := statusKind(status); got != want {
			t.Errorf("status %#02x: kind %q, want %q", uint8(status), got, want)
		}
	}
	if text := (&StatusError{0x0D}).Error(); !strings.Contains(text, "Unauthorized name") || !strings.Contains(text, "0x0d") {
		t.Errorf("status 0Dh reads %q", text)
	}
}

// Some BMCs want the privilege raised even for a read.
func TestReadThatNeedsPrivilege(t *testing.T) {
	raised := false
	s, asked := scripted(t, func(_ types.NetFn, id byte, data []byte) (types.CompletionCode, []byte) {
		switch {
		case id == types.CommandSetSessionPrivilegeLevel.ID:
			raised = true
			return 0, data
		case !raised:
			return types.CodeInsufficientPrivilege, nil
		}
		return 0, []byte{0x21, 0x10, 0x40}
	})
	wantState(t, s, power.On)
	wantState(t, s, power.On)
	if got, want := asked(), []string{"00 01:", "06 3b: 04", "00 01:", "00 01:"}; !slices.Equal(got, want) {
		t.Errorf("the BMC was asked %q, want %q", got, want)
	}
}

func TestShortStatusIsRefused(t *testing.T) {
	s, _ := scripted(t, func(types.NetFn, byte, []byte) (types.CompletionCode, []byte) { return 0, []byte{1, 2} })
	_, err := s.State(t.Context())
	wantKind(t, err, power.KindRefused, false)
}

// bootSteps is what a boot device is made of, the flags left open.
func bootSteps(flags string) []string {
	return []string{"06 3b: 03", "00 08: 00 01", "00 08: 04 01 e1", "00 08: 03 08", "00 08: 05 " + flags, "00 08: 00 00"}
}

func TestBootFlags(t *testing.T) {
	for _, tc := range []struct {
		dev    power.BootDevice
		legacy bool
		flags  string
	}{
		{power.BootPXE, false, "a0 04 00 00 00"},
		{power.BootPXE, true, "80 04 00 00 00"},
		{power.BootDisk, false, "a0 08 00 00 00"},
		{power.BootCDROM, false, "a0 14 00 00 00"},
		{power.BootBIOS, false, "a0 18 00 00 00"},
		{power.BootNone, false, "00 00 00 00 00"},
	} {
		s, asked := scripted(t, says(0))
		s.ep.LegacyBoot = tc.legacy
		if err := s.SetBoot(t.Context(), tc.dev); err != nil {
			t.Errorf("%q: %v", tc.dev, err)
		}
		if got, want := asked(), bootSteps(tc.flags); !slices.Equal(got, want) {
			t.Errorf("%q: the BMC was asked\n%q, want\n%q", tc.dev, got, want)
		}
	}
}

// A BMC that knows nothing but the flags is good enough; one that refuses the
// flags is not, and its parameters are unlocked all the same.
func TestBootOptionsRefused(t *testing.T) {
	flags := byte(types.BootOptionParamSelector_BootFlags)
	for _, flagsCode := range []types.CompletionCode{0, types.CodeParameterNotSupported} {
		s, asked := scripted(t, func(netFn types.NetFn, id byte, data []byte) (types.CompletionCode, []byte) {
			switch {
			case id == types.CommandSetSessionPrivilegeLevel.ID:
				return 0, data
			case data[0] == flags:
				return flagsCode, nil
			}
			return types.CodeParameterNotSupported, nil
		})
		err := s.SetBoot(t.Context(), power.BootPXE)
		if flagsCode == 0 && err != nil {
			t.Errorf("SetBoot: %v", err)
		}
		if flagsCode != 0 {
			wantKind(t, err, power.KindUnsupported, false)
		}
		if got, want := asked(), bootSteps("a0 04 00 00 00"); !slices.Equal(got, want) {
			t.Errorf("the BMC was asked %q, want %q", got, want)
		}
	}
}

// Privileges are asked for when they are needed, and once.
func TestPrivilegeIsRaisedOnce(t *testing.T) {
	s, asked := scripted(t, says(0))
	for _, cmd := range []power.Command{power.PowerOn, power.PowerOff, power.PressSoftOff, power.PulseDiag, power.ResetBMC} {
		if err := s.Do(t.Context(), cmd); err != nil {
			t.Errorf("%s: %v", cmd, err)
		}
	}
	want := []string{"06 3b: 03", "00 02: 01", "00 02: 00", "00 02: 05", "00 02: 04", "06 3b: 04", "06 02:"}
	if got := asked(); !slices.Equal(got, want) {
		t.Errorf("the BMC was asked %q, want %q", got, want)
	}
	_, err := s.State(t.Context())
	wantKind(t, err, power.KindUnreachable, false) // it was told to restart
}

func TestPrivilegeRefused(t *testing.T) {
	for _, code := range []types.CompletionCode{0x80, 0x81, 0xD4} {
		s, asked := scripted(t, func(types.NetFn, byte, []byte) (types.CompletionCode, []byte) { return code, nil })
		wantKind(t, s.Do(t.Context(), power.PowerOff), power.KindPrivilege, false)
		if got := asked(); len(got) != 1 {
			t.Errorf("code %#02x: the BMC was asked %q", uint8(code), got)
		}
	}
	s, asked := scripted(t, says(0))
	s.limit = types.PrivilegeLevelUser
	wantKind(t, s.Do(t.Context(), power.PowerOff), power.KindPrivilege, false)
	if got := asked(); len(got) != 0 {
		t.Errorf("an operator's command of a user: the BMC was asked %q", got)
	}
}

// Malformed packets under the right key come from a broken BMC, not from an
// attacker. They are survived as well.
func TestMalformedAuthenticPackets(t *testing.T) {
	c := testCodec(12)
	for n := range 40 {
		body := bytes.Repeat([]byte{0xFF}, n)
		p := append(c.seal(nil, 1, nil)[:offPayload], body...)
		p[offLength] = byte(n)
		for (len(p)-offAuthType+2)%4 != 0 {
			p = append(p, 0xFF)
		}
		p = append(p, byte(len(p)-offPayload-n), nextHeader)
		p = append(p, c.code(p[offAuthType:])...)
		s := &session{codec: *testCodec(12)}
		if _, err := s.open(p); err == nil {
			t.Errorf("a payload of %d bytes of FFh was taken for a message", n)
		}
	}
}
