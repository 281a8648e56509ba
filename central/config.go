package central

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/oidc"
	"rackpower/central/store"
	"rackpower/central/webhook"
)

// MemberName is central's name in the gossip cluster. No rack may have it.
const MemberName = api.CentralName

// Config says how central runs. Only Data is required.
type Config struct {
	Data string // directory of the database; must exist
	// Database names a database on PostgreSQL, such as postgres://central@db.example/rackpower; "": SQLite
	// in Data. Data is needed anyway, for keys and certificates.
	Database string
	Socket   string // path of the unix socket; "": none
	Version  string
	// Machine is the host name of this machine; "": as the system says.
	Machine string
	Log     *slog.Logger // nil: slog.Default()

	// Listeners are served beside Socket: those that systemd passes.
	Listeners []net.Listener
	// TLS is how it is reached from other machines; zero: it is not.
	TLS TLSConfig
	// SealKeyFile has the keys that seal passwords in the database; "": seal.key in Data,
	// which is made.
	SealKeyFile string
	// Login verifies tokens of an issuer outside, for those who ask over TLS; nil: there is none.
	Login Login
	// Issuer is the same for people at a browser, who come to the page by PublicURL and are sent
	// to the issuer from there; nil: the page takes tokens only.
	Issuer    *oidc.Verifier
	PublicURL string // such as https://central.example:7620
	// Webhook is where events are sent; zero: nowhere.
	Webhook webhook.Config
	// Backups says when the database is backed up by itself; zero: never.
	Backups BackupConfig
	// Limits bound what one user may ask.
	Limits Limits
	// Keep is how long ended operations and the audit log are kept. Default 90
	// days, negative: for ever.
	Keep time.Duration
	// Away is the silence after which an agent counts as away. Default 10 s.
	Away time.Duration
	// CheckBelow is the size of the database up to which it is checked at a start.
	CheckBelow int64
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Monotonic is the clock that leases go by: it is never set. Default: since New.
	Monotonic func() time.Duration
}

// Login says who a token that central did not make is for. It may be used concurrently.
type Login interface {
	Verify(ctx context.Context, token string) (auth.Principal, error)
}

// Defaults.
const (
	DefaultKeep = 90 * 24 * time.Hour
	DefaultAway = 10 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	if c.Away == 0 {
		c.Away = DefaultAway
	}
	if c.Limits.Rate == 0 {
		c.Limits.Rate = DefaultUserRate
	}
	if c.Limits.Waiting == 0 {
		c.Limits.Waiting = DefaultUserWaiting
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	if c.Data == "" {
		return fmt.Errorf("no data directory given")
	}
	if c.Limits.Rate < 0 || c.Limits.Waiting < 0 {
		return fmt.Errorf("a limit of a user is negative")
	}
	if c.Webhook.URL != "" {
		if err := c.Webhook.Validate(); err != nil {
			return fmt.Errorf("--webhook: %w", err)
		}
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || u.Host == "" || c.PublicURL != "https://"+u.Host) {
		return fmt.Errorf("--public-url: %q is not https://HOST or https://HOST:PORT", c.PublicURL)
	}
	return errors.Join(c.Backups.validate(), c.TLS.validate())
}

// DatabasePath is where the database lies within a data directory.
func DatabasePath(data string) string { return filepath.Join(data, store.FileName) }
