package ipmi

import (
	"bytes"
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/bougou/go-ipmi/pkg/rmcpplus"
	"github.com/bougou/go-ipmi/pkg/types"
)

// testCodec returns a codec whose two ends have the same id, so that it opens
// what it seals.
func testCodec(macLen int) *codec {
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, blockSize))
	if err != nil {
		panic(err)
	}
	c := &codec{local: 0xA1B2C3D4, remote: 0xA1B2C3D4, macLen: macLen, block: block}
	if macLen == 16 {
		c.mac = hmac.New(sha256.New, []byte("k1"))
	} else {
		c.mac = hmac.New(sha1.New, []byte("k1"))
	}
	return c
}

func TestCodecOpensWhatItSeals(t *testing.T) {
	for _, macLen := range []int{12, 16} {
		c := testCodec(macLen)
		for n := range 100 {
			msg := bytes.Repeat([]byte{byte(n)}, n)
			p := c.seal(nil, uint32(n+1), msg)
			if (len(p)-offAuthType-macLen)%4 != 0 {
				t.Fatalf("%d bytes: what the MAC covers is no multiple of 4 bytes", n)
			}
			sequence, got, err := c.open(p)
			if err != nil || sequence != uint32(n+1) || !bytes.Equal(got, msg) {
				t.Fatalf("%d bytes: open = %d, %x, %v", n, sequence, got, err)
			}
		}
	}
}

// The library reads the same bytes as the spec: what we seal must be what it
// takes apart.
func TestSealedPacketIsReadByTheLibrary(t *testing.T) {
	c := testCodec(12)
	p := c.seal(nil, 0x01020304, []byte("hello"))
	var r types.Rmcp
	if err := r.Unpack(p); err != nil {
		t.Fatal(err)
	}
	h := r.Session20.SessionHeader20
	if !h.PayloadEncrypted || !h.PayloadAuthenticated || h.PayloadType != types.PayloadTypeIPMI ||
		h.SessionID != c.remote || h.Sequence != 0x01020304 || h.PayloadLength != 32 {
		t.Errorf("header %+v", h)
	}
	if tr := r.Session20.SessionTrailer; tr.NextHeader != nextHeader || len(tr.AuthCode) != 12 || int(tr.PadLength) != len(tr.IntegrityPAD) {
		t.Errorf("trailer %+v", tr)
	}
}

func TestSealUsesANewIVEachTime(t *testing.T) {
	c := testCodec(12)
	a := c.seal(nil, 1, []byte("same"))
	b := c.seal(nil, 1, []byte("same"))
	if bytes.Equal(a[offPayload:offPayload+blockSize], b[offPayload:offPayload+blockSize]) {
		t.Error("two packets have the same IV")
	}
}

func TestOpenRefuses(t *testing.T) {
	c := testCodec(12)
	good := c.seal(nil, 1, []byte("message"))
	change := func(at int, to byte) []byte {
		p := slices.Clone(good)
		p[at] = to
		return p
	}
	// remade is the packet with a change that the MAC covers.
	remade := func(edit func(p []byte) []byte) []byte {
		p := edit(slices.Clone(good[:len(good)-12]))
		return append(p, c.code(p[offAuthType:])...)
	}
	for name, tc := range map[string]struct {
		packet []byte
		want   error
	}{
		"nothing":           {nil, errShort},
		"header only":       {good[:offPayload], errShort},
		"not RMCP":          {change(0, 5), errNotRMCP},
		"not class IPMI":    {change(3, 6), errNotRMCP},
		"IPMI 1.5":          {change(offAuthType, 0), errNotRMCP},
		"plaintext":         {change(offPayType, 0), errPlain},
		"not encrypted":     {change(offPayType, types.PayloadFlagAuthenticated), errPlain},
		"not authenticated": {change(offPayType, types.PayloadFlagEncrypted), errPlain},
		"another payload":   {change(offPayType, flags|1), errPlain},
		"another session":   {change(offSession, ^good[offSession]), errSession},
		"another sequence":  {change(offSequence, 2), errMAC},
		"changed payload":   {change(offPayload+20, ^good[offPayload+20]), errMAC},
		"changed MAC":       {change(len(good)-1, ^good[len(good)-1]), errMAC},
		"cut":               {good[:len(good)-1], errMAC},
		"longer":            {append(slices.Clone(good), 0), errMAC},
		"length too large":  {remade(func(p []byte) []byte { p[offLength] += 4; return p }), errMalformed},
		"length too small":  {remade(func(p []byte) []byte { p[offLength] -= 4; return p }), errMalformed},
		"huge length":       {remade(func(p []byte) []byte { p[offLength+1] = 0xFF; return p }), errMalformed},
		"huge pad":          {remade(func(p []byte) []byte { p[len(p)-2] = 0xFF; return p }), errMalformed},
		"next header":       {remade(func(p []byte) []byte { p[len(p)-1] = 0; return p }), errMalformed},
		"no payload": {remade(func(p []byte) []byte {
			p[offLength] = 0
			return append(p[:offPayload], 0xFF, 0xFF, 2, nextHeader)
		}), errMalformed},
		"payload of 17 bytes": {remade(func(p []byte) []byte {
			p[offLength] = 17
			return append(p[:offPayload+17], 0xFF, 1, nextHeader)
		}), errMalformed},
		"IV and nothing": {remade(func(p []byte) []byte {
			p[offLength] = blockSize
			return append(p[:offPayload+blockSize], 0xFF, 0xFF, 2, nextHeader)
		}), errMalformed},
		"padding longer than the payload": {remade(func(p []byte) []byte {
			p[offPayload+blockSize-1] ^= 0xF0 // the IV: turns the last plain byte
			return p
		}), errMalformed},
	} {
		if _, _, err := c.open(tc.packet); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func TestMessages(t *testing.T) {
	// Get Chassis Status as any analyser shows it.
	got := appendRequest(nil, types.CommandGetChassisStatus, 5, nil)
	if want := []byte{0x20, 0x00, 0xE0, 0x81, 0x14, 0x01, 0x6A}; !bytes.Equal(got, want) {
		t.Errorf("request % x, want % x", got, want)
	}
	answer := []byte{0x81, 0x04, 0x7B, 0x20, 0x14, 0x01, 0x00, 0x21, 0x10, 0x40, 0}
	answer[len(answer)-1] = checksum(answer[3 : len(answer)-1])
	r, err := parseResponse(answer)
	if err != nil || r.netFn != 1 || r.id != 1 || r.tag != 5 || r.code != 0 || !bytes.Equal(r.data, []byte{0x21, 0x10, 0x40}) {
		t.Errorf("response %+v, %v", r, err)
	}
	for i := range answer {
		bad := slices.Clone(answer)
		bad[i]++
		if checksumsFit(bad) {
			t.Errorf("byte %d changed: the checksums fit", i)
		}
	}
	for n := range 8 {
		if _, err := parseResponse(make([]byte, n)); !errors.Is(err, errShort) {
			t.Errorf("%d bytes: %v, want %v", n, err, errShort)
		}
	}
}

func TestWindow(t *testing.T) {
	var w window
	for _, step := range []struct {
		n    uint32
		want bool
	}{
		{0, false},
		{1, true},
		{1, false},
		{3, true},
		{2, true},
		{2, false},
		{3, false},
		{67, true},
		{3, false},
		{4, true},
		{4, false},
		{66, true},
		{1000, true},
		{67, false},
		{1000, false},
		{999, true},
		{0xFFFFFFFF, false},
		{0x7FFFFFFF, true},
		{0xFFFFFFFE, true},
		{0xFFFFFFFF, true},
		{0, false},
		{1, true},
		{0xFFFFFFFE, false},
	} {
		if got := w.take(step.n); got != step.want {
			t.Errorf("take(%#x) = %v, want %v", step.n, got, step.want)
		}
	}
}

// A window agrees with the naive one that keeps every number.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{1, 2, 2, 255, 3, 0, 9})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var w window
		var highest uint32
		seen := map[uint32]bool{}
		n := uint32(100)
		for _, s := range steps {
			n += uint32(int32(int8(s)))
			want := n != 0 && !seen[n] && (len(seen) == 0 || int64(n) > int64(highest)-64)
			if n > 1<<31 {
				return // the wrap has its own test
			}
			if got := w.take(n); got != want {
				t.Fatalf("take(%d) = %v, want %v (highest %d)", n, got, want, highest)
			}
			if want {
				seen[n] = true
				highest = max(highest, n)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	c := testCodec(12)
	f.Add(c.seal(nil, 1, []byte("message")), false)
	f.Add(c.seal(nil, 1, nil), true)
	f.Add([]byte{6, 0, 0xFF, 7, 6, 0xC0}, true)
	f.Fuzz(func(t *testing.T, p []byte, sign bool) {
		c := testCodec(12)
		if sign && len(p) >= offPayload { // get behind the MAC
			binary.LittleEndian.PutUint32(p[offSession:], c.local)
			p = append(p, c.code(p[offAuthType:])...)
		}
		_, msg, err := c.open(p)
		if err == nil {
			parseResponse(msg)
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte{0x81, 0x04, 0x7B, 0x20, 0x14, 0x01, 0x00, 0xCB})
	f.Fuzz(func(t *testing.T, msg []byte) {
		r, err := parseResponse(msg)
		if err == nil && len(r.data) != len(msg)-8 {
			t.Errorf("%d bytes of data in a message of %d", len(r.data), len(msg))
		}
	})
}

func FuzzSetupPayload(f *testing.F) {
	f.Add(setupPacket(types.PayloadTypeRAKPMessage2, []byte("payload")), byte(types.PayloadTypeRAKPMessage2))
	f.Fuzz(func(t *testing.T, p []byte, kind byte) {
		payload, err := setupPayload(p, types.PayloadType(kind))
		if err == nil && len(payload) > len(p)-offPayload {
			t.Errorf("payload of %d bytes in a packet of %d", len(payload), len(p))
		}
	})
}

// The handshake's answers come before anything is authenticated.
func FuzzHandshakeAnswers(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0}, 36))
	f.Add(bytes.Repeat([]byte{0}, 72))
	f.Add([]byte{1, 0x12, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var opened rmcpplus.OpenSessionResponse
		if opened.Unpack(payload) == nil {
			_ = agrees(opened, 17)
		}
		for _, auth := range []types.AuthAlg{types.AuthAlg_HMAC_SHA1, types.AuthAlg_HMAC_SHA256} {
			second := rmcpplus.RAKPMessage2{AuthAlg: auth}
			if err := second.Unpack(payload); err == nil && second.RmcpStatusCode == 0 && len(second.KeyExchangeAuthenticationCode) == 0 {
				t.Error("a RAKP message 2 without a code was taken")
			}
			fourth := rmcpplus.RAKPMessage4{AuthAlg: auth}
			if err := fourth.Unpack(payload); err == nil && fourth.RmcpStatusCode == 0 && len(fourth.IntegrityCheckValue) == 0 {
				t.Error("a RAKP message 4 without a check value was taken")
			}
		}
	})
}
