package ipmi

import (
	"context"
	"fmt"
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

// codeKind sorts the completion code of an answer to cmd.
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

// failed makes the error of something that ended without an answer: cancelled
// when ctx has ended, unreachable otherwise.
func failed(ctx context.Context, op string, sent bool, err error) *power.Error {
	if cause := ended(ctx); cause != nil {
		return &power.Error{Kind: power.KindCanceled, Op: op, Sent: sent, Err: cause}
	}
	return &power.Error{Kind: power.KindUnreachable, Op: op, Sent: sent, Lost: true, Err: err}
}

// ended returns why ctx has ended, nil when it has not. A deadline that is over
// counts even when the context has not noticed yet.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
