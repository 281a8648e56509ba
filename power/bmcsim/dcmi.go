package bmcsim

import (
	"encoding/binary"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/handlers"
)

// groupDCMI is the first byte of each request and answer of DCMI (DCMI v1.5 section 6).
const groupDCMI = 0xdc

// Completion codes of DCMI (section 6.6).
const (
	codeNoLimit    = 0x80 // no limit is active
	codeLimitRange = 0x84
)

// limitExceptions are what happens at a limit, by their number (section 6.6.2).
var limitExceptions = map[byte]string{0x00: "NoAction", 0x01: "HardPowerOff", 0x11: "LogEventOnly"}

// What is told of the sampling, in milliseconds.
const samplingPeriod = 60_000

// powerReading is Get Power Reading (section 6.6.1).
func powerReading(c *call, _ *handlers.HandlerContext, req []byte) ([]byte, byte) {
	if len(req) != 4 || req[0] != groupDCMI {
		return nil, codeLength
	}
	if req[1] != 1 { // system power statistics
		return nil, codeRange
	}
	watts := uint16(c.b.watts())
	out := []byte{groupDCMI}
	for _, w := range []uint16{watts, watts - powerBelow, watts + powerAbove, watts} {
		out = binary.LittleEndian.AppendUint16(out, w)
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(c.now.Unix()))
	out = binary.LittleEndian.AppendUint32(out, samplingPeriod)
	return append(out, 0x40), codeOK // readings are being taken
}

// getLimit is Get Power Limit (section 6.6.2).
func getLimit(c *call, _ *handlers.HandlerContext, req []byte) ([]byte, byte) {
	if len(req) != 3 || req[0] != groupDCMI {
		return nil, codeLength
	}
	n := &c.b.node
	code := byte(codeOK)
	if n.limit == 0 {
		code = codeNoLimit
	}
	out := []byte{groupDCMI, 0, 0, 0}
	for number, name := range limitExceptions {
		if name == n.limitException {
			out[3] = number
		}
	}
	out = binary.LittleEndian.AppendUint16(out, uint16(n.limitAsked))
	out = binary.LittleEndian.AppendUint32(out, 1000) // the correction may take so many milliseconds
	return append(out, 0, 0, 1, 0), code              // reserved, and the period of statistics in seconds
}

// setLimit is Set Power Limit (section 6.6.3): it holds from its activation on, at once
// when a limit is active.
func setLimit(c *call, hctx *handlers.HandlerContext, req []byte) ([]byte, byte) {
	if len(req) != 15 || req[0] != groupDCMI {
		return nil, codeLength
	}
	if hctx.Session == nil || hctx.Session.PrivilegeLevel < bmc.PrivilegeLevelOperator {
		return nil, codePrivilege
	}
	exception, ok := limitExceptions[req[4]]
	watts := int(binary.LittleEndian.Uint16(req[5:7]))
	switch {
	case !ok:
		return nil, codeRange
	case watts < limitMin || watts > limitMax:
		return nil, codeLimitRange
	}
	return []byte{groupDCMI}, c.command(fmt.Sprintf("set-limit %dW", watts), func() byte {
		n := &c.b.node
		n.limitAsked, n.limitException = watts, exception
		if n.limit > 0 {
			n.limit = watts
		}
		return codeOK
	})
}

// activateLimit is Activate/Deactivate Power Limit (section 6.6.4).
func activateLimit(c *call, hctx *handlers.HandlerContext, req []byte) ([]byte, byte) {
	if len(req) != 4 || req[0] != groupDCMI {
		return nil, codeLength
	}
	if hctx.Session == nil || hctx.Session.PrivilegeLevel < bmc.PrivilegeLevelOperator {
		return nil, codePrivilege
	}
	n := &c.b.node
	word, watts := "set-limit none", 0
	if req[1] != 0 {
		word, watts = "activate-limit", n.limitAsked
		if watts == 0 {
			return nil, codeNoLimit
		}
	}
	return []byte{groupDCMI}, c.command(word, func() byte { n.limit = watts; return codeOK })
}

// note records a command that does not concern the power.
func (c *call) note(word string) {
	c.b.record(Entry{Time: c.now, Command: word, Before: stateOf(c.b.node.on), After: stateOf(c.b.node.target), Source: c.from})
}
