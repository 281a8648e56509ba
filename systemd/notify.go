package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notifier sends messages to the service manager (sd_notify(3)). Its methods may
// be called by many goroutines. Without a manager they do nothing.
type Notifier struct {
	logger *slog.Logger
	on     bool
	every  time.Duration // how often the manager wants to hear from us; 0: it does not
}

// New looks into the environment for a manager that listens.
func New(logger *slog.Logger) *Notifier {
	n := &Notifier{logger: logger, on: os.Getenv("NOTIFY_SOCKET") != ""}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("cannot read the watchdog's interval", "err", err)
	}
	n.every = every
	return n
}

// Active reports whether a manager listens.
func (n *Notifier) Active() bool { return n.on }

func (n *Notifier) send(state string) {
	if !n.on {
		return
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.logger.Warn("cannot notify systemd", "state", state, "err", err)
	}
}

// Ready says that the daemon serves.
func (n *Notifier) Ready() { n.send(daemon.SdNotifyReady) }

// Stopping says that it is about to end.
func (n *Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Status is the line that systemctl status shows.
func (n *Notifier) Status(format string, args ...any) {
	n.send("STATUS=" + fmt.Sprintf(format, args...))
}

// Run feeds the watchdog at half its interval for as long as alive says so, and
// renews the status line every few seconds, until ctx ends. A daemon whose alive
// blocks or says no is not fed, and the manager restarts it.
func (n *Notifier) Run(ctx context.Context, alive func() bool, status func() string) {
	if !n.on {
		<-ctx.Done()
		return
	}
	every := 5 * time.Second
	if n.every > 0 {
		every = min(every, n.every/2)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := ""; ; {
		if alive() {
			n.send(daemon.SdNotifyWatchdog)
		} else {
			n.logger.Error("not alive, the watchdog is not fed")
		}
		if now := status(); now != last {
			n.Status("%s", now)
			last = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
