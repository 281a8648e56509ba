package ipmi

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// CodeError is a completion code (IPMI v2.0 section 5.2) other than 0.
type CodeError struct {
	Code types.CompletionCode
	text string
}

// Error gives the code's text and number.
func (e *CodeError) Error() string {
	return fmt.Sprintf("the BMC says %q (completion code %#02x)", e.text, uint8(e.Code))
}

// StatusError is an RMCP+ status (section 13.24) other than 0, the answer of a
// BMC that refuses to open a session.
type StatusError struct{ Status types.RmcpStatusCode }

// Error gives the status' text and number.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the BMC says %q (RMCP+ status %#02x)", e.Status.String(), uint8(e.Status))
}

// leavesOpen reports whether an answer with the code leaves open that a command has
// acted: all but those by which section 5.2 (table 5-2) says that it was not executed,
// and, where it was to be passed on, those of section 22.7 by which it was not.
func leavesOpen(cmd types.Command, code types.CompletionCode) bool {
	if cmd == types.CommandSendMessage {
		switch code {
		case types.CodeSendMessageInvalidSessionHandle, types.CodeSendMessageLostArbitration, types.CodeSendMessageNAKOnWrite:
			return false
		}
	}
	switch code {
	case types.CodeNodeBusy, types.CodeInvalidCommand, types.CodeInvalidCommandForLUN, types.CodeOutOfSpace,
		types.CodeReservationCanceled, types.CodeRequestDataTruncated, types.CodeRequestDataLengthInvalid,
		types.CodeRequestDataLengthLimitExceeded, types.CodeParameterOutOfRange, types.CodeRequestedDataNotPresent,
		types.CodeRequestDataFieldInvalid, types.CodeIllegalCommand, types.CodeInsufficientPrivilege,
		types.CodeNotSupported, types.CodeSubFnDisabled:
		return false
	}
	return true
}

// codeKind sorts the completion code of an answer to cmd, of one that acts apart from
// what leavesOpen has sorted out.
func codeKind(cmd types.Command, code types.CompletionCode) power.ErrorKind {
	switch code {
	case types.CodeNodeBusy, types.CodeProcessTimeout, types.CodeOutOfSpace, types.CodeCannotExecuteDuplicatedRequest,
		types.CodeCannotProvideResponseFirmwareUpdate, types.CodeCannotProvideResponseBMCInitialize:
		return power.KindBusy
	case types.CodeInvalidCommand, types.CodeInvalidCommandForLUN, types.CodeSubFnDisabled:
		return power.KindUnsupported
	case types.CodeInsufficientPrivilege:
		return power.KindPrivilege
	}
	switch cmd {
	case types.CommandChassisControl:
		if code == types.CodeRequestDataFieldInvalid || code == types.CodeParameterOutOfRange {
			return power.KindUnsupported // it does not know this way of control
		}
	case types.CommandSetSystemBootOptions:
		if code == types.CodeParameterNotSupported || code == types.CodeRequestDataFieldInvalid || code == types.CodeParameterOutOfRange {
			return power.KindUnsupported
		}
	case types.CommandSetSessionPrivilegeLevel:
		if code == types.CodeSetSessionPrivilegeLevelLevelNotAvailable || code == types.CodeSetSessionPrivilegeLevelExceedsLimit {
			return power.KindPrivilege
		}
	}
	return power.KindRefused
}

// statusKind sorts an RMCP+ status.
func statusKind(status types.RmcpStatusCode) power.ErrorKind {
	switch status {
	case types.RmcpStatusCodeNoResToCreateSess, types.RmcpStatusCodeNoResToCreateSessAtRole:
		return power.KindBusy
	case types.RmcpStatusCodeUnauthorizedName, types.RmcpStatusCodeUnauthorizedGUID,
		types.RmcpStatusCodeInvalidIntegrityCheckValue, types.RmcpStatusCodeInvalidNameLength:
		return power.KindAuth
	case types.RmcpStatusCodeInvalidRole, types.RmcpStatusCodeUnauthorizedRoleOfPriLevel:
		return power.KindPrivilege
	case types.RmcpStatusCodeInvalidPayloadType, types.RmcpStatusCodeInvalidAuthAlg, types.RmcpStatusCodeInvalidIntegrityAlg,
		types.RmcpStatusCodeNoMatchingAuthPayload, types.RmcpStatusCodeNoMatchingIntegrityPayload,
		types.RmcpStatusCodeInvalidConfidentAlg, types.RmcpStatusCodeNoCipherSuiteMatch:
		return power.KindUnsupported
	}
	return power.KindRefused
}

// silence says for how long an answer was waited for.
type silence struct{ within time.Duration }

// Error says it.
func (s silence) Error() string { return "no answer within " + seconds(s.within) }

// Is has a silence count as unanswered.
func (s silence) Is(target error) bool { return target == errUnanswered }

// late is context.DeadlineExceeded in words for people.
type late struct{}

// Error says it.
func (late) Error() string { return "no answer in the time that it had" }

// Unwrap returns context.DeadlineExceeded.
func (late) Unwrap() error { return context.DeadlineExceeded }

// failed makes the error of something that ended without an answer: cancelled
// when ctx has ended, unreachable otherwise.
func failed(ctx context.Context, op string, sent bool, err error) *power.Error {
	if cause := ended(ctx); cause != nil {
		return &power.Error{Kind: power.KindCanceled, Op: op, Sent: sent, Err: cause}
	}
	return &power.Error{Kind: power.KindUnreachable, Op: op, Sent: sent, Lost: true, Err: plainly(err)}
}

// plainly says what an error of the network means, without the addresses and names of
// system calls around it.
func plainly(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens on its port (%w): is IPMI over LAN switched on?", syscall.ECONNREFUSED)
	case errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Errorf("there is no way to its address (%w)", syscall.EHOSTUNREACH)
	case errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("there is no way to its address (%w)", syscall.ENETUNREACH)
	}
	return err
}

// ended returns why ctx has ended, nil when it has not. A deadline that is over
// counts even when the context has not noticed yet.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	if deadline, ok := ctx.Deadline(); cause == nil && ok && !time.Now().Before(deadline) {
		cause = context.DeadlineExceeded
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return late{}
	}
	return cause
}
