package bmcsim

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/protocol"
	"github.com/bougou/go-ipmi/pkg/rmcpplus"
	"github.com/bougou/go-ipmi/pkg/types"
)

// console is a remote console that does exactly what a test tells it: one
// datagram for each call, nothing repeated, nothing hidden.
type console struct {
	t        testing.TB
	conn     *net.UDPConn
	wait     time.Duration
	user     string
	password string
	suite    types.CipherSuiteID

	id, bmcID  uint32
	random     [16]byte
	sik        []byte
	k1, k2     []byte
	auth       types.AuthAlg
	integrity  types.IntegrityAlg
	crypt      types.CryptAlg
	seq        uint32
	rqSeq      byte
	lastPacket []byte
}

// statusError is a refusal while a session is opened.
type statusError byte

func (e statusError) Error() string { return fmt.Sprintf("RMCP+ status %#02x", byte(e)) }

var errNoAnswer = errors.New("no answer")

func dial(t testing.TB, b *BMC) *console {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ep := b.Endpoint()
	return &console{t: t, conn: conn, wait: 5 * time.Second, user: ep.User, password: string(ep.Password), suite: 17}
}

// login dials and opens a session with administrator privilege.
func login(t testing.TB, b *BMC) *console {
	t.Helper()
	c := dial(t, b)
	c.mustOpen()
	return c
}

func (c *console) mustOpen() {
	c.t.Helper()
	if err := c.open(); err != nil {
		c.t.Fatal(err)
	}
	if code, _ := c.ask(netFnApp, 0x3b, 4); code != 0 {
		c.t.Fatalf("cannot become administrator: code %#02x", code)
	}
}

func (c *console) write(pkt []byte) {
	c.lastPacket = pkt
	if _, err := c.conn.Write(pkt); err != nil {
		c.t.Fatal(err)
	}
}

func (c *console) read() ([]byte, error) {
	buf := make([]byte, 1024)
	_ = c.conn.SetReadDeadline(time.Now().Add(c.wait))
	n, err := c.conn.Read(buf)
	if err != nil {
		return nil, errNoAnswer
	}
	return buf[:n], nil
}

func (c *console) setup(kind types.PayloadType, payload []byte) ([]byte, error) {
	c.write(protocol.BuildRMCPPlusPacket(byte(kind), 0, 0, 0, payload))
	pkt, err := c.read()
	if err != nil {
		return nil, err
	}
	_, _, got, _, resp, ok := protocol.ParseRMCPPlusHeader(pkt)
	if !ok || got != byte(kind)+1 {
		return nil, fmt.Errorf("payload type %#02x answers %#02x", got, byte(kind))
	}
	if resp[1] != 0 {
		return resp, statusError(resp[1])
	}
	return resp, nil
}

func (c *console) openRequest() error {
	c.auth, c.integrity, c.crypt, _ = types.GetCipherSuiteAlgorithms(c.suite)
	c.id, c.seq = 0xa0a1a2a3, 0
	req := rmcpplus.OpenSessionRequest{MessageTag: 1, RequestedMaximumPrivilegeLevel: 4, RemoteConsoleSessionID: c.id}
	req.AuthenticationPayload, req.IntegrityPayload, req.ConfidentialityPayload = rmcpplus.NewAlgorithmPayloads(c.auth, c.integrity, c.crypt)
	resp, err := c.setup(types.PayloadTypeRmcpOpenSessionRequest, req.Pack())
	if err == nil {
		c.bmcID = binary.LittleEndian.Uint32(resp[8:12])
	}
	return err
}

func (c *console) rakp1() []byte {
	m := rmcpplus.RAKPMessage1{
		MessageTag: 2, ManagedSystemSessionID: c.bmcID, RemoteConsoleRandomNumber: c.random,
		RequestedMaximumPrivilegeLevel: 4, UsernameLength: byte(len(c.user)), Username: []byte(c.user),
	}
	return m.Pack()
}

// open goes through open session and RAKP.
func (c *console) open() error {
	if err := c.openRequest(); err != nil {
		return err
	}
	_, _ = rand.Read(c.random[:])
	resp, err := c.setup(types.PayloadTypeRAKPMessage1, c.rakp1())
	if err != nil {
		return err
	}
	_, err = c.setup(types.PayloadTypeRAKPMessage3, c.rakp3(resp))
	return err
}

// rakp3 makes RAKP message 3 from message 2, and the session's keys.
func (c *console) rakp3(rakp2 []byte) []byte {
	key := crypto.PadPassword20([]byte(c.password))
	bmcRandom, role := rakp2[8:24], byte(4)
	code, err := crypto.RAKP3AuthCode(c.auth, bmcRandom, c.id, role, c.user, key)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.sik, c.k1, c.k2, err = crypto.DeriveSessionKeys(c.auth, c.random[:], bmcRandom, role, c.user, key); err != nil {
		c.t.Fatal(err)
	}
	m := rmcpplus.RAKPMessage3{MessageTag: 3, ManagedSystemSessionID: c.bmcID, KeyExchangeAuthenticationCode: code}
	return m.Pack()
}

// rakp2OK says whether message 2 proves that the BMC knows the password.
func (c *console) rakp2OK(rakp2 []byte) bool {
	want, err := crypto.RAKP2AuthCode(c.auth, c.id, c.bmcID, c.random[:], rakp2[8:24], rakp2[24:40], 4, c.user,
		crypto.PadPassword20([]byte(c.password)))
	return err == nil && crypto.Equal(want, rakp2[40:])
}

// message is an IPMI request with good checksums.
func message(netFn, cmd, rqSeq byte, data ...byte) []byte {
	msg := []byte{bmcAddr, netFn << 2}
	msg = append(msg, protocol.Checksum(msg))
	msg = append(msg, 0x81, rqSeq<<2, cmd)
	msg = append(msg, data...)
	return append(msg, protocol.Checksum(msg[3:]))
}

// sealed is a datagram of the session under the sequence number seq.
func (c *console) sealed(seq uint32, msg []byte) []byte {
	enc, err := crypto.EncryptAESPayload(msg, c.k2, crypto.RandomBytes(16))
	if err != nil {
		c.t.Fatal(err)
	}
	return c.signed(seq, enc)
}

func (c *console) signed(seq uint32, payload []byte) []byte {
	pkt := protocol.BuildRMCPPlusPacket(0, flagEncrypted|flagAuthenticated, c.bmcID, seq, payload)
	pad := types.IntegrityPadLen(plusHeader, len(payload))
	for range pad {
		pkt = append(pkt, 0xff)
	}
	pkt = append(pkt, byte(pad), nextHeader)
	code, err := crypto.SessionIntegrityAuthCode(c.integrity, pkt[rmcpLen:], c.k1, "")
	if err != nil {
		c.t.Fatal(err)
	}
	return append(pkt, code...)
}

// tell sends a request and does not wait.
func (c *console) tell(netFn, cmd byte, data ...byte) {
	c.seq++
	c.rqSeq = (c.rqSeq + 1) & 0x3f
	c.write(c.sealed(c.seq, message(netFn, cmd, c.rqSeq, data...)))
}

// hear reads one answer of the session.
func (c *console) hear() (code byte, data []byte, err error) {
	pkt, err := c.read()
	if err != nil {
		return 0, nil, err
	}
	id, _, _, flags, payload, ok := protocol.ParseRMCPPlusHeader(pkt)
	if !ok || id != c.id || flags&0xc0 != 0xc0 {
		return 0, nil, fmt.Errorf("session %#x, flags %#x: not an answer of this session", id, flags)
	}
	msg, err := crypto.DecryptAESPayload(payload, c.k2)
	if err != nil {
		return 0, nil, err
	}
	return msg[6], msg[7 : len(msg)-1], nil
}

// try sends a request and waits for its answer.
func (c *console) try(netFn, cmd byte, data ...byte) (code byte, resp []byte, err error) {
	c.tell(netFn, cmd, data...)
	return c.hear()
}

// ask is try for requests that must be answered.
func (c *console) ask(netFn, cmd byte, data ...byte) (code byte, resp []byte) {
	c.t.Helper()
	code, resp, err := c.try(netFn, cmd, data...)
	if err != nil {
		c.t.Fatalf("request %#02x %#02x: %v", netFn, cmd, err)
	}
	return code, resp
}

// control sends a chassis control and returns its completion code.
func (c *console) control(action byte) byte {
	c.t.Helper()
	code, _ := c.ask(netFnChassis, 2, action)
	return code
}

// on reads the power.
func (c *console) on() bool {
	c.t.Helper()
	code, data := c.ask(netFnChassis, 1)
	if code != 0 || len(data) < 3 {
		c.t.Fatalf("chassis status: code %#02x, % x", code, data)
	}
	return data[0]&1 != 0
}

// silent checks that nothing comes for a while.
func (c *console) silent() {
	c.t.Helper()
	before := c.wait
	defer func() { c.wait = before }()
	c.wait = 50 * time.Millisecond
	if pkt, err := c.read(); err == nil {
		c.t.Fatalf("an answer came: % x", pkt)
	}
}
