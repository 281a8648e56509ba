package settings

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// ending are the signals that ask a command to end, each as its default would, but
// after it has said what becomes of what it began.
var ending = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

// passing are the signals that would end a daemon though nobody who sends them to one
// means that: log rotation, timers of a library, a power daemon.
var passing = []os.Signal{
	syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGIO, syscall.SIGPWR,
}

// signals is what the process was sent. Its methods may be called by many goroutines.
type signals struct {
	came   chan os.Signal
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	ended  os.Signal    // that asked for the end
	daemon *slog.Logger // nil: no daemon
	clean  bool         // the end by a signal is no failure
}

type signalsKey struct{}

// signalled is the cause that a command's context ends with; it counts as canceled.
type signalled struct{ os.Signal }

// Error names the signal.
func (s signalled) Error() string { return s.String() + " signal received" }

// Is has errors.Is find context.Canceled.
func (signalled) Is(target error) bool { return target == context.Canceled }

// catch has the context end with the first signal that asks for the end. A second
// one ends the process at once. What was ignored when the process began (nohup, a
// background job) stays so.
func catch(ctx context.Context) (context.Context, *signals) {
	s := &signals{came: make(chan os.Signal, 16)}
	ctx, s.cancel = context.WithCancelCause(ctx)
	for _, sig := range ending {
		if !signal.Ignored(sig) {
			signal.Notify(s.came, sig)
		}
	}
	go s.listen()
	return context.WithValue(ctx, signalsKey{}, s), s
}

func (s *signals) listen() {
	for sig := range s.came {
		s.mu.Lock()
		log := s.daemon
		first := s.ended == nil
		if log == nil || sig == syscall.SIGINT || sig == syscall.SIGTERM {
			s.ended = sig
		}
		ends := s.ended != nil
		s.mu.Unlock()
		switch {
		case !ends:
			log.Warn("a signal was ignored: settings are read at a start only, systemctl restart makes one", "signal", sig.String())
		case first:
			signal.Reset(syscall.SIGINT, syscall.SIGTERM)
			if log == nil {
				signal.Reset(syscall.SIGHUP)
			}
			s.cancel(signalled{sig})
		}
	}
}

// Daemon makes a daemon of the process: SIGINT and SIGTERM are how it is ended, with
// status 0; whatever else a daemon is sent by chance is logged and passed over, as is
// a log that nobody reads any more (SIGPIPE) and a limit on the size of files, which
// are errors of the one write. ctx is a command's.
func Daemon(ctx context.Context, log *slog.Logger) {
	s, _ := ctx.Value(signalsKey{}).(*signals)
	if s == nil {
		return // within a test
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.daemon, s.clean = log, true
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ)
	signal.Notify(s.came, passing...)
}

// Tool is Daemon for a program that runs until it is ended and belongs to a terminal:
// only its end by a signal is no failure.
func Tool(ctx context.Context) {
	if s, _ := ctx.Value(signalsKey{}).(*signals); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.clean = true
	}
}

// end is the status that the process ends with. It does not return when a signal
// ended the command: the process then ends by that signal itself, so that a shell
// knows and ends its loop too. Only the first process of a container is not ended so.
func (s *signals) end(status int) int {
	s.mu.Lock()
	sig, _ := s.ended.(syscall.Signal)
	clean := s.clean
	s.mu.Unlock()
	if sig == 0 || clean {
		return status
	}
	signal.Reset(sig)
	if syscall.Kill(os.Getpid(), sig) == nil {
		time.Sleep(time.Second)
	}
	return 128 + int(sig)
}
