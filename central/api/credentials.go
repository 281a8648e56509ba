package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"rackpower/power"
)

// Credentials are a user and a password for BMCs that nodes name, or a rack for its nodes.
// The password is never shown.
type Credentials struct {
	Name string `json:"name"`
	// AtRacks says that central does not have them: agents must, in a file of their own.
	AtRacks bool      `json:"at_racks,omitempty"`
	User    string    `json:"user,omitempty"`
	KG      bool      `json:"kg,omitempty"`      // there is a key K_g
	Damaged bool      `json:"damaged,omitempty"` // what central has does not open: set them anew
	Nodes   int       `json:"nodes"`             // that they count for
	Racks   []string  `json:"racks,omitempty"`
	SetAt   time.Time `json:"set_at,omitzero"`
	SetBy   string    `json:"set_by,omitempty"`
}

// SetCredentials is the body of POST /v1/credentials/{name}: it adds or replaces them.
type SetCredentials struct {
	User     string `json:"user"`
	Password string `json:"password"`
	KG       string `json:"kg,omitempty"`
	AskedBy  string `json:"asked_by,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// Validate says what is wrong by itself. No error repeats a secret.
func (in SetCredentials) Validate() error {
	if in.Password == "" {
		return errors.New("the password is missing")
	}
	_, wrongKG := power.ParseKG(power.Secret(in.KG))
	return errors.Join(power.CheckUser(in.User), power.CheckPassword(power.Secret(in.Password), ""), wrongKG, CheckTexts(in.AskedBy, in.Reason))
}

// RemoveCredentials is the body of POST /v1/credentials/{name}/remove.
type RemoveCredentials struct {
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Validate says what is wrong by itself.
func (in RemoveCredentials) Validate() error { return CheckTexts(in.AskedBy, in.Reason) }

// Credentials lists the credentials that nodes may name, and those that they name and that
// central does not have.
func (c *Client) Credentials(ctx context.Context) ([]Credentials, error) {
	return call[[]Credentials](ctx, c, http.MethodGet, "/v1/credentials", nil)
}

// SetCredentials adds or replaces credentials.
func (c *Client) SetCredentials(ctx context.Context, name string, in SetCredentials) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/credentials/"+url.PathEscape(name), in)
}

// RemoveCredentials removes credentials that nothing names.
func (c *Client) RemoveCredentials(ctx context.Context, name string, in RemoveCredentials) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/credentials/"+url.PathEscape(name)+"/remove", in)
}
