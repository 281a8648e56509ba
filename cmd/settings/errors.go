package settings

import (
	"errors"
	"fmt"
)

// The exit statuses of both binaries.
const (
	ExitOK          = 0
	ExitFailed      = 1 // something that was asked for did not come about
	ExitUsage       = 2 // the request is invalid
	ExitUnreachable = 3 // central or agent not reachable
	ExitPending     = 4 // not over yet when the time to wait was
	ExitRefused     = 5 // busy, stale, against the desired state, not permitted
)

// exit is an error with the status that the process ends with.
type exit struct {
	code  int
	text  string // "": all has been said
	usage bool   // the help of the command is named
}

// Error is the text for people.
func (e *exit) Error() string { return e.text }

// Exit makes an error that ends the process with the status. An empty format says
// nothing more: what there was to say has been printed.
func Exit(code int, format string, args ...any) error {
	return &exit{code: code, text: fmt.Sprintf(format, args...)}
}

// Usage makes an error of a command line that makes no sense: status 2, and a
// pointer to the command's help.
func Usage(format string, args ...any) error {
	return &exit{code: ExitUsage, text: fmt.Sprintf(format, args...), usage: true}
}

// CodeOf is the exit status that an error leads to: 0 for none, 1 for one that
// says nothing about it.
func CodeOf(err error) int {
	var e *exit
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &e):
		return e.code
	default:
		return ExitFailed
	}
}
