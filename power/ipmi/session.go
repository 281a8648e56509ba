package ipmi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bougou/go-ipmi/pkg/command/app"
	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// session is an open session. It has no goroutine: it sends and reads only while
// one of its methods runs, and only one may run at a time.
type session struct {
	link   *link
	cfg    Config
	ep     power.Endpoint
	codec  codec
	suite  types.CipherSuiteID
	limit  types.PrivilegeLevel // the highest the session may be raised to
	level  types.PrivilegeLevel // its current level
	lost   error                // why it is of no more use
	closed bool

	dialer  *Dialer // that opened it; nil: it cannot be opened again
	opened  time.Time
	guessed bool // the limit is what the user was given before, or something was refused for it

	sequence uint32 // of the last packet sent; each packet has its own
	tag      byte   // of the last message sent, 6 bits
	seen     window
	trips    trips
	msg, out []byte // scratch
}

// patience says how often and how long a command is asked.
type patience struct {
	once  bool          // sent once, however long the answer takes
	first time.Duration // before the first repetition
	total time.Duration
}

// reading is the patience with commands whose repetition changes nothing.
func (s *session) reading() patience {
	return patience{first: s.trips.wait(s.cfg.FirstAnswer), total: s.cfg.ReadTimeout}
}

// acting is the patience with commands that must not arrive twice.
func (s *session) acting() patience {
	return patience{once: true, total: s.cfg.Timeout}
}

var (
	errClosed   = errors.New("the session is closed")
	errSequence = errors.New("the session's sequence numbers are used up")
)

// call sends a command and returns its answer when the completion code is 0.
// Sent in its error holds for this command; callers that only prepare clear it.
func (s *session) call(ctx context.Context, op string, cmd types.Command, data []byte, p patience) (response, *power.Error) {
	res, err := s.roundTrip(ctx, op, cmd, data, p)
	if err != nil {
		return response{}, err
	}
	if res.code == types.CodeOK {
		return res, nil
	}
	e := s.refused(op, &cmd, res)
	e.Sent = true
	if p.once && leavesOpen(cmd, res.code) {
		e.Kind = power.KindUncertain
	}
	return response{}, e
}

// refused is the error of an answer with another completion code than 0. cmd becomes the
// command that has answered: Send Message, where that did not pass it on.
func (s *session) refused(op string, cmd *types.Command, res response) *power.Error {
	passedOn := s.bridged(*cmd) && res.id == types.CommandSendMessage.ID
	if passedOn {
		*cmd = types.CommandSendMessage
	}
	e := &power.Error{Kind: codeKind(*cmd, res.code), Op: op, Err: &CodeError{res.code, types.StrCC(*cmd, uint8(res.code))}}
	if passedOn {
		e.Err = s.targetError(e.Err)
	}
	return e
}

// roundTrip sends a command, again and again if it may, each time under a new
// sequence number and a new tag, until any of them is answered.
func (s *session) roundTrip(ctx context.Context, op string, cmd types.Command, data []byte, p patience) (response, *power.Error) {
	if s.lost != nil {
		return response{}, &power.Error{Kind: power.KindUnreachable, Op: op, Lost: true, Err: s.lost}
	}
	now := time.Now()
	deadline, wait, firstTag := now.Add(p.total), p.first, (s.tag+1)&0x3F
	passedOn := false // to the target, which is silent
	if p.once {
		wait = p.total
	}
	for sends := byte(1); ; sends++ {
		if ended(ctx) != nil {
			return response{}, failed(ctx, op, sends > 1, nil)
		}
		if err := s.send(cmd, data); err != nil {
			return response{}, s.lose(failed(ctx, op, sends > 1, err))
		}
		res, err := s.answer(ctx, earlier(time.Now().Add(wait), deadline), func(r *response) bool {
			return (r.tag-firstTag)&0x3F < sends && s.answers(cmd, r, &passedOn)
		})
		switch {
		case err == nil:
			if sends == 1 && !p.once {
				s.trips.took(time.Since(now))
			}
			return res, nil
		case ended(ctx) == nil && errors.Is(err, errUnanswered) && !p.once && time.Now().Before(deadline):
			wait += wait / 2
		case passedOn && !p.once && errors.Is(err, errUnanswered):
			return response{}, &power.Error{Kind: power.KindRefused, Op: op, Sent: true, Err: s.targetError(err)}
		default:
			if errors.Is(err, errUnanswered) {
				err = silence{p.total}
			}
			return response{}, s.lose(failed(ctx, op, true, err))
		}
	}
}

// lose notes that the session is of no more use, if the error says so.
func (s *session) lose(e *power.Error) *power.Error {
	if e.Lost && s.lost == nil {
		s.lost = e.Err
		if s.dialer != nil {
			s.dialer.Forget(s.ep) // the BMC may be another when it is back
		}
	}
	return e
}

// send seals and writes one command.
func (s *session) send(cmd types.Command, data []byte) error {
	if s.sequence+1 == 0 {
		return errSequence
	}
	s.sequence++
	s.tag = (s.tag + 1) & 0x3F
	if s.bridged(cmd) {
		s.msg = appendBridged(s.msg[:0], s.ep.Target, s.ep.Channel, cmd, s.tag, data)
	} else {
		s.msg = appendRequest(s.msg[:0], cmd, s.tag, data)
	}
	s.out = s.codec.seal(s.out[:0], s.sequence, s.msg)
	return s.link.send(s.out)
}

// answer reads packets until one is genuine, new and wanted.
func (s *session) answer(ctx context.Context, until time.Time, wanted func(*response) bool) (response, error) {
	for {
		p, err := s.link.receive(ctx, until)
		if err != nil {
			return response{}, err
		}
		res, err := s.open(p)
		if err == nil && !wanted(&res) {
			err = errOther
		}
		if err == nil {
			return res, nil
		}
		s.cfg.Log.Debug("packet ignored", "err", err)
	}
}

// open authenticates, decrypts and reads a packet, in this order.
func (s *session) open(p []byte) (response, error) {
	sequence, msg, err := s.codec.open(p)
	if err != nil {
		return response{}, err
	}
	if !s.seen.take(sequence) {
		return response{}, errReplay
	}
	return parseResponse(msg)
}

// raise brings the session to the privilege that a command needs. One that the BMC
// refuses is asked for once more in a new session, unless this one was just opened and
// refuses for the first time: the user may have been given it since.
func (s *session) raise(ctx context.Context, op string, level types.PrivilegeLevel) *power.Error {
	err := s.rise(ctx, op, level)
	if err == nil || err.Kind != power.KindPrivilege || levels[s.ep.Level] < level {
		return err
	}
	if s.oldRights() {
		if err := s.reopen(ctx, op); err != nil {
			return err
		}
		err = s.rise(ctx, op, level)
	}
	if err != nil && err.Kind == power.KindPrivilege {
		s.guessed = true // it may be granted before the next command
	}
	return err
}

// justOpened is how old a session may be whose BMC need not be asked for the user's
// rights once more.
const justOpened = time.Second

// oldRights reports whether the user may have other rights by now than the session
// knows.
func (s *session) oldRights() bool {
	return s.dialer != nil && s.lost == nil && (s.guessed || time.Since(s.opened) >= justOpened)
}

// reopen ends the session and opens another one over the same link, asking for the
// highest privilege again.
func (s *session) reopen(ctx context.Context, op string) *power.Error {
	s.cfg.Log.Debug("opening the session again: the user may have other rights now", "bmc", s.ep.Key())
	s.dialer.forgetRole(s.ep)
	_ = s.goodbye()
	fresh, err := s.dialer.handshake(ctx, s.link, s.ep, time.Now().Add(s.cfg.Timeout))
	if err != nil {
		err.Op, err.Lost = op, true
		s.lost = err.Err
		return err
	}
	*s = *fresh
	return nil
}

// rise is raise within the session (section 22.18).
func (s *session) rise(ctx context.Context, op string, level types.PrivilegeLevel) *power.Error {
	if s.level >= level && s.lost == nil {
		return nil
	}
	if s.limit < level {
		return &power.Error{Kind: power.KindPrivilege, Op: op, Err: s.tooLow(level)}
	}
	req := app.SetSessionPrivilegeLevelRequest{PrivilegeLevel: level}
	if _, err := s.call(ctx, op, req.Command(), req.Pack(), s.reading()); err != nil {
		err.Sent = false
		return err
	}
	s.level = level
	return nil
}

// tooLow names what keeps the session from the privilege that a command needs.
func (s *session) tooLow(level types.PrivilegeLevel) error {
	if levels[s.ep.Level] < level {
		return fmt.Errorf("it needs a higher level than level=%s, which the node's BMC address asks for", s.ep.Level)
	}
	return errors.New("the user has no right to it")
}

// leave tells the BMC that the session is over, and waits for nothing.
func (s *session) leave() {
	req := app.CloseSessionRequest{SessionID: s.codec.remote}
	s.send(req.Command(), req.Pack())
}

// Close implements power.Driver. It waits for the BMC's answer, but not for that
// of a BMC that was silent already.
func (s *session) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	defer s.link.close()
	err := s.goodbye()
	s.lost = errClosed
	return err
}

// goodbye tells the BMC that the session is over and waits for its answer, unless it
// was silent already.
func (s *session) goodbye() error {
	if s.lost != nil {
		s.leave()
		return nil
	}
	req := app.CloseSessionRequest{SessionID: s.codec.remote}
	p := patience{first: s.cfg.CloseTimeout, total: s.cfg.CloseTimeout}
	if _, err := s.call(context.Background(), "close session", req.Command(), req.Pack(), p); err != nil {
		err.Sent = false
		return err
	}
	return nil
}
