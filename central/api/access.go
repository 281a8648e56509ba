package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// User is a person or a program that may ask.
type User struct {
	Name            string     `json:"name"`
	Role            string     `json:"role"`            // viewer, operator or admin
	Nodes           string     `json:"nodes,omitempty"` // NODES expression of the nodes that the role is for; "": all
	SpeaksForOthers bool       `json:"speaks_for_others,omitempty"`
	CreatedAt       time.Time  `json:"created_at,omitzero"`
	CreatedBy       string     `json:"created_by,omitempty"`
	HasToken        bool       `json:"has_token"`
	ExpiresAt       *time.Time `json:"expires_at,omitempty"` // of the token
	UsedAt          *time.Time `json:"used_at,omitempty"`    // of the token

	Certificates []UserCertificate `json:"certificates,omitempty"` // that were not revoked
	Via          string            `json:"via,omitempty"`          // how the one who asks is known; GET /v1/whoami only
}

// AddUser adds a user, or changes one.
type AddUser struct {
	Name            string        `json:"name"`
	Role            string        `json:"role"`
	Nodes           string        `json:"nodes,omitempty"`
	SpeaksForOthers bool          `json:"speaks_for_others,omitempty"`
	TTL             time.Duration `json:"ttl,omitempty"` // of the token, in nanoseconds; 0: until it is revoked
	NoToken         bool          `json:"no_token,omitempty"`
	Update          bool          `json:"update,omitempty"`
	AskedBy         string        `json:"asked_by,omitempty"`
	Reason          string        `json:"reason,omitempty"`
}

// Validate says what is wrong by itself.
func (in AddUser) Validate() error {
	if err := CheckName(in.Name); err != nil {
		return err
	}
	if in.TTL < 0 {
		return Problemf(CodeBadRequest, "ttl is negative")
	}
	return CheckTexts(in.Nodes, in.AskedBy, in.Reason)
}

// NewToken answers AddUser and RotateToken: the only time that the token is shown.
type NewToken struct {
	Name      string     `json:"name"`
	Token     string     `json:"token,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// RotateToken revokes the tokens and certificates of a user and makes a new token.
type RotateToken struct {
	TTL         time.Duration `json:"ttl,omitempty"`
	RevokeOnly  bool          `json:"revoke_only,omitempty"`
	Certificate string        `json:"certificate,omitempty"` // serial of the one that alone is revoked; with RevokeOnly
	AskedBy     string        `json:"asked_by,omitempty"`
	Reason      string        `json:"reason,omitempty"`
}

// Validate says what is wrong by itself.
func (in RotateToken) Validate() error {
	if in.TTL < 0 {
		return Problemf(CodeBadRequest, "ttl is negative")
	}
	if in.Certificate != "" && !in.RevokeOnly {
		return Problemf(CodeBadRequest, "certificate goes with revoke_only")
	}
	return CheckTexts(in.AskedBy, in.Reason, in.Certificate)
}

// CertifyUser asks for a client certificate of a user.
type CertifyUser struct {
	Request string        `json:"request"`       // a signing request in PEM
	TTL     time.Duration `json:"ttl,omitempty"` // 0: 30 days
	AskedBy string        `json:"asked_by,omitempty"`
	Reason  string        `json:"reason,omitempty"`
}

// Validate says what is wrong by itself.
func (in CertifyUser) Validate() error {
	if in.TTL < 0 {
		return Problemf(CodeBadRequest, "ttl is negative")
	}
	return CheckTexts(in.AskedBy, in.Reason)
}

// UserCertificate is a client certificate of a user.
type UserCertificate struct {
	User        string     `json:"user,omitempty"`
	Serial      string     `json:"serial"` // in hexadecimal
	NotAfter    time.Time  `json:"not_after"`
	UsedAt      *time.Time `json:"used_at,omitempty"`
	Certificate string     `json:"certificate,omitempty"` // PEM; in the answer to CertifyUser only
}

// RemoveUser removes a user with its tokens.
type RemoveUser struct {
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Validate says what is wrong by itself.
func (in RemoveUser) Validate() error { return CheckTexts(in.AskedBy, in.Reason) }

// MakeAgentToken asks for the line that enrols an agent once.
type MakeAgentToken struct {
	TTL     time.Duration `json:"ttl,omitempty"` // 0: 15 min
	AskedBy string        `json:"asked_by,omitempty"`
}

// Validate says what is wrong by itself.
func (in MakeAgentToken) Validate() error { return CheckTexts(in.AskedBy) }

// AgentToken answers MakeAgentToken.
type AgentToken struct {
	Agent     string    `json:"agent"`
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
}

// JoinSite is how an agent enrols: with the secret of its token and a signing request.
type JoinSite struct {
	Agent   string `json:"agent"`
	Secret  string `json:"secret"`
	Request string `json:"request"` // PEM
}

// Validate says what is wrong by itself.
func (in JoinSite) Validate() error { return CheckName(in.Agent) }

// RenewCertificate is how an agent with a certificate gets the next one.
type RenewCertificate struct {
	Request string `json:"request"` // PEM
}

// SiteCertificate answers JoinSite and RenewCertificate, in PEM.
type SiteCertificate struct {
	Certificate string `json:"certificate"`
	CA          string `json:"ca"`
}

// RevokeAgent has the certificates of an agent hold no longer.
type RevokeAgent struct {
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Validate says what is wrong by itself.
func (in RevokeAgent) Validate() error { return CheckTexts(in.AskedBy, in.Reason) }

// SiteCA is the certificate authority of a site.
type SiteCA struct {
	Site string `json:"site"`
	Hash string `json:"hash"` // sha256: of its public key
	CA   string `json:"ca"`   // PEM
}

// AgentCertificate is what central knows of the credentials of an agent.
type AgentCertificate struct {
	Serial     string     `json:"serial,omitempty"`
	NotAfter   *time.Time `json:"not_after,omitempty"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
	TokenUntil *time.Time `json:"token_until,omitempty"` // an enrolment token that was not used
}

// WhoAmI says who asks, as central knows it.
func (c *Client) WhoAmI(ctx context.Context) (User, error) {
	return call[User](ctx, c, http.MethodGet, "/v1/whoami", nil)
}

// Users lists the users.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	return list[User](ctx, c, "/v1/users")
}

// AddUser adds a user, or changes one.
func (c *Client) AddUser(ctx context.Context, in AddUser) (NewToken, error) {
	return call[NewToken](ctx, c, http.MethodPost, "/v1/users", in)
}

// RotateToken revokes the tokens of a user and makes a new one.
func (c *Client) RotateToken(ctx context.Context, user string, in RotateToken) (NewToken, error) {
	return call[NewToken](ctx, c, http.MethodPost, "/v1/users/"+url.PathEscape(user)+"/rotate", in)
}

// CertifyUser gets a client certificate for a key of a user.
func (c *Client) CertifyUser(ctx context.Context, user string, in CertifyUser) (UserCertificate, error) {
	return call[UserCertificate](ctx, c, http.MethodPost, "/v1/users/"+url.PathEscape(user)+"/certificate", in)
}

// RemoveUser removes a user with its tokens.
func (c *Client) RemoveUser(ctx context.Context, user string, in RemoveUser) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/users/"+url.PathEscape(user)+"/remove", in)
}

// AgentToken makes the line that enrols an agent once.
func (c *Client) AgentToken(ctx context.Context, agent string, in MakeAgentToken) (AgentToken, error) {
	return call[AgentToken](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/token", in)
}

// RevokeAgent has the certificates of an agent hold no longer.
func (c *Client) RevokeAgent(ctx context.Context, agent string, in RevokeAgent) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/revoke", in)
}

// SiteCA shows the CA of the site.
func (c *Client) SiteCA(ctx context.Context) (SiteCA, error) {
	return call[SiteCA](ctx, c, http.MethodGet, "/v1/ca", nil)
}

// JoinSite enrols an agent.
func (c *Client) JoinSite(ctx context.Context, in JoinSite) (SiteCertificate, error) {
	return call[SiteCertificate](ctx, c, http.MethodPost, "/v1/join", in)
}

// RenewCertificate gets an agent its next certificate.
func (c *Client) RenewCertificate(ctx context.Context, agent string, in RenewCertificate) (SiteCertificate, error) {
	return call[SiteCertificate](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/renew", in)
}

// RotateSealKey has another key seal the passwords in central's database.
type RotateSealKey struct {
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// SealKey says which key seals the passwords.
type SealKey struct {
	From string `json:"from"` // id of the key of before
	To   string `json:"to"`   // id of the one that seals now
	Kept string `json:"kept"` // file that has the key of before
}

// RotateSealKey has another key seal the passwords in central's database.
func (c *Client) RotateSealKey(ctx context.Context, in RotateSealKey) (SealKey, error) {
	return call[SealKey](ctx, c, http.MethodPost, "/v1/seal/rotate", in)
}
