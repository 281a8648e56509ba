// Package oidc takes the ID tokens of an OpenID Connect issuer for logins: it verifies them
// (OpenID Connect Core 1.0, section 3.1.3.7) and gives the groups that they name a role. It also
// sends browsers there to get one: the authorization code flow (section 3.1) with PKCE (RFC 7636).
package oidc

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"rackpower/central/auth"
	"rackpower/power/noderange"
)

// Config says whom to believe what.
type Config struct {
	Issuer   string // URL, https
	Audience string // the client that the tokens are for
	CAFile   string // the CA of the issuer in PEM; "": those of this machine
	// NameClaim and GroupsClaim are the claims with the name of the user and with the groups.
	// Defaults: preferred_username and groups.
	NameClaim, GroupsClaim string
	Grants                 []Grant
	// Secret is that of the client Audience, and Scopes what it asks for besides openid, when it
	// sends browsers to the issuer. Without a secret it is a public client.
	Secret string
	Scopes []string
	Now    func() time.Time // nil: time.Now
}

// Grant is the role that a group has.
type Grant struct {
	Group string
	Role  auth.Role
	Nodes string // NODES expression; "": all nodes
}

// ParseGrant reads GROUP=ROLE or GROUP=ROLE:NODES.
func ParseGrant(text string) (g Grant, err error) {
	group, rest, ok := strings.Cut(text, "=")
	role, nodes, scoped := strings.Cut(rest, ":")
	if !ok || group == "" {
		return g, fmt.Errorf("%q is not GROUP=ROLE or GROUP=ROLE:NODES", text)
	}
	if g.Role, err = auth.ParseRole(role); err != nil {
		return g, err
	}
	if scoped {
		if _, err := noderange.Parse(nodes); err != nil {
			return g, err
		}
	}
	g.Group, g.Nodes = group, nodes
	return g, nil
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case !strings.HasPrefix(c.Issuer, "https://"):
		return fmt.Errorf("the issuer %q is no https URL", c.Issuer)
	case c.Audience == "":
		return errors.New("the audience is missing: without it tokens of other programs would be taken")
	case len(c.Grants) == 0:
		return errors.New("no group has a role")
	}
	return nil
}

// Verifier verifies ID tokens. It may be used concurrently.
type Verifier struct {
	cfg    Config
	client *http.Client

	mu       sync.Mutex
	verifier *gooidc.IDTokenVerifier // nil: the issuer was not reached yet
	flow     oauth2.Config           // likewise, without the address to come back to
	tried    time.Time
	failed   error
}

// askAgain is the pause between two attempts to reach the issuer, and askFor how long one
// takes at most.
const (
	askAgain = 5 * time.Second
	askFor   = 5 * time.Second
)

// New makes a verifier. The issuer is asked for its keys with the first token, so that
// central starts without it.
func New(cfg Config) (*Verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.NameClaim, cfg.GroupsClaim = cmp.Or(cfg.NameClaim, "preferred_username"), cmp.Or(cfg.GroupsClaim, "groups")
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if cfg.CAFile != "" {
		text, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA of the issuer: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", cfg.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return &Verifier{cfg: cfg, client: &http.Client{Transport: transport, Timeout: askFor}}, nil
}

func (v *Verifier) ready() (*gooidc.IDTokenVerifier, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.verifier != nil || time.Since(v.tried) < askAgain {
		return v.verifier, v.failed
	}
	// The keys are fetched later with this context: it must not end with the request.
	ctx := gooidc.ClientContext(context.Background(), v.client)
	provider, err := gooidc.NewProvider(ctx, v.cfg.Issuer)
	if v.tried, v.failed = time.Now(), nil; err != nil {
		v.failed = fmt.Errorf("%w: %v", auth.ErrNoIssuer, err) //nolint:errorlint // the cause is for people
		return nil, v.failed
	}
	if v.flow, v.failed = v.codeFlow(provider); v.failed != nil {
		return nil, v.failed
	}
	v.verifier = provider.VerifierContext(ctx, &gooidc.Config{ClientID: v.cfg.Audience, Now: v.cfg.Now})
	return v.verifier, nil
}

// Verify gives the principal of a token: with the most powerful role of its groups, for the
// nodes of all groups with that role. Who has no group with a role has none.
func (v *Verifier) Verify(ctx context.Context, raw string) (auth.Principal, error) {
	p := auth.Principal{Kind: auth.User, Method: auth.ByOIDC}
	verifier, err := v.ready()
	if err != nil {
		return p, err
	}
	token, err := verifier.Verify(ctx, raw)
	if err != nil {
		return p, err
	}
	p.Until = token.Expiry
	claims := map[string]any{}
	if err := token.Claims(&claims); err != nil {
		return p, err
	}
	if p.Name, _ = claims[v.cfg.NameClaim].(string); p.Name == "" {
		return p, fmt.Errorf("the token names no user: it has no claim %s", v.cfg.NameClaim)
	}
	p.Role, p.Scope = v.role(texts(claims[v.cfg.GroupsClaim]))
	if p.Role == "" {
		return p, fmt.Errorf("no group of %s has a role here", p.Name)
	}
	return p, nil
}

func (v *Verifier) role(groups []string) (role auth.Role, scope string) {
	var nodes []string
	everywhere := false
	for _, g := range v.cfg.Grants {
		switch {
		case !slices.Contains(groups, g.Group) || role != g.Role && role.Includes(g.Role):
			continue
		case role != g.Role:
			role, nodes, everywhere = g.Role, nil, false
		}
		everywhere = everywhere || g.Nodes == ""
		nodes = append(nodes, g.Nodes)
	}
	if everywhere {
		return role, ""
	}
	return role, strings.Join(nodes, ",")
}

// texts are the strings of a claim, which is one or a list of them.
func texts(claim any) (all []string) {
	switch c := claim.(type) {
	case string:
		all = append(all, c)
	case []any:
		for _, one := range c {
			if s, ok := one.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}
