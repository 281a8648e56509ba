package power

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Command is one thing a BMC can be told. Actions are made of commands.
type Command string

// The commands. Repeating PowerOn, PowerOff, SoftOff or SetLimit leads to the same final
// state; HardReset, PulseDiag and ResetBMC act again each time they arrive.
const (
	PowerOn      Command = "power-on"
	PowerOff     Command = "power-off"
	PressSoftOff Command = "soft-off"
	HardReset    Command = "hard-reset"
	PulseDiag    Command = "pulse-diag"
	ResetBMC     Command = "reset-bmc"
	SetLimit     Command = "set-limit" // by Meter, and not by Driver.Do
)

// Repeatable reports whether sending the command a second time is harmless.
func (c Command) Repeatable() bool {
	return c == PowerOn || c == PowerOff || c == PressSoftOff || c == SetLimit
}

// BootDevice is where a node boots from next time, once.
type BootDevice string

// The boot devices. The empty BootDevice leaves the node's own order alone.
const (
	BootNone  BootDevice = ""
	BootPXE   BootDevice = "pxe"
	BootDisk  BootDevice = "disk"
	BootCDROM BootDevice = "cdrom"
	BootBIOS  BootDevice = "bios"
)

// BootDevices lists what may be asked for.
var BootDevices = []BootDevice{BootPXE, BootDisk, BootCDROM, BootBIOS}

// Secret is text that never shows itself in logs, JSON or formatted output.
// Convert it with string(s) where it must be used.
type Secret string

const redacted = "redacted"

// String returns "redacted", or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString is String, so that %#v does not leak either.
func (s Secret) GoString() string { return s.String() }

// LogValue keeps the secret out of structured logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON writes "redacted". Types that must carry a secret over a trusted
// wire or to disk convert it to a string field on purpose.
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + s.String() + `"`), nil }

// Dialer opens a connection to a BMC. It returns an *Error when that fails.
type Dialer func(ctx context.Context, ep Endpoint) (Driver, error)

// Driver is a connection to one BMC. It is owned by one goroutine at a time and
// is not safe for two. Every error it returns is, or wraps, an *Error.
type Driver interface {
	// State reads the chassis power. It may be repeated freely; the driver
	// repeats it by itself when answers are lost.
	State(ctx context.Context) (State, error)
	// Do sends cmd once and waits for its answer. It never sends it again: when
	// the answer does not come, the error says whether the command may have left
	// (Error.Sent), and the caller decides. Cancelling ctx before the command
	// leaves prevents it from leaving.
	Do(ctx context.Context, cmd Command) error
	// SetBoot sets the boot device for the next boot only. It may be repeated.
	SetBoot(ctx context.Context, dev BootDevice) error
	// Close ends the session, telling the BMC so where the protocol can. It may
	// be called twice and takes at most about a second.
	Close() error
}

// Targeter is a Driver whose session serves all parts of its BMC.
type Targeter interface {
	// SetTarget has what follows go to the part that the endpoint means; all else in it is
	// as it was dialled.
	SetTarget(ep Endpoint)
}

// Keeper is a Driver whose session is kept for another time than others: BMCs that have few
// slots for sessions, and are slow to open them, keep theirs for longer.
type Keeper interface {
	// KeepFor is how long the session may be idle, and how old it may be.
	KeepFor() (idle, age time.Duration)
}

// Changer is a Driver that can tell that the power is about to change: State gives what it
// was.
type Changer interface {
	// Changing reports whether that was so at the last State.
	Changing() bool
}

// Finder is a Driver of an auto endpoint.
type Finder interface {
	// Found is the endpoint by the protocol that the BMC speaks, and why by that one.
	Found() (ep Endpoint, why string)
}

// Notes keep what drivers must know after a crash, by the Key of a BMC.
type Notes interface {
	// Note is what was kept last; nil: nothing.
	Note(bmc string) []byte
	// Keep returns when the note is durable; nil: there is nothing to keep any more.
	Keep(bmc string, note []byte) error
}

// ErrorKind is what callers act on.
type ErrorKind string

// The kinds.
const (
	KindAuth        ErrorKind = "auth-failed" // wrong user, wrong password, wrong key: do not try again
	KindPrivilege   ErrorKind = "privilege"   // the user may not do this: do not try again
	KindUnreachable ErrorKind = "unreachable" // no answer in time: may be tried again with a new connection
	KindRefused     ErrorKind = "refused"     // the BMC answered with an error
	KindBusy        ErrorKind = "busy"        // it answers, and is out of sessions, starting, or says "try later"
	KindUncertain   ErrorKind = "uncertain"   // the answer to a command leaves open whether it acted
	KindUnsupported ErrorKind = "unsupported" // the BMC or the driver cannot do this
	KindCanceled    ErrorKind = "canceled"    // the caller's context ended
)

// Error is a driver's error.
type Error struct {
	Kind ErrorKind
	// Sent is true when the command may have reached the BMC, whatever came back.
	// False is a promise: it has not left. Reads and set-up steps have it false.
	Sent bool
	// Lost is true when the connection must be dialled again before it is of use.
	Lost bool
	// Refused is true when a log-in named a user and the BMC refused it, whatever Kind
	// says: it may count towards a lock of the account.
	Refused bool
	// Untrusted is true when what answered did not show that it is the BMC, by its key: it was
	// told neither user nor password.
	Untrusted bool
	// After is how long the BMC asks to be left alone. A command that it did not take, with
	// an After, may be tried again until the caller's time is over. 0: it does not say.
	After time.Duration
	// Op says what was tried, for people: "power-on", "get chassis status".
	Op  string
	Err error
}

// Error says what was tried, the kind and the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", e.Op, e.Kind)
	}
	return fmt.Sprintf("%s: %s: %v", e.Op, e.Kind, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of a driver's error, KindUnreachable for an error that
// carries none and "" for nil.
func KindOf(err error) ErrorKind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindUnreachable
}

// AfterOf is how long the BMC asked to be left alone.
func AfterOf(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.After
	}
	return 0
}

// WasSent reports whether the command behind err may have reached the BMC. An
// error of unknown make counts as sent: that is the side on which nothing is
// doubled.
func WasSent(err error) bool {
	if err == nil {
		return true
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Sent
	}
	return true
}

// ReachOf translates the error of a read into a reach.
func ReachOf(err error) Reach {
	switch KindOf(err) {
	case "":
		return ReachOK
	case KindAuth:
		return ReachAuthFailed
	case KindPrivilege:
		return ReachPrivilege
	case KindBusy, KindRefused, KindUncertain:
		return ReachBusy
	case KindUnsupported:
		return ReachUnsupported
	default:
		return ReachUnreachable
	}
}

// WaitForBMC is how long a BMC that was told to reset itself may stay silent.
const WaitForBMC = 3 * time.Minute
