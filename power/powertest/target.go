package powertest

import (
	"context"
	"time"

	"rackpower/power"
)

// Target is one BMC together with the driver under test. Suite asks for a new
// one for each of its tests.
type Target interface {
	// Dial is the driver's power.Dialer.
	Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error)
	// Endpoint is the BMC's address with the account of an administrator.
	Endpoint() power.Endpoint
	// Log returns the commands that reached the BMC, in order: the truth.
	Log() []Entry
	// SetPower sets the chassis' power from outside.
	SetPower(power.State) error
	// Patience is the longest time after which the driver gives a BMC up that
	// does not answer.
	Patience() time.Duration
}

// What a Target may be able to do beside. Suite leaves out, and names, the tests
// whose abilities are missing.
type (
	// Hanger's BMC takes packets and does not answer, until Wake. What was sent
	// meanwhile may be executed by Wake or be lost.
	Hanger interface {
		Hang()
		Wake()
	}
	// Restarter's BMC restarts and forgets its sessions; it answers again when
	// Restart returns.
	Restarter interface{ Restart() error }
	// Killer's BMC is gone: nothing listens on its port.
	Killer interface{ Kill() }
	// AnswerLoser's BMC executes the next n commands and does not answer them.
	AnswerLoser interface{ LoseNextAnswers(n int) }
	// Refuser's BMC answers the next n commands so that the driver's error is of
	// the kind (busy, refused, privilege or unsupported), and executes none.
	Refuser interface {
		FailNext(n int, kind power.ErrorKind)
	}
	// Filler's BMC is out of sessions while full is true.
	Filler interface{ SetNoSession(full bool) }
	// Lossy's network loses packets in both directions with a probability.
	Lossy interface{ Lose(p float64) }
	// Duplicator's network delivers each packet of the BMC twice.
	Duplicator interface{ Duplicate(on bool) }
	// Restricted's BMC has accounts which may do less.
	Restricted interface {
		// Operator may control the chassis but not reset the BMC; Reader may only read.
		Operator() power.Endpoint
		Reader() power.Endpoint
	}
	// Counter's BMC counts what the driver did to it.
	Counter interface {
		Sessions() int     // open now, half-open ones included
		AuthFailures() int // logins that failed
	}
	// Prober's driver can ask whether a BMC is there without logging in: nil when it
	// answers, KindUnreachable when it does not.
	Prober interface {
		Probe(ctx context.Context, ep power.Endpoint) error
	}
	// Metered's BMC measures what the node takes, and limits it, unless it lacks SetLimit.
	Metered interface {
		Watts() int // that the node takes now
		Limit() int // that holds; 0: none
	}
	// Lacking's BMC does not know some commands.
	Lacking interface{ Lacks() []power.Command }
)
