package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier sends messages to the service manager (sd_notify(3)). Its methods may
// be called by many goroutines. Without a manager they do nothing. A message that
// cannot be sent is logged, the first time, and otherwise left to the manager's
// own time-outs.
type Notifier struct {
	logger *slog.Logger
	on     bool
	every  time.Duration // within which the manager wants a sign of life; 0: it does not

	mu       sync.Mutex
	status   string // sent last
	complain sync.Once
}

// statusEvery is how often Run renews the status line.
const statusEvery = 5 * time.Second

// New looks into the environment for a manager that listens.
func New(logger *slog.Logger) *Notifier {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	n := &Notifier{logger: logger, on: os.Getenv("NOTIFY_SOCKET") != ""}
	if !n.on {
		return n
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("cannot read the watchdog's interval; it is not fed", "err", err)
	}
	n.every = every
	return n
}

// Active reports whether a manager listens.
func (n *Notifier) Active() bool { return n.on }

// Ready says that the daemon serves.
func (n *Notifier) Ready() { n.send(daemon.SdNotifyReady) }

// Stopping says that it is about to end.
func (n *Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Status is the line that systemctl status shows. The same line again is not sent
// again, so it may be called in every round of a loop.
func (n *Notifier) Status(format string, args ...any) {
	if !n.on {
		return
	}
	line := oneLine(fmt.Sprintf(format, args...))
	n.mu.Lock()
	defer n.mu.Unlock()
	if line != n.status {
		n.status = line
		n.send("STATUS=" + line)
	}
}

// RunWatchdog feeds the watchdog, three times in its interval, for as long as
// alive says so, and returns when ctx ends. alive should know whether the daemon's
// own loop made its rounds lately. A daemon whose alive blocks or says no is not
// fed, and the manager restarts it. Without a watchdog it only waits for ctx.
func (n *Notifier) RunWatchdog(ctx context.Context, alive func() bool) {
	if n.every <= 0 {
		<-ctx.Done()
		return
	}
	was := true
	each(ctx, n.every/3, func() { was = n.feed(alive(), was) })
}

// Run is RunWatchdog with a status line that is renewed every few seconds.
func (n *Notifier) Run(ctx context.Context, alive func() bool, status func() string) {
	if !n.on {
		<-ctx.Done()
		return
	}
	every := statusEvery
	if n.every > 0 {
		every = min(every, n.every/3)
	}
	was := true
	each(ctx, every, func() {
		if n.every > 0 {
			was = n.feed(alive(), was)
		}
		n.Status("%s", status())
	})
}

// feed gives a sign of life if there is life, and logs a change of it.
func (n *Notifier) feed(is, was bool) bool {
	if is {
		n.send(daemon.SdNotifyWatchdog)
	}
	switch {
	case was && !is:
		n.logger.Error("not alive: the watchdog is not fed", "interval", n.every)
	case is && !was:
		n.logger.Warn("alive again: the watchdog is fed", "interval", n.every)
	}
	return is
}

func (n *Notifier) send(state string) {
	if !n.on {
		return
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.complain.Do(func() { n.logger.Warn("cannot notify systemd", "err", err) })
	}
}

// each calls do now and then at every interval, until ctx ends.
func each(ctx context.Context, every time.Duration, do func()) {
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// oneLine keeps a text from being read as further assignments.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 }), " ")
}
