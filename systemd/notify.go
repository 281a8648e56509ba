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

// Notifier tells the service manager how the daemon fares. Its methods may be
// called from many goroutines and never block for long: each is one datagram. A
// datagram that cannot be sent is logged once and otherwise ignored, since the
// service manager's own time-outs are the answer to that.
type Notifier struct {
	log      *slog.Logger
	managed  bool          // NOTIFY_SOCKET was set
	watchdog time.Duration // 0: none asked for

	mu       sync.Mutex
	status   string // last one sent
	complain sync.Once
}

// New makes a Notifier from NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID of the
// environment. Without NOTIFY_SOCKET it is silent.
func New(logger *slog.Logger) *Notifier {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	n := &Notifier{log: logger, managed: os.Getenv("NOTIFY_SOCKET") != ""}
	if !n.managed {
		return n
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		logger.Warn("the watchdog is off: its interval cannot be read", "err", err)
		return n
	}
	n.watchdog = every
	return n
}

// Managed reports whether a service manager listens.
func (n *Notifier) Managed() bool { return n.managed }

// Ready says that the daemon serves: whatever is ordered after it may start. It
// also ends a Reloading.
func (n *Notifier) Ready() { n.send(daemon.SdNotifyReady) }

// Stopping says that the daemon is on its way out of its own accord or because it
// was told to.
func (n *Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Reloading says that settings are being read again; Ready says that it is done.
func (n *Notifier) Reloading() {
	n.send(daemon.SdNotifyReloading + "\n" + strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// Status sets the line that `systemctl status` shows. The same line again is not
// sent again, so it may be called in every round of a loop.
func (n *Notifier) Status(format string, args ...any) {
	if !n.managed {
		return
	}
	line := oneLine(fmt.Sprintf(format, args...))
	n.mu.Lock()
	defer n.mu.Unlock()
	if line == n.status {
		return
	}
	n.status = line
	n.send("STATUS=" + line)
}

// WatchdogInterval is the time within which the service manager wants a sign of
// life (WatchdogSec=), 0 when it wants none.
func (n *Notifier) WatchdogInterval() time.Duration { return n.watchdog }

// RunWatchdog gives a sign of life three times per interval for as long as alive
// says yes, and returns when ctx ends. alive is asked from this goroutine and must
// not block: it should say whether the daemon's real loop made its rounds lately. When it
// says no, nothing is sent, and the service manager ends and restarts the daemon
// once the interval is over. Without a watchdog it only waits for ctx.
func (n *Notifier) RunWatchdog(ctx context.Context, alive func() bool) {
	if n.watchdog <= 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(max(n.watchdog/3, time.Millisecond))
	defer tick.Stop()
	was := true
	for {
		is := alive()
		if is {
			n.send(daemon.SdNotifyWatchdog)
		}
		if is != was {
			n.log.Warn("watchdog", "alive", is, "interval", n.watchdog)
			was = is
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *Notifier) send(state string) {
	if !n.managed {
		return
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.complain.Do(func() { n.log.Warn("cannot notify the service manager", "err", err) })
	}
}

// oneLine keeps a text from being read as further assignments.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 }), " ")
}
