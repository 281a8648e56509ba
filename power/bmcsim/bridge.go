package bmcsim

import (
	"context"
	"time"

	"github.com/bougou/go-ipmi/pkg/handlers"
)

// codeNoTarget says that nobody answers on the IPMB at that address (table 22-9).
const codeNoTarget = 0x83

// channelMask and the bits for tracking of the first byte of Send Message.
const (
	channelMask  = 0x0f
	trackRequest = 0x40
)

// Behind has b pass commands on to another BMC of the farm, which then stands for the
// management controller at that address of b's IPMB: a node of a chassis. nil takes it
// away. The other must not pass commands on to b.
func (b *BMC) Behind(target uint8, other *BMC) {
	b.set(func() {
		if b.behind == nil {
			b.behind = map[uint8]*BMC{}
		}
		b.behind[target] = other
	})
}

// EmbedAnswers has the answers of those behind b come within the answer to Send Message,
// as some BMCs do, in place of a message of their own.
func (b *BMC) EmbedAnswers(on bool) { b.set(func() { b.embeds = on }) }

// bridge is Send Message (section 22.7): the command within it goes to the target.
func (b *BMC) bridge(now time.Time, from peer, s *session, req request, hctx *handlers.HandlerContext) {
	say := func(msg []byte) {
		if pkt, err := s.seal(msg, req.encrypted); err == nil {
			b.reply(now, from, pkt, nil)
		}
	}
	if len(req.data) < 8 {
		say(req.response(codeLength, nil))
		return
	}
	target := req.data[1]
	other := b.behind[target]
	inner, ok := parseRequestTo(target, req.data[1:])
	if other == nil || !ok || req.data[0]&channelMask != 0 || req.data[0]&^channelMask != trackRequest {
		say(req.response(codeNoTarget, nil))
		return
	}
	answer := other.passedOn(now, from, target, inner, hctx)
	if b.embeds && answer != nil {
		say(req.response(codeOK, answer))
		return
	}
	say(req.response(codeOK, nil))
	if answer != nil {
		say(answer)
	}
}

// passedOn executes a command that came over the IPMB and returns its answer, nil for
// none. The session is that of the BMC it came by.
func (b *BMC) passedOn(now time.Time, from peer, target byte, req request, hctx *handlers.HandlerContext) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.agenda.run(now)
	if b.faults.mute {
		return nil
	}
	c := &call{b: b, now: now, from: "ipmb@" + from.String()}
	on := *hctx
	on.BMC = b.lib
	data, code, _ := registry.Dispatch(context.WithValue(context.Background(), callKey{}, c), &on, req.netFn, req.cmd, req.data)
	b.agenda.run(now)
	if c.lose {
		return nil
	}
	if c.then != nil {
		b.agenda.add(now, kindBMC, c.then)
	}
	return req.responseOf(target, byte(code), data)
}
