package bmcsim

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

const (
	netFnChassis = 0x00
	netFnApp     = 0x06
	netFnGroup   = 0x2c

	cmdColdReset    = 0x02
	cmdSendMessage  = 0x34
	cmdCloseSession = 0x3c
)

// registry holds the commands of all BMCs: go-ipmi's for the BMC itself and its
// sessions, ours for what concerns the node. It is not changed after it is made.
var registry = newRegistry()

func newRegistry() *handlers.Registry {
	r := handlers.NewRegistry()
	handlers.RegisterAppHandlers(r)
	handlers.RegisterSessionHandlers(r)
	handlers.RegisterChassisHandlers(r)
	for cmd, h := range map[types.Command]func(*call, *handlers.HandlerContext, []byte) ([]byte, byte){
		types.CommandGetChassisStatus:       getStatus,
		types.CommandChassisControl:         chassisControl,
		types.CommandChassisIdentify:        identify,
		types.CommandSetSystemBootOptions:   setBootOption,
		types.CommandGetSystemBootOptions:   getBootOption,
		types.CommandColdReset:              coldReset,
		types.CommandWarmReset:              coldReset,
		types.CommandGetSystemRestartCause:  restartCause,
		types.CommandGetSystemGUID:          systemGUID,
		types.CommandGetDCMIPowerReading:    powerReading,
		types.CommandGetDCMIPowerLimit:      getLimit,
		types.CommandSetDCMIPowerLimit:      setLimit,
		types.CommandActivateDCMIPowerLimit: activateLimit,
		types.CommandGetSELTime:             selTime,
	} {
		r.RegisterFunc(cmd, func(ctx context.Context, hctx *handlers.HandlerContext, req []byte) ([]byte, types.CompletionCode, error) {
			data, code := h(ctx.Value(callKey{}).(*call), hctx, req)
			return data, types.CompletionCode(code), nil
		})
	}
	return r
}

// getStatus is Get Chassis Status (section 28.2).
func getStatus(c *call, _ *handlers.HandlerContext, _ []byte) ([]byte, byte) {
	c.b.counts.Reads++
	const previous, identify = 0x00, 0x40
	status := byte(0x40) // power restore policy: as it was
	if c.b.node.shown {
		status |= 0x01
	}
	return []byte{status, previous, identify}, codeOK
}

// chassisControl is Chassis Control (section 28.3).
func chassisControl(c *call, _ *handlers.HandlerContext, req []byte) ([]byte, byte) {
	if len(req) != 1 {
		return nil, codeLength
	}
	action := req[0] & 0x0f
	word := "chassis-control-unknown"
	if int(action) < len(chassisWords) {
		word = chassisWords[action]
	}
	return nil, c.command(word, func() byte { return c.b.control(c.now, action) })
}

// coldReset is Cold Reset and Warm Reset of the BMC (sections 20.2 and 20.3).
func coldReset(c *call, _ *handlers.HandlerContext, _ []byte) ([]byte, byte) {
	return nil, c.command(string(power.ResetBMC), func() byte {
		c.then = func() { c.b.restart(time.Now(), c.b.faults.bootTime) }
		return codeOK
	})
}

// command carries out and records a command, unless it must be refused. It is in
// the log before it has any effect that others could see.
func (c *call) command(word string, do func() byte) byte {
	b := c.b
	e := Entry{Time: c.now, Command: word, Before: stateOf(b.node.on), Source: c.from}
	e.ResetType = c.detail
	switch {
	case b.faults.loseRequests > 0: // it never came
		b.faults.loseRequests--
		c.lose = true
		return codeOK
	case c.refuse != nil && !c.refuse.Executed:
		e.Code = c.refuse.code()
	case b.faults.failNext > 0:
		b.faults.failNext--
		e.Code = b.faults.failCode
	default:
		e.Code = do()
		if b.faults.loseNext > 0 {
			b.faults.loseNext--
			c.lose = true
		}
	}
	e.After = stateOf(b.node.target)
	b.record(e)
	b.agenda.run(c.now)
	return e.Code
}

// identify is Chassis Identify (section 28.5): accepted, nothing blinks.
func identify(*call, *handlers.HandlerContext, []byte) ([]byte, byte) { return nil, codeOK }

// restartCause is Get System Restart Cause (section 28.11): by chassis control.
func restartCause(*call, *handlers.HandlerContext, []byte) ([]byte, byte) {
	return []byte{0x01, lanChannel}, codeOK
}

// systemGUID is Get System GUID (section 22.14): the one that RAKP uses.
func systemGUID(c *call, _ *handlers.HandlerContext, _ []byte) ([]byte, byte) {
	return append([]byte(nil), c.b.lib.GUID[:]...), codeOK
}

// selTime is Get SEL Time (section 31.10).
func selTime(c *call, _ *handlers.HandlerContext, _ []byte) ([]byte, byte) {
	if c.b.faults.noClock {
		return nil, byte(types.CodeInvalidCommand)
	}
	return binary.LittleEndian.AppendUint32(nil, uint32(c.now.Add(c.b.faults.skew).Unix())), codeOK
}

// Boot option parameters (table 28-14).
const (
	bootSetInProgress  = 0
	bootValidClearing  = 3
	bootInfoAck        = 4
	bootFlags          = 5
	bootInfoAckLen     = 2
	bootFlagsLen       = 5
	bootParamRevision  = 0x01
	keepAfterTimeOut   = 0x08 // of bootValidClearing
	parameterSelection = 0x7f
)

// setBootOption is Set System Boot Options (section 28.12).
func setBootOption(c *call, hctx *handlers.HandlerContext, req []byte) ([]byte, byte) {
	if hctx.Session == nil || hctx.Session.PrivilegeLevel < bmc.PrivilegeLevelOperator {
		return nil, codePrivilege
	}
	if len(req) < 1 {
		return nil, codeTruncated
	}
	n := &c.b.node
	switch param, data := req[0]&parameterSelection, req[1:]; {
	case len(data) == 0 && param <= bootFlags:
		return nil, codeOK // only the parameter's valid bit
	case param == bootSetInProgress && len(data) == 1, param == bootInfoAck && len(data) == bootInfoAckLen:
		return nil, codeOK
	case param == bootValidClearing && len(data) == 1:
		n.flagsKeep = data[0]&keepAfterTimeOut != 0
		return nil, codeOK
	case param == bootFlags && len(data) == bootFlagsLen:
		n.flags = [bootFlagsLen]byte(data)
		n.flagsAt, n.flagsKept = c.now, false
		dev := n.bootDevice()
		if dev == power.BootNone {
			dev = "none"
		}
		c.note("set-boot " + string(dev))
		return nil, codeOK
	case param == bootFlags, param == bootValidClearing, param == bootInfoAck, param == bootSetInProgress:
		return nil, codeLength
	}
	return nil, codeParam
}

// getBootOption is Get System Boot Options (section 28.13).
func getBootOption(c *call, _ *handlers.HandlerContext, req []byte) ([]byte, byte) {
	if len(req) < 1 {
		return nil, codeTruncated
	}
	param := req[0] & parameterSelection
	resp := []byte{bootParamRevision, param}
	switch param {
	case bootSetInProgress:
		return append(resp, 0), codeOK
	case bootValidClearing:
		return append(resp, 0), codeOK
	case bootInfoAck:
		return append(resp, 0, 0), codeOK
	case bootFlags:
		return append(resp, c.b.node.flags[:]...), codeOK
	}
	return nil, codeParam
}

// Privileges of the account (section 6.8).
const (
	levelUser          = 2
	levelOperator      = 3
	levelAdministrator = 4
)
