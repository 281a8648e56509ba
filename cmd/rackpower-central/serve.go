package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central"
	"rackpower/central/forward"
	"rackpower/central/oidc"
	"rackpower/central/store"
	"rackpower/central/webhook"
	"rackpower/cmd/daemon"
	"rackpower/cmd/settings"
	"rackpower/gossip"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/systemd"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name: "serve", Usage: "run central",
		Description: "Serves people and agents of this machine on a unix socket, and those of others over TLS 1.3 with --listen, until\n" +
			"SIGTERM. Central makes a CA for the site and a certificate for the names that --tls-name gives." +
			examples("rackpower-central serve --data /var/lib/rackpower/central", "rackpower-central serve --config /etc/rackpower/central.yaml") +
			exitHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "data", Required: true, Usage: "`DIR` of the database, of keys and certificates"},
			databaseURLFlag(),
			&cli.StringFlag{Name: "listen", Usage: "serve other machines over TLS at this `HOST:PORT`; needs --tls-name", DefaultText: "not at all"},
			&cli.StringSliceFlag{Name: "tls-name", Usage: "`NAME` or address by which others reach central; may be repeated"},
			&cli.StringFlag{
				Name:        "peer-listen",
				Usage:       "have other centrals, which stand by on the same database, pass on here who comes to them: `HOST:PORT`, as they reach it",
				DefaultText: "they pass nothing on",
			},
			&cli.StringFlag{Name: "site", Value: central.DefaultSite, Usage: "`NAME` of the site in its certificates; it is settled when the CA is made"},
			&cli.StringFlag{Name: "ca-key-file", Usage: "read the CA's private key from `FILE`; default: the systemd credential " + caKeyCredential + ", else ca.key in the data directory"},
			sealKeyFlag(),
			&cli.StringFlag{Name: "tls-cert", Usage: "`FILE` with a certificate of another CA, instead of central's own; with --tls-key and --client-ca"},
			&cli.StringFlag{Name: "tls-key", Usage: "`FILE` with the key of --tls-cert"},
			&cli.StringFlag{Name: "oidc-issuer", Usage: "take logins of this OpenID Connect issuer, a `URL`"},
			&cli.StringFlag{Name: "oidc-audience", Usage: "take tokens for this `CLIENT` only"},
			&cli.StringSliceFlag{Name: "oidc-role", Usage: "give a group a role: `GROUP=ROLE` or GROUP=ROLE:NODES; may be repeated"},
			&cli.StringFlag{Name: "oidc-name-claim", Value: "preferred_username", Usage: "read the user's name from this `CLAIM`"},
			&cli.StringFlag{Name: "oidc-groups-claim", Value: "groups", Usage: "read the groups from this `CLAIM`"},
			&cli.StringFlag{Name: "public-url", Usage: "`URL` at which browsers reach the page, such as https://central.example:7620: with it people log in at the issuer, with --oidc-audience as the client"},
			&cli.StringFlag{
				Name:  "oidc-client-secret-file",
				Usage: "read the client's secret from `FILE`; default: the systemd credential " + clientCredential + ", else it is a public client",
			},
			&cli.StringSliceFlag{Name: "oidc-scope", Value: cli.NewStringSlice("profile"), Usage: "ask the issuer for this `SCOPE` besides openid; may be repeated"},
			&cli.StringFlag{Name: "oidc-ca", Usage: "`FILE` with the CA of the issuer", DefaultText: "those of this machine"},
			&cli.StringFlag{Name: "webhook", Usage: "send each event of the audit log to this `URL`, signed; needs --webhook-secret-file"},
			&cli.StringFlag{
				Name:  "webhook-secret-file",
				Usage: "sign events with the secret in `FILE`; default: the systemd credential " + webhookCredential + ", if there is one",
			},
			&cli.StringFlag{Name: "webhook-ca", Usage: "`FILE` with the CA of the receiver", DefaultText: "those of this machine"},
			&cli.StringSliceFlag{Name: "webhook-what", Usage: "send events of this `KIND` only, such as brake; may be repeated"},
			&cli.StringFlag{Name: "client-ca", Usage: "`FILE` with the CA of agents' certificates"},
			&cli.StringFlag{Name: "socket", Usage: "`PATH` of the unix socket", DefaultText: "central.sock in the data directory"},
			&cli.StringFlag{Name: "gossip", Value: "127.0.0.1:0", Usage: "`HOST:PORT` for gossip with the agents, or \"off\""},
			&cli.StringFlag{Name: "advertise", Usage: "`HOST:PORT` at which other members reach central's gossip"},
			&cli.StringSliceFlag{Name: "join", Usage: "`HOST:PORT` of a gossip member to join; may be repeated"},
			&cli.IntFlag{
				Name: "user-rate", Value: central.DefaultUserRate,
				Usage: "take at most `N` requests a second of one user, ten times as many at once; a front end may need more",
			},
			&cli.IntFlag{Name: "user-watches", Value: central.DefaultUserWaiting, Usage: "let at most `N` requests of one user wait for news at once"},
			&cli.DurationFlag{
				Name: "keep", Value: central.DefaultKeep,
				Usage: "keep ended operations and the audit log for `DURATION`; 0: forever",
			},
			&cli.DurationFlag{
				Name: "backup-every", Value: central.DefaultBackups.Every, Usage: "back up the database every `DURATION`; 0: never",
			},
			&cli.StringFlag{Name: "backup-dir", Usage: "`DIR` of the backups, best on another disk", DefaultText: "backups in the data directory"},
			&cli.IntFlag{Name: "backup-hourly", Value: central.DefaultBackups.Hourly, Usage: "keep the newest backup of each of `N` hours"},
			&cli.IntFlag{Name: "backup-daily", Value: central.DefaultBackups.Daily, Usage: "keep the newest backup of each of `N` days"},
			&cli.IntFlag{Name: "backup-weekly", Value: central.DefaultBackups.Weekly, Usage: "keep the newest backup of each of `N` weeks"},
			&cli.Int64Flag{
				Name: "check-below", Value: store.DefaultCheckBelow,
				Usage: "check the database at the start if it is smaller than `BYTES`; -1: never",
			},
		}, append(daemon.GossipFlags(), settings.LogFlags()...)...),
		Action: serve,
	}
}

func serve(c *cli.Context) error {
	log, err := settings.Logger(c)
	if err != nil {
		return err
	}
	settings.Daemon(c.Context, log)
	cfg := central.Config{
		Data: c.String("data"), Socket: c.String("socket"), Version: c.App.Version, Log: log,
		Limits: central.Limits{Rate: c.Int("user-rate"), Waiting: c.Int("user-watches")},
		Keep:   c.Duration("keep"), CheckBelow: c.Int64("check-below"), Database: c.String("database"),
	}
	cfg.Backups = central.BackupConfig{
		Dir: c.String("backup-dir"), Every: c.Duration("backup-every"), Hourly: c.Int("backup-hourly"), Daily: c.Int("backup-daily"),
		Weekly: c.Int("backup-weekly"),
	}
	if cfg.Database != "" {
		for _, name := range []string{"backup-every", "backup-dir"} {
			if c.IsSet(name) {
				return settings.Usage("--%s is for SQLite: back up a database on PostgreSQL with its own pg_basebackup or pg_dump", name)
			}
		}
		cfg.Backups = central.BackupConfig{}
	}
	cfg.SealKeyFile = sealKeyFile(c)
	if err := serverTLS(c, &cfg.TLS); err != nil {
		return err
	}
	if err := outsideLogin(c, &cfg); err != nil {
		return err
	}
	if err := readWebhook(c, &cfg.Webhook); err != nil {
		return err
	}
	if cfg.Keep == 0 {
		cfg.Keep = -1
	}
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(cfg.Data, "central.sock")
	}
	if err := cfg.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	var gc *gossip.Config
	if c.String("gossip") != "" {
		member := gossip.Config{Name: central.MemberName, Role: gossip.RoleCentral, Version: c.App.Version, Logger: log}
		if gc, err = daemon.Gossip(c, member); err != nil {
			return err
		}
	}
	if err := daemon.CheckSocket(cfg.Socket); err != nil {
		return err
	}
	if err := daemon.CheckGossip(gc, true); err != nil { // the key is made or read later
		return err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return settings.Exit(settings.ExitFailed, "cannot make data directory: %v", err)
	}
	if err := daemon.CheckOwner(cfg.Data); err != nil {
		return err
	}
	if err := fromSystemd(&cfg); err != nil {
		return err
	}
	if peers := c.String("peer-listen"); peers != "" {
		if cfg.TLS.Peers, err = listenForPeers(peers, cfg); err != nil {
			return err
		}
		defer cfg.TLS.Peers.Close()
	}
	return run(c.Context, cfg, gc)
}

// listenForPeers opens the address for other centrals.
func listenForPeers(address string, cfg central.Config) (*forward.Receiver, error) {
	host, _, err := net.SplitHostPort(address)
	switch ip := net.ParseIP(host); {
	case err != nil, host == "", ip != nil && ip.IsUnspecified():
		return nil, settings.Usage("--peer-listen: %q is not the HOST:PORT at which another central reaches this one", address)
	case cfg.Database == "":
		return nil, settings.Usage("--peer-listen is of no use without --database: no other central can stand by on a file")
	case cfg.TLS.Listen == "":
		return nil, settings.Usage("--peer-listen is of no use without --listen")
	}
	r, err := forward.Listen(address)
	if err != nil {
		return nil, settings.Exit(settings.ExitFailed, "%v", err)
	}
	return r, nil
}

// outsideLogin reads the flags of OpenID Connect.
func outsideLogin(c *cli.Context, cfg *central.Config) error {
	in := oidc.Config{
		Issuer: c.String("oidc-issuer"), Audience: c.String("oidc-audience"), CAFile: c.String("oidc-ca"),
		NameClaim: c.String("oidc-name-claim"), GroupsClaim: c.String("oidc-groups-claim"), Scopes: c.StringSlice("oidc-scope"),
	}
	cfg.PublicURL = strings.TrimSuffix(c.String("public-url"), "/")
	if in.Issuer == "" {
		if in.Audience != "" || len(c.StringSlice("oidc-role")) > 0 || cfg.PublicURL != "" || c.String("oidc-client-secret-file") != "" {
			return settings.Usage("--oidc-audience, --oidc-role, --oidc-client-secret-file and --public-url are of no use without --oidc-issuer")
		}
		return nil
	}
	if file := daemon.CredentialFile(c.String("oidc-client-secret-file"), clientCredential); file != "" && cfg.PublicURL != "" {
		var err error
		if in.Secret, err = daemon.SecretIn(file); err != nil {
			return settings.Exit(settings.ExitUsage, "--oidc-client-secret-file: %v", err)
		}
	} else if c.IsSet("oidc-client-secret-file") {
		return settings.Usage("--oidc-client-secret-file is of no use without --public-url")
	}
	for _, text := range c.StringSlice("oidc-role") {
		grant, err := oidc.ParseGrant(text)
		if err != nil {
			return settings.Usage("--oidc-role: %v", err)
		}
		in.Grants = append(in.Grants, grant)
	}
	verifier, err := oidc.New(in)
	if err != nil {
		return settings.Usage("--oidc-issuer: %v", err)
	}
	if cfg.Login = verifier; cfg.PublicURL != "" {
		cfg.Issuer = verifier
	}
	return nil
}

// clientCredential is the name of the systemd credential that holds the secret of the client of
// OpenID Connect.
const clientCredential = "oidc-client-secret"

// webhookCredential is the name of the systemd credential that holds the webhook's secret.
const webhookCredential = "webhook-secret"

// readWebhook reads the flags of the webhook.
func readWebhook(c *cli.Context, cfg *webhook.Config) error {
	cfg.URL, cfg.CAFile, cfg.What = c.String("webhook"), c.String("webhook-ca"), c.StringSlice("webhook-what")
	if cfg.URL == "" {
		if c.String("webhook-secret-file") != "" || cfg.CAFile != "" || len(cfg.What) > 0 {
			return settings.Usage("--webhook-secret-file, --webhook-ca and --webhook-what are of no use without --webhook")
		}
		return nil
	}
	file := daemon.CredentialFile(c.String("webhook-secret-file"), webhookCredential)
	if file == "" {
		return settings.Usage("--webhook needs --webhook-secret-file: the receiver knows central by the signature")
	}
	text, err := daemon.SecretIn(file)
	if err == nil {
		cfg.Secret, err = webhook.ParseSecret(text)
	}
	if err != nil {
		return settings.Exit(settings.ExitUsage, "--webhook-secret-file: %v", err)
	}
	return nil
}

// caKeyCredential is the name of the systemd credential that holds the CA's key.
const caKeyCredential = "ca-key"

// serverTLS reads the flags of TLS.
func serverTLS(c *cli.Context, cfg *central.TLSConfig) error {
	cfg.Listen, cfg.Names, cfg.Site = c.String("listen"), c.StringSlice("tls-name"), c.String("site")
	cfg.CertFile, cfg.KeyFile, cfg.ClientCA = c.String("tls-cert"), c.String("tls-key"), c.String("client-ca")
	file := daemon.CredentialFile(c.String("ca-key-file"), caKeyCredential)
	if file == "" || cfg.Listen == "" {
		return nil
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return settings.Exit(settings.ExitUsage, "cannot read the key of the CA: %v", err)
	}
	cfg.CAKey = key
	return nil
}

// fromSystemd takes the sockets that systemd opened; the control socket is then
// not opened here.
func fromSystemd(cfg *central.Config) error {
	passed, err := systemd.Listeners()
	if err != nil {
		return err
	}
	for name, l := range passed {
		cfg.Listeners = append(cfg.Listeners, l)
		if name == systemd.Control {
			cfg.Socket = ""
		}
	}
	return nil
}

// lockWait is how long a start waits for the process before it to be gone: one that
// was killed holds its lock for a moment longer.
const lockWait = 3 * time.Second

// open opens the database. Where another central serves one on PostgreSQL, this one stands by until that
// one has ended; wait is called once then, and may change cfg.
func open(ctx context.Context, cfg *central.Config, wait func() error) (*central.Central, error) {
	pause, waits := 50*time.Millisecond, false
	for until := time.Now().Add(lockWait); ; {
		c, err := central.New(*cfg)
		switch late := time.Now().After(until); {
		case waits && errors.Is(err, store.ErrDisk): // the server is gone as well, or another one takes its place
		case !errors.Is(err, store.ErrInUse), late && cfg.Database == "":
			return c, err
		case late && !waits:
			pause, waits = standbyEvery, true
			if err := wait(); err != nil {
				return nil, err
			}
		}
		if backoff.Sleep(ctx, pause) != nil {
			return nil, err
		}
	}
}

// standbyEvery is how often a central that stands by tries to take over.
const standbyEvery = 500 * time.Millisecond

// openOrStandBy opens the database, and tells the service manager if that takes until another central ends.
// Meanwhile whoever comes to this one is passed on to the other.
func openOrStandBy(ctx context.Context, cfg *central.Config, notify *systemd.Notifier) (*central.Central, error) {
	waiting, end := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer end()
	return open(ctx, cfg, func() error {
		cfg.Log.Info("another central serves the database: this one stands by, and takes over when that one ends")
		notify.Status("stands by: another central serves the database")
		notify.Ready()
		parts.Go(func() { notify.RunWatchdog(waiting, func() bool { return true }) })
		return passOn(waiting, cfg, &parts)
	})
}

// passOn begins to pass on who comes, where there is an address for other centrals, until ctx ends. Central
// goes on with the listener then.
func passOn(ctx context.Context, cfg *central.Config, parts *sync.WaitGroup) error {
	st, err := store.OpenStandby(cfg.Database, cfg.Log)
	if err != nil {
		return err
	}
	f := &forward.Forwarder{Names: cfg.TLS.Names, Log: cfg.Log}
	parts.Go(func() {
		defer st.Close()
		for {
			if text, err := st.Serving(ctx); err == nil {
				f.Found(text)
			}
			if backoff.Sleep(ctx, standbyEvery) != nil {
				return
			}
		}
	})
	if cfg.TLS.Peers == nil { // the other one has none either: whoever comes is refused at once, and goes to it
		return nil
	}
	l, err := listenTCP(cfg.TLS.Listen)
	if err != nil {
		return settings.Exit(settings.ExitFailed, "cannot listen on %s: %v", cfg.TLS.Listen, err)
	}
	cfg.TLS.Listener = l
	parts.Go(func() {
		if err := f.Serve(ctx, l); err != nil {
			cfg.Log.Error("connections are no longer passed on", "err", err)
		}
	})
	return nil
}

// run is the life of the daemon; gc nil: no gossip.
func run(ctx context.Context, cfg central.Config, gc *gossip.Config) error {
	log := cfg.Log
	notify := systemd.New(log)
	c, err := openOrStandBy(ctx, &cfg, notify)
	if err != nil {
		for _, l := range cfg.Listeners {
			l.Close()
		}
		return explain(err)
	}
	stopGossip, err := startGossip(c, gc, log)
	if err != nil {
		if late := c.Close(); late != nil {
			return errors.Join(err, late)
		}
		return err
	}
	defer stopGossip()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	pulse := newPulse()
	var over error // the database is another central's
	err = c.RunReady(ctx, func(addrs []net.Addr) {
		log.Info("central serves", "version", cfg.Version, "data", cfg.Data, "central_id", c.ID())
		notify.Status("serving on %v", addrs)
		notify.Ready()
		parts.Go(func() {
			if over = pulse.beat(ctx, c, notify); over != nil {
				cancel()
			}
		})
		// A restart mends no disk that hangs, and would end what is answered without it.
		parts.Go(func() { notify.RunWatchdog(ctx, func() bool { return pulse.alive() || c.DiskWait() > 0 }) })
		parts.Go(func() { <-ctx.Done(); notify.Stopping() })
	})
	cancel()
	parts.Wait()
	if over != nil {
		return settings.Exit(settings.ExitFailed, "this central ends: %s; the next start stands by", oneLine(over))
	}
	return err
}

func listenTCP(address string) (*net.TCPListener, error) {
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	return net.ListenTCP("tcp", addr)
}

// standbyText says of a database that others can take over how many are ready to.
func standbyText(ctx context.Context, c *central.Central) string {
	n, err := c.Standbys(ctx)
	if err != nil || n < 0 {
		return ""
	}
	return ", " + power.Count(n, "standby central")
}

// explain turns the errors of a start into a line that says what to do.
func explain(err error) error {
	if errors.Is(err, store.ErrInUse) || errors.Is(err, store.ErrNewer) || errors.Is(err, store.ErrForeign) ||
		errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNoKey) || errors.Is(err, store.ErrNotDurable) {
		return settings.Exit(settings.ExitFailed, "cannot start: %s", oneLine(err))
	}
	return err
}

// oneLine is an error's text; what SQLite says of damage has several lines.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }

// pulse knows when the database last answered, for the watchdog.
type pulse struct {
	mu   sync.Mutex
	last time.Time
}

// The database has to commit within this time, or the process is of no use.
const pulseWithin = 20 * time.Second

func newPulse() *pulse { return &pulse{last: time.Now()} }

func (p *pulse) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.last) < pulseWithin
}

// beat goes through the writer once in a while, until ctx ends, or another central has taken the database
// over, which is its error.
func (p *pulse) beat(ctx context.Context, c *central.Central, notify *systemd.Notifier) error {
	ticker := time.NewTicker(3 * time.Second)
	defer ticker.Stop()
	for {
		one, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := c.Ping(one)
		cancel()
		if errors.Is(err, store.ErrTakenOver) {
			return err
		}
		gone := errors.Is(err, store.ErrRemoved) // a restart would begin with an empty database
		if err == nil || gone {
			p.mu.Lock()
			p.last = time.Now()
			p.mu.Unlock()
		}
		if gone {
			notify.Status("alarm: %v", err)
		} else if wait := c.DiskWait(); err != nil && wait > 0 {
			notify.Status("alarm: the disk of the database has not answered for %s", wait.Round(time.Second))
		} else if info, err := c.Info(ctx); err == nil {
			notify.Status("%d nodes, %d agents%s", info.Nodes, info.Agents, standbyText(ctx, c))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
