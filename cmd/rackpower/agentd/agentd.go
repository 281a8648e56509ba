// Package agentd runs an agent as a daemon: it reads the flags, opens what the agent needs,
// joins the gossip cluster, and tells the service manager how it fares.
package agentd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/agent/identity"
	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/cmd/daemon"
	"rackpower/cmd/settings"
	"rackpower/gossip"
	"rackpower/internal/backoff"
	"rackpower/journal"
	"rackpower/systemd"
)

// noCentral is the --central of an agent that works alone.
const noCentral = "none"

// service is an agent on its way up or down: what was started, in order.
type service struct {
	logger   *slog.Logger
	identity *identity.Identity // nil: central is on this machine

	mu   sync.Mutex
	undo []func() error
}

// later has something undone at the end, the latest first.
func (d *service) later(fn func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.undo = append(d.undo, fn)
}

// end undoes all, also what is added meanwhile.
func (d *service) end() error {
	var errs []error
	for {
		d.mu.Lock()
		n := len(d.undo)
		if n == 0 {
			d.mu.Unlock()
			return errors.Join(errs...)
		}
		fn := d.undo[n-1]
		d.undo = d.undo[:n-1]
		d.mu.Unlock()
		errs = append(errs, fn())
	}
}

// Run runs the agent of a rack until the end of its context.
func Run(c *cli.Context) (err error) {
	logger, err := settings.Logger(c)
	if err != nil {
		return err
	}
	settings.Daemon(c.Context, logger)
	d := &service{logger: logger}
	defer func() {
		if late := d.end(); err == nil && late != nil {
			err = late
		}
	}()
	bmcs, err := newDrivers(logger, c.String("bmc-ca-file"), c.String("exec-dir"))
	if err != nil {
		return err
	}
	cfg := agent.Config{
		Name: c.String("name"), Dir: c.String("data"), Version: c.App.Version, Monitor: c.String("monitor"), Logger: logger,
		SealKeyFile: daemon.CredentialFile(c.String("seal-key-file"), SealKeyCredential),
		Dial:        bmcs.Dial, Probe: bmcs.Probe, Forget: bmcs.Forget, UseNotes: bmcs.redfish.UseNotes, LookUp: lookUp,
	}
	own := c.String("credentials-file")
	if cfg.Credentials, err = openCredentials(daemon.CredentialFile(own, CredentialsCredential), own != "", logger); err != nil {
		return settings.Exit(settings.ExitUsage, "--credentials-file: %v", err)
	}
	if cfg.Timing.Debounce = c.Duration("debounce"); cfg.Timing.Debounce <= 0 {
		return settings.Usage("--debounce: %s is not positive", cfg.Timing.Debounce)
	}
	if err := cfg.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	if err := api.CheckName(cfg.Name); err != nil {
		return settings.Usage("--name: %v", err)
	}
	member := gossip.Config{Name: cfg.Name, Role: gossip.RoleAgent, Rack: cfg.Name, Version: cfg.Version, Logger: logger}
	cluster, err := daemon.Gossip(c, member)
	if err != nil {
		return err
	}
	if err := daemon.CheckGossip(cluster, c.String("central") != noCentral); err != nil { // central hands out the key
		return err
	}
	if err := daemon.CheckSocket(socketPath(c.String("socket"), cfg.Dir)); err != nil {
		return err
	}
	central, err := d.central(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return settings.Exit(settings.ExitFailed, "cannot make the data directory: %v", err)
	}
	if err := daemon.CheckOwner(cfg.Dir); err != nil {
		return err
	}
	if central != nil { // a nil client would be a central that is not nil
		cfg.Central = central
		if err := d.identify(c, cfg.Dir, central); err != nil {
			return err
		}
	}
	return d.run(c, cfg, central, cluster)
}

// central makes the client of central, which need not be there.
func (d *service) central(c *cli.Context) (*api.Client, error) {
	target := c.String("central")
	if target == noCentral {
		return nil, nil
	}
	if err := settings.CheckCentral(target); err != nil {
		return nil, err
	}
	client, err := api.NewClient(target)
	if err != nil {
		return nil, settings.Usage("--central: %v (or none)", err)
	}
	client.ServedBy(daemon.Trusted)
	d.later(func() error { client.Close(); return nil })
	return client, nil
}

// identify has the agent be known to a central on another machine by its certificate.
func (d *service) identify(c *cli.Context, data string, client *api.Client) error {
	if !client.Remote() {
		return nil
	}
	name, file := c.String("name"), c.String("token-file")
	id, err := identity.Open(data, name, func() (string, error) { return enrolmentToken(file) }, d.logger)
	if err != nil {
		return settings.Exit(settings.ExitFailed, "%v", err)
	}
	if !id.Enrolled() {
		token, err := enrolmentToken(file)
		if err == nil && token == "" {
			err = fmt.Errorf("make one on central (rackpower agents token %s) and give its file with --token-file", name)
		}
		if err != nil {
			return settings.Exit(settings.ExitUsage, "this agent has neither a certificate nor an enrolment token: %v", err)
		}
	}
	client.Secure(id.TLS(), "")
	d.identity = id
	d.beside(c.Context, func(ctx context.Context) { id.Keep(ctx, client, client.Close) })
	return nil
}

// TokenCredential is the name of the systemd credential that holds the enrolment token.
const TokenCredential = "token"

// SealKeyCredential is the name of the systemd credential that holds the keys that seal
// passwords in the data directory.
const SealKeyCredential = "seal-key"

// enrolmentToken reads the token that enrols the agent, "" when there is none. Its file may
// be gone once it was used.
func enrolmentToken(flag string) (string, error) {
	file := daemon.CredentialFile(flag, TokenCredential)
	if file == "" {
		return "", nil
	}
	text, err := daemon.SecretIn(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read the enrolment token: %w", err)
	}
	return text, nil
}

func (d *service) run(c *cli.Context, cfg agent.Config, central *api.Client, cluster *gossip.Config) error {
	passed, err := systemd.Listeners()
	if err != nil {
		return err
	}
	control := passed[systemd.Control]
	if control != nil {
		d.later(func() error { _ = control.Close(); return nil })
	}
	scraped, err := listenMetrics(c)
	if err != nil {
		return err
	}
	if scraped != nil {
		d.later(func() error { _ = scraped.Close(); return nil })
	}
	a, err := agent.New(cfg)
	switch {
	case errors.Is(err, journal.ErrOwner):
		return settings.Exit(settings.ExitUsage, "the data directory belongs to another agent than %s: %v", cfg.Name, err)
	case errors.Is(err, journal.ErrLocked):
		return settings.Exit(settings.ExitFailed, "%v: is another rackpower agent running on it?", err)
	case err != nil:
		return err
	}
	d.later(a.Close)
	d.metrics(c, a, scraped)
	if err := d.gossip(c, a, central, cluster); err != nil {
		return err
	}
	if control == nil {
		if control, err = httpserver.ListenSocket(socketPath(c.String("socket"), cfg.Dir)); err != nil {
			return err
		}
		d.later(func() error { _ = control.Close(); return nil })
	}
	d.logger.Info("agent starts", "name", cfg.Name, "version", c.App.Version, "data", cfg.Dir, "central", c.String("central"), "socket",
		control.Addr().String())
	return d.serve(c.Context, a, control)
}

// socketPath is where the agent's own socket goes.
func socketPath(flag, dir string) string {
	if flag == "" {
		return filepath.Join(dir, "agent.sock")
	}
	return strings.TrimPrefix(flag, "unix://")
}

// serve runs the agent and tells the service manager how it fares.
func (d *service) serve(ctx context.Context, a *agent.Agent, control net.Listener) error {
	notify := systemd.New(d.logger)
	beside, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() { d.tellReady(beside, notify, control.Addr().String()) })
	parts.Go(func() { tellStatus(beside, notify, a) })
	parts.Go(func() { notify.RunWatchdog(beside, a.Alive) })
	parts.Go(func() { <-beside.Done(); notify.Stopping() })
	err := a.Run(ctx, control)
	cancel()
	parts.Wait()
	if err == nil {
		d.logger.Info("agent ends", "reason", fmt.Sprint(context.Cause(ctx)))
	}
	return err
}

// tellReady says ready when the agent's own socket answers.
func (d *service) tellReady(ctx context.Context, notify *systemd.Notifier, socket string) {
	client, err := api.NewClient(settings.SocketURL(socket))
	if err != nil {
		d.logger.Warn("cannot ask the own socket", "err", err)
		notify.Ready()
		return
	}
	defer client.Close()
	for {
		if _, err := client.Info(ctx); err == nil {
			notify.Ready()
			return
		}
		if backoff.Sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// tellStatus keeps the status line of the service manager up to date.
func tellStatus(ctx context.Context, notify *systemd.Notifier, a *agent.Agent) {
	if !notify.Active() {
		return
	}
	for {
		notify.Status("%s", a.Summary())
		if backoff.Sleep(ctx, 2*time.Second) != nil {
			return
		}
	}
}

// lookUp asks the machine's resolver for the addresses of a BMC's name, as a session to
// it does.
func lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}
