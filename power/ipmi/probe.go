package ipmi

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// opProbe names a probe in errors.
const opProbe = "probe"

// A request outside of any session travels in the packet of IPMI v1.5 (section
// 13.6, authentication type none), which BMCs of all ages understand:
//
//	0        4    5          9          13    14
//	+--------+----+----------+----------+-----+---------+
//	|06 00 FF| 00 | sequence | session  |len  | message |
//	|07      |    | 0        | 0        |     |         |
//	+--------+----+----------+----------+-----+---------+
const (
	offPlainLength  = 13
	offPlainPayload = 14
)

// Probe asks the BMC of the endpoint whether it is there: Get Channel
// Authentication Capabilities (section 22.13), the one question that every BMC
// answers to everybody. User and password stay here and no session is opened, so
// it costs the BMC no slot and cannot lock an account.
//
// It returns nil when the BMC answered, whatever it said. The question is asked
// once more at half time; without an answer within Config.ProbeTimeout the error is
// KindUnreachable. The answer is not authenticated: it says that it is worth
// trying, no more.
func (d *Dialer) Probe(ctx context.Context, ep power.Endpoint) error {
	if err := checkEndpoint(ep); err != nil {
		return err
	}
	if ended(ctx) != nil {
		return failed(ctx, opProbe, false, nil)
	}
	now := time.Now()
	until := now.Add(d.cfg.ProbeTimeout)
	resolve, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	l, err := d.open(resolve, ep)
	if err != nil {
		return failed(ctx, opProbe, false, err)
	}
	defer l.close()
	defer l.watch(ctx)()
	var tag [1]byte
	rand.Read(tag[:])
	q := probeRequest(tag[0] & 0x3F)
	if err = l.send(q); err != nil {
		return failed(ctx, opProbe, false, err)
	}
	err = awaitPlain(ctx, l, now.Add(d.cfg.ProbeTimeout/2), tag[0]&0x3F)
	if errors.Is(err, errUnanswered) {
		if err = l.send(q); err == nil {
			err = awaitPlain(ctx, l, until, tag[0]&0x3F)
		}
	}
	if errors.Is(err, errUnanswered) {
		err = silence{d.cfg.ProbeTimeout}
	}
	if err != nil {
		return failed(ctx, opProbe, false, err)
	}
	return nil
}

// The channel number that means the one asked over, and the bit that asks for the
// data of IPMI v2.0 (table 22-15).
const (
	thisChannel = 0x0E
	extended    = 0x80
)

// probeRequest is Get Channel Authentication Capabilities under the tag.
func probeRequest(tag byte) []byte {
	return plainRequest(types.CommandGetChannelAuthCapabilities, tag, []byte{thisChannel | extended, byte(lowestRole)})
}

// plainRequest is a command outside of any session.
func plainRequest(cmd types.Command, tag byte, data []byte) []byte {
	p := make([]byte, offPlainPayload, 2*offPlainPayload)
	copy(p, rmcpHeader[:])
	p = appendRequest(p, cmd, tag, data)
	p[offPlainLength] = byte(len(p) - offPlainPayload)
	return p
}

// awaitPlain reads packets until one answers the probe.
func awaitPlain(ctx context.Context, l *link, until time.Time, tag byte) error {
	for {
		p, err := l.receive(ctx, until)
		if err != nil {
			return err
		}
		if _, is := probeAnswer(p, tag); is {
			return nil
		}
	}
}

// probeAnswer reads the packet as the answer to the probe of this tag. Nothing but its
// checksums protects it.
func probeAnswer(p []byte, tag byte) (res response, is bool) {
	if len(p) < offPlainPayload || p[0] != types.RmcpVersion || p[3] != types.MessageClassIPMI || p[offAuthType] != 0 {
		return response{}, false
	}
	end := offPlainPayload + int(p[offPlainLength])
	if end > len(p) || !checksumsFit(p[offPlainPayload:end]) {
		return response{}, false
	}
	cmd := types.CommandGetChannelAuthCapabilities
	res, err := parseResponse(p[offPlainPayload:end])
	return res, err == nil && res.netFn == cmd.NetFn+1 && res.id == cmd.ID && res.tag == tag
}

// speaks20 reports whether the answer to a probe says that the BMC opens sessions of
// IPMI v2.0 (table 22-15). One that says nothing about it may.
func speaks20(res response) bool {
	const v20 = 0x02
	return res.code != types.CodeOK || len(res.data) < 4 || res.data[1]&extended != 0 && res.data[3]&v20 != 0
}
