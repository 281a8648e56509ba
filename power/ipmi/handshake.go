package ipmi

import (
	"context"
	"crypto/aes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/rmcpplus"
	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// handshake opens one session (section 13.15 on). Its messages may be repeated;
// the password is tried once.
type handshake struct {
	link     *link
	cfg      Config
	ep       power.Endpoint
	deadline time.Time
	known    agreement

	tag    byte                 // of the last message
	role   types.PrivilegeLevel // asked for
	offers []offer              // all that were made for this session
	offer  offer                // agreed on
	remote uint32               // the BMC's session id
	auth   types.AuthAlg
	rakp1  rmcpplus.RAKPMessage1
	rakp2  rmcpplus.RAKPMessage2

	guessed bool // the role is one that was given before, not the highest that may be given now
	proved  bool // the BMC has proved that it knows the password
	alive   bool // it has answered something
	trips   trips
	only15  bool // it says that it has no sessions of IPMI v2.0
}

// offer is a cipher suite that was proposed.
type offer struct {
	suite types.CipherSuiteID
	tag   byte
	local uint32 // the console's session id
}

// A refusal is not authenticated. After one, the true answer has this long to
// show itself before the refusal is believed.
const doubt = 150 * time.Millisecond

// errGone says that the BMC does not know, or does not answer about, a session
// that is being opened.
var errGone = errors.New("the BMC does not go on with the session that it began to open")

// reopenings is how often a session that is gone is opened again in one Dial.
const reopenings = 2

// A session is opened with the highest privilege, and with the next lower one
// when the BMC says that the user has no right to it.
const lowestRole = types.PrivilegeLevelUser

// levels are the highest privileges that an endpoint may name.
var levels = map[power.Level]types.PrivilegeLevel{
	"":                       types.PrivilegeLevelAdministrator,
	power.LevelAdministrator: types.PrivilegeLevelAdministrator,
	power.LevelOperator:      types.PrivilegeLevelOperator,
	power.LevelUser:          types.PrivilegeLevelUser,
}

// run opens the session. It begins again with a lower privilege when the BMC
// refuses the higher one, and when the BMC forgot the session in between. A privilege
// that was given before and is refused now is asked for from the top. A level that the
// endpoint names is asked for, and no other.
func (h *handshake) run(ctx context.Context) (*session, *power.Error) {
	highest := levels[h.ep.Level]
	h.role = highest
	if h.ep.Level == "" && h.known.role != 0 {
		h.role, h.guessed = h.known.role, h.known.role < highest
	}
	for reopened, doubted := 0, false; ; {
		s, err := h.once(ctx)
		if err == nil {
			return s, nil
		}
		may, sure := h.roleRefused(err)
		switch {
		case ended(ctx) != nil || !time.Now().Before(h.deadline):
			return nil, err
		case errors.Is(err, errGone) && reopened < reopenings:
			reopened++
			h.cfg.Log.Debug("session lost while it was opened, opening another", "bmc", h.ep.Key())
		case !may || !sure && doubted || h.ep.Level != "":
			return nil, err
		case h.guessed:
			h.role, h.guessed = highest, false
			h.cfg.Log.Debug("privilege of before refused, asking from the top", "bmc", h.ep.Key())
		case h.role > lowestRole:
			h.role--
			doubted = doubted || !sure
			h.cfg.Log.Debug("privilege refused, asking for the next lower", "bmc", h.ep.Key(), "role", h.role)
		default:
			return nil, err
		}
	}
}

// roleRefused reports whether a refusal may be about the privilege asked for, and
// whether it surely is. BMCs call a user unauthorized who has not the privilege; the
// user alone is refused in RAKP message 2, before any password was shown.
func (h *handshake) roleRefused(err *power.Error) (may, sure bool) {
	var said *StatusError
	if !errors.As(err, &said) {
		return false, false
	}
	switch said.Status {
	case types.RmcpStatusCodeInvalidRole, types.RmcpStatusCodeUnauthorizedRoleOfPriLevel:
		return true, true
	case types.RmcpStatusCodeUnauthorizedName, types.RmcpStatusCodeNoResToCreateSessAtRole:
		return true, false
	}
	return h.proved && err.Kind == power.KindPrivilege, false
}

// unserved makes the error of a BMC that opened no session: one that answered anything
// is there.
func (h *handshake) unserved(bad *power.Error) *power.Error {
	if !h.alive {
		if errors.Is(bad, errUnanswered) {
			bad.Err = silence{h.cfg.Timeout}
		}
		return bad
	}
	why := errors.New("it answers, and no request to open a session: is IPMI over LAN switched on, and are its sessions held by others?")
	switch {
	case h.ep.Suite != 0 && h.remote == 0:
		why = fmt.Errorf("it answers, and no request to open a session with cipher suite %d: does it serve that, and is IPMI over LAN switched "+
			"on?", h.ep.Suite)
	case h.only15:
		why = errors.New("it says that it opens sessions of IPMI 1.5 only: switch IPMI 2.0 (RMCP+) on")
	case errors.Is(bad, errGone) || h.remote != 0:
		why = errors.New("it begins to open a session and does not go on: is it starting, or are its sessions held by others?")
	}
	return &power.Error{Kind: power.KindBusy, Op: opOpen, Lost: true, Err: why}
}

// once goes once through the three exchanges. Whatever stops it, the BMC is told.
func (h *handshake) once(ctx context.Context) (*session, *power.Error) {
	h.proved = false
	if err := h.openSession(ctx); err != nil {
		return nil, err
	}
	if err := h.exchange12(ctx); err != nil {
		h.refuse(err)
		return nil, err
	}
	return h.exchange34(ctx)
}

// openSession has the BMC agree to a cipher suite (sections 13.17, 13.18).
func (h *handshake) openSession(ctx context.Context) *power.Error {
	ids, sure := suites(h.ep, h.known)
	offers := make([]offer, len(ids))
	for i, id := range ids {
		offers[i] = offer{suite: id, tag: h.nextTag(), local: randomID()}
	}
	h.offers, h.remote = offers, 0
	wait := h.cfg.FirstAnswer
	for attempt := 0; time.Now().Before(h.deadline); attempt++ {
		o, half := pick(offers, sure, attempt)
		turn := wait
		if half {
			turn /= 2
		} else {
			wait += wait / 2
		}
		if err := h.link.send(setupPacket(types.PayloadTypeRmcpOpenSessionRequest, h.openRequest(o))); err != nil {
			return failed(ctx, opOpen, false, err)
		}
		if attempt > 0 { // is it silent, or does it open no session?
			h.link.send(probeRequest(h.offers[0].tag & 0x3F))
		}
		sent := time.Now()
		agreed, err := h.openAnswer(ctx, offers, turn)
		switch {
		case err == nil:
			if attempt == 0 {
				h.trips.took(time.Since(sent))
			}
			h.offer = agreed
			h.auth, _, _, _ = types.GetCipherSuiteAlgorithms(agreed.suite)
			return nil
		case err.Kind == power.KindUnsupported && len(offers) > 1:
			h.cfg.Log.Debug("cipher suite refused", "bmc", h.ep.Key(), "suite", agreed.suite)
			offers, sure = without(offers, agreed), true
		case !errors.Is(err, errUnanswered):
			return err
		}
	}
	return failed(ctx, opOpen, false, silence{h.cfg.Timeout})
}

// pick chooses what to offer at the nth attempt. As long as it is not known what
// the BMC serves, silence may mean that it ignores the suite (some do): the
// first suite has two half turns, so that one lost packet does not rule it out,
// then they alternate.
func pick(offers []offer, sure bool, attempt int) (o offer, half bool) {
	switch {
	case sure || len(offers) == 1:
		return offers[0], false
	case attempt < 2:
		return offers[0], true
	}
	return offers[(attempt+1)%2], false
}

func without(offers []offer, refused offer) []offer {
	var rest []offer
	for _, o := range offers {
		if o.suite != refused.suite {
			rest = append(rest, o)
		}
	}
	return rest
}

func (h *handshake) openRequest(o offer) []byte {
	auth, integrity, crypt, _ := types.GetCipherSuiteAlgorithms(o.suite)
	req := rmcpplus.OpenSessionRequest{MessageTag: o.tag, RequestedMaximumPrivilegeLevel: h.role, RemoteConsoleSessionID: o.local}
	req.AuthenticationPayload, req.IntegrityPayload, req.ConfidentialityPayload = rmcpplus.NewAlgorithmPayloads(auth, integrity, crypt)
	return req.Pack()
}

// openAnswer waits for the answer to any of the offers and returns the one that
// it is about. KindUnsupported says that the BMC does not serve that one.
func (h *handshake) openAnswer(ctx context.Context, offers []offer, wait time.Duration) (about offer, bad *power.Error) {
	err := h.await(ctx, types.PayloadTypeRmcpOpenSessionResponse, wait, func(payload []byte) (bool, *power.Error) {
		var res rmcpplus.OpenSessionResponse
		if res.Unpack(payload) != nil {
			return false, nil
		}
		for _, o := range offers {
			if res.MessageTag != o.tag || res.RemoteConsoleSessionID != o.local {
				continue
			}
			about = o
			switch {
			case res.RmcpStatusCode == types.RmcpStatusCodeIllegalParameter:
				return false, h.refused(power.KindUnsupported, res.RmcpStatusCode)
			case res.RmcpStatusCode != types.RmcpStatusCodeNoErrors:
				return false, h.refused(statusKind(res.RmcpStatusCode), res.RmcpStatusCode)
			case !agrees(res, o.suite):
				return false, &power.Error{Kind: power.KindUnsupported, Op: opOpen, Err: errNoSuite}
			}
			h.remote = res.ManagedSystemSessionID
			return true, nil
		}
		return false, nil
	})
	return about, err
}

// agrees reports whether the BMC took the algorithms of the suite and no others.
func agrees(res rmcpplus.OpenSessionResponse, suite types.CipherSuiteID) bool {
	auth, integrity, crypt, _ := types.GetCipherSuiteAlgorithms(suite)
	return res.ManagedSystemSessionID != 0 && res.AuthAlg == uint8(auth) &&
		res.IntegrityAlg == uint8(integrity) && res.CryptAlg == uint8(crypt)
}

// exchange12 sends RAKP message 1 and checks that the BMC knows the password
// (sections 13.20, 13.21).
func (h *handshake) exchange12(ctx context.Context) *power.Error {
	h.rakp1 = rmcpplus.RAKPMessage1{
		MessageTag: h.nextTag(), ManagedSystemSessionID: h.remote,
		NameOnlyLookup: true, RequestedMaximumPrivilegeLevel: h.role,
		UsernameLength: uint8(len(h.ep.User)), Username: []byte(h.ep.User),
	}
	rand.Read(h.rakp1.RemoteConsoleRandomNumber[:])
	packet := setupPacket(types.PayloadTypeRAKPMessage1, h.rakp1.Pack())
	return h.ask(ctx, packet, types.PayloadTypeRAKPMessage2, func(payload []byte) (bool, *power.Error) {
		res := rmcpplus.RAKPMessage2{AuthAlg: h.auth}
		if res.Unpack(payload) != nil || res.MessageTag != h.rakp1.MessageTag || res.RemoteConsoleSessionID != h.offer.local {
			return false, nil
		}
		if res.RmcpStatusCode != types.RmcpStatusCodeNoErrors {
			return false, h.refusedUser(res.RmcpStatusCode)
		}
		want, err := crypto.RAKP2AuthCode(h.auth, h.offer.local, h.remote, h.rakp1.RemoteConsoleRandomNumber[:],
			res.ManagedSystemRandomNumber[:], res.ManagedSystemGUID[:], h.rakp1.Role(), h.ep.User, h.userKey())
		if err != nil || !hmac.Equal(want, res.KeyExchangeAuthenticationCode) {
			return false, &power.Error{Kind: power.KindAuth, Op: opOpen, Refused: true, Err: errors.New("wrong password")}
		}
		h.rakp2, h.proved = res, true
		return true, nil
	})
}

// exchange34 proves the password to the BMC and has it prove the session's key
// (sections 13.22, 13.23). It returns the session.
func (h *handshake) exchange34(ctx context.Context) (*session, *power.Error) {
	s, icv, err := h.derive()
	if err != nil {
		return nil, &power.Error{Kind: power.KindUnsupported, Op: opOpen, Err: err}
	}
	code, _ := crypto.RAKP3AuthCode(h.auth, h.rakp2.ManagedSystemRandomNumber[:], h.offer.local, h.rakp1.Role(), h.ep.User, h.userKey())
	req := rmcpplus.RAKPMessage3{MessageTag: h.nextTag(), ManagedSystemSessionID: h.remote, KeyExchangeAuthenticationCode: code}
	packet := setupPacket(types.PayloadTypeRAKPMessage3, req.Pack())
	bad := h.ask(ctx, packet, types.PayloadTypeRAKPMessage4, func(payload []byte) (bool, *power.Error) {
		res := rmcpplus.RAKPMessage4{AuthAlg: h.auth}
		if res.Unpack(payload) != nil || res.MessageTag != req.MessageTag || res.MgmtConsoleSessionID != h.offer.local {
			return false, nil
		}
		if res.RmcpStatusCode != types.RmcpStatusCodeNoErrors {
			return false, h.refusedUser(res.RmcpStatusCode)
		}
		if !hmac.Equal(icv, res.IntegrityCheckValue) {
			return false, &power.Error{Kind: power.KindAuth, Op: opOpen, Refused: true, Err: h.wrongKG()}
		}
		return true, nil
	})
	if bad != nil {
		s.leave() // it may stand on the BMC's side
		return nil, bad
	}
	return s, nil
}

// derive computes the session's keys (sections 13.31, 13.32) and the check value
// that the BMC must show in RAKP message 4.
func (h *handshake) derive() (s *session, icv []byte, err error) {
	kg := h.userKey()
	if h.ep.KG != "" {
		key, err := power.ParseKG(h.ep.KG)
		if err != nil {
			return nil, nil, err
		}
		kg = crypto.PadPassword20(key)
	}
	console, bmc := h.rakp1.RemoteConsoleRandomNumber[:], h.rakp2.ManagedSystemRandomNumber[:]
	sik, k1, k2, err := crypto.DeriveSessionKeys(h.auth, console, bmc, h.rakp1.Role(), h.ep.User, kg)
	if err != nil {
		return nil, nil, err
	}
	icv, err = crypto.RAKP4ICV(h.auth, console, h.remote, h.rakp2.ManagedSystemGUID[:], sik)
	if err != nil {
		return nil, nil, err
	}
	c := codec{local: h.offer.local, remote: h.remote}
	_, integrity, _, _ := types.GetCipherSuiteAlgorithms(h.offer.suite)
	c.macLen, _ = crypto.IntegrityAuthCodeLen(integrity)
	if integrity == types.IntegrityAlg_HMAC_SHA256_128 {
		c.mac = hmac.New(sha256.New, k1)
	} else {
		c.mac = hmac.New(sha1.New, k1)
	}
	if c.block, err = aes.NewCipher(k2[:blockSize]); err != nil {
		return nil, nil, err
	}
	return &session{
		link: h.link, cfg: h.cfg, ep: h.ep, codec: c, suite: h.offer.suite, limit: h.role, level: types.PrivilegeLevelUser,
		trips: h.trips,
	}, icv, nil
}

// wrongKG is the cause where the BMC proved that it knows the password, and then made
// another session key of it.
func (h *handshake) wrongKG() error {
	if h.ep.KG == "" {
		return errors.New("the password is right, and the BMC has a key K_g besides, which this node lacks (--kg-file)")
	}
	return errors.New("the password is right, and the key K_g is not (--kg-file)")
}

// refuse tells the BMC that the session will not be opened, so that it need not
// keep half a session until its time-out. Nobody waits for an answer. A BMC that
// refused by itself knows already, and might count another failed login.
func (h *handshake) refuse(why *power.Error) {
	var said *StatusError
	if errors.As(why, &said) {
		return
	}
	if why.Kind == power.KindAuth {
		h.sendRefusal(h.remote, types.RmcpStatusCodeInvalidIntegrityCheckValue)
	} else {
		h.sendRefusal(h.remote, types.RmcpStatusCodeNoResToCreateSess) // it was given up
	}
}

func (h *handshake) sendRefusal(remote uint32, status types.RmcpStatusCode) {
	req := rmcpplus.RAKPMessage3{MessageTag: h.nextTag(), ManagedSystemSessionID: remote, RmcpStatusCode: status}
	h.link.send(setupPacket(types.PayloadTypeRAKPMessage3, req.Pack()))
}

// stray looks at a packet that is not waited for. A second answer to an offer
// that was repeated means that the BMC has begun a second session, which nobody
// is going to use.
func (h *handshake) stray(p []byte) {
	if res, is := probeAnswer(p, h.offers[0].tag&0x3F); is {
		h.alive, h.only15 = true, !speaks20(res)
		return
	}
	payload, err := setupPayload(p, types.PayloadTypeRmcpOpenSessionResponse)
	if err != nil || h.remote == 0 {
		return
	}
	var res rmcpplus.OpenSessionResponse
	if res.Unpack(payload) != nil || res.RmcpStatusCode != types.RmcpStatusCodeNoErrors || res.ManagedSystemSessionID == h.remote {
		return
	}
	for _, o := range h.offers {
		if o.tag == res.MessageTag && o.local == res.RemoteConsoleSessionID {
			h.sendRefusal(res.ManagedSystemSessionID, types.RmcpStatusCodeNoResToCreateSess)
		}
	}
}

// A judge looks at a payload: true ends the wait, an error is a refusal, neither
// means that the payload is none of the exchange's.
type judge func(payload []byte) (bool, *power.Error)

// ask sends a RAKP message until it is answered, twice at most: a BMC that
// ignores a repetition has forgotten the session or has opened it, and in both
// cases a new one is the way out (errGone).
func (h *handshake) ask(ctx context.Context, packet []byte, kind types.PayloadType, answer judge) *power.Error {
	wait := h.cfg.RAKPAnswer
	for range 2 {
		if err := h.link.send(packet); err != nil {
			return failed(ctx, opOpen, false, err)
		}
		bad := h.await(ctx, kind, wait, answer)
		if bad == nil || !errors.Is(bad, errUnanswered) || !time.Now().Before(h.deadline) {
			return bad
		}
		wait += wait / 2
	}
	return &power.Error{Kind: power.KindUnreachable, Op: opOpen, Lost: true, Err: errGone}
}

// await reads packets until answer takes one, has refused one and no better
// came in doubt's time, or the wait is over.
func (h *handshake) await(ctx context.Context, kind types.PayloadType, wait time.Duration, answer judge) *power.Error {
	until := earlier(time.Now().Add(wait), h.deadline)
	var refusal *power.Error
	for {
		p, err := h.link.receive(ctx, until)
		if err != nil {
			if refusal != nil && ended(ctx) == nil {
				return refusal
			}
			return failed(ctx, opOpen, false, err)
		}
		payload, err := setupPayload(p, kind)
		if err != nil {
			h.cfg.Log.Debug("packet ignored", "bmc", h.ep.Key(), "err", err)
			h.stray(p)
			continue
		}
		good, bad := answer(payload)
		h.alive = h.alive || good || bad != nil
		if good {
			return nil
		}
		if bad != nil && refusal == nil {
			refusal, until = bad, earlier(until, time.Now().Add(doubt))
		}
	}
}

// refused makes the error of a status. A session that the BMC no longer knows
// is opened again.
func (h *handshake) refused(kind power.ErrorKind, status types.RmcpStatusCode) *power.Error {
	if status == types.RmcpStatusCodeInvalidSessionID || status == types.RmcpStatusCodeInactiveSessionID {
		return &power.Error{Kind: power.KindUnreachable, Op: opOpen, Lost: true, Err: errGone}
	}
	return &power.Error{Kind: kind, Op: opOpen, Lost: kind == power.KindBusy, Err: &StatusError{status}}
}

// refusedUser makes the error of a status in an exchange that named the user. Once the
// BMC has proved that it knows the password, what it refuses is something else.
func (h *handshake) refusedUser(status types.RmcpStatusCode) *power.Error {
	e := h.refused(statusKind(status), status)
	e.Refused = e.Kind != power.KindBusy && e.Kind != power.KindUnreachable
	if h.proved && (e.Kind == power.KindAuth || e.Kind == power.KindPrivilege) {
		e.Kind = power.KindPrivilege
		e.Err = fmt.Errorf("the password is right, and the BMC refuses the user: %w; is the account enabled, not locked, and allowed to use "+
			"IPMI over LAN?", e.Err)
	}
	return e
}

// userKey is K_uid: the password, padded.
func (h *handshake) userKey() []byte { return crypto.PadPassword20([]byte(h.ep.Password)) }

func (h *handshake) nextTag() byte {
	h.tag++
	return h.tag
}

// randomID returns a session id, which is never 0.
func randomID() uint32 {
	var b [4]byte
	for {
		rand.Read(b[:])
		if id := binary.LittleEndian.Uint32(b[:]); id != 0 {
			return id
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
