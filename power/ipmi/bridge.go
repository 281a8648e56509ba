package ipmi

import (
	"fmt"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// A node of a multi-node chassis is a management controller on the IPMB behind the
// chassis' BMC. Commands to it travel within Send Message (sections 6.13, 22.7), as
// ipmitool's -t and -b have them do:
//
//	 console                          BMC                        target
//	    |  Send Message(command)       |                            |
//	    |----------------------------->|  command over the IPMB     |
//	    |<-----------------------------|--------------------------->|
//	    |  Send Message answered       |<---------------------------|
//	    |<-----------------------------|                            |
//	    |  the target's answer
//
// The target's answer comes as a message of its own, or within that to Send Message.
// Both carry the tag of the request. A BMC without such a target says so in the
// completion code.

// trackRequest has the BMC remember who asked, and pass the answer on (table 22-10).
const trackRequest = 0x40

// SetTarget implements power.Targeter: the session is the BMC's, whatever part is meant.
func (s *session) SetTarget(ep power.Endpoint) { s.ep.Target, s.ep.Channel = ep.Target, ep.Channel }

// bridged reports whether the command goes to the target: sessions are the BMC's own.
func (s *session) bridged(cmd types.Command) bool {
	return s.ep.Target != 0 && (cmd.NetFn == types.NetFnChassisRequest || cmd.NetFn == types.NetFnGroupExtensionRequest ||
		cmd.ID == types.CommandColdReset.ID && cmd.NetFn == types.NetFnAppRequest)
}

func appendBridged(dst []byte, target, channel byte, cmd types.Command, tag byte, data []byte) []byte {
	inner := appendMessage([]byte{trackRequest | channel}, target, addrBMC, cmd, tag, data)
	return appendRequest(dst, types.CommandSendMessage, tag, inner)
}

// answers reports whether r ends the wait for the answer to cmd. It puts the target's
// answer in the place of the message that it came in, and notes when the BMC has
// passed the command on.
func (s *session) answers(cmd types.Command, r *response, passedOn *bool) bool {
	if r.netFn == cmd.NetFn+1 && r.id == cmd.ID {
		return true
	}
	if !s.bridged(cmd) || r.netFn != types.CommandSendMessage.NetFn+1 || r.id != types.CommandSendMessage.ID {
		return false
	}
	if r.code != types.CodeOK {
		return true
	}
	*passedOn = true
	inner, err := parseResponse(r.data)
	if err != nil || inner.tag != r.tag || inner.netFn != cmd.NetFn+1 || inner.id != cmd.ID {
		return false
	}
	*r = inner
	return true
}

// targetError says which part of the BMC an error is about.
func (s *session) targetError(err error) error {
	return fmt.Errorf("target %#02x on channel %d (of the node's BMC address): %w", s.ep.Target, s.ep.Channel, err)
}
