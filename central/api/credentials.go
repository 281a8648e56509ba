package api

import (
	"cmp"
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
	// NextUser and NextAt are those of credentials that take their place, Took the nodes whose
	// BMCs took these, and Keep those that use the old ones yet.
	NextUser string    `json:"next_user,omitempty"`
	NextAt   time.Time `json:"next_at,omitzero"`
	Took     []string  `json:"took,omitempty"`
	Keep     []string  `json:"keep,omitempty"`
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
	return errors.Join(power.CheckUser(in.User), power.CheckPassword(power.Secret(in.Password), ""), wrongKG,
		CheckTexts(in.AskedBy, in.Reason))
}

// RotateCredentials is the body of POST /v1/credentials/{name}/rotate: it gives credentials that
// take the place of the ones of the name, or takes these back.
type RotateCredentials struct {
	SetCredentials
	Cancel bool `json:"cancel,omitempty"`
	// Confirmed says that nodes whose BMCs took the new ones may be left with the old ones.
	Confirmed bool `json:"confirmed,omitempty"`
}

// Validate says what is wrong by itself.
func (in RotateCredentials) Validate() error {
	if in.Cancel {
		return CheckTexts(in.AskedBy, in.Reason)
	}
	return in.SetCredentials.Validate()
}

// RotateCredentials begins, or cancels, the replacement of credentials.
func (c *Client) RotateCredentials(ctx context.Context, name string, in RotateCredentials) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/credentials/"+url.PathEscape(name)+"/rotate", in)
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
	return list[Credentials](ctx, c, "/v1/credentials")
}

// SetCredentials adds or replaces credentials.
func (c *Client) SetCredentials(ctx context.Context, name string, in SetCredentials) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/credentials/"+url.PathEscape(name), in)
}

// RemoveCredentials removes credentials that nothing names.
func (c *Client) RemoveCredentials(ctx context.Context, name string, in RemoveCredentials) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/credentials/"+url.PathEscape(name)+"/remove", in)
}

// TestNodes is the body of POST /v1/tests: have each node's BMC logged in to, once, and say
// what it answers. The answer is []NodeTest in the order of the nodes, when all were tested or
// after Wait.
type TestNodes struct {
	Names []string      `json:"names"`
	Wait  time.Duration `json:"wait,omitempty"` // default 30 s, at most 60 s
	// New tests the credentials that take the place of the nodes' own.
	New     bool   `json:"new,omitempty"`
	AskedBy string `json:"asked_by,omitempty"`
}

// Validate says what is wrong by itself.
func (in TestNodes) Validate() error {
	if in.Wait < 0 {
		return errors.New("wait is negative")
	}
	return CheckTexts(in.AskedBy)
}

// AskedTest is a test that central asks an agent for. The agent tests each ID once.
type AskedTest struct {
	ID   string `json:"id"`
	Node string `json:"node"`
	// Other asks for the node's other credentials of that name, AssignedNode.Other.
	Other string `json:"other,omitempty"`
	// Consumption has the power read that the node takes, in the session that there is, instead.
	Consumption bool `json:"consumption,omitempty"`
}

// NodeTest is what came of the test of a node.
type NodeTest struct {
	ID    string    `json:"id,omitempty"`
	Node  string    `json:"node"`
	Agent string    `json:"agent,omitempty"`
	At    time.Time `json:"at,omitzero"`
	// Reach is ok where the log-in was taken and the BMC answered; never: it was not tested.
	Reach       power.Reach `json:"reach"`
	Tried       bool        `json:"tried"`             // a log-in was tried
	Message     string      `json:"message,omitempty"` // what is wrong; "": nothing
	Credentials string      `json:"credentials,omitempty"`
	User        string      `json:"user,omitempty"`
	// Other names the node's other credentials, where it is these that were tested, or that the
	// agent uses by now.
	Other string `json:"other,omitempty"`
	// Consumption is what was read where it was that which was asked for; else nil.
	Consumption *power.Consumption `json:"consumption,omitempty"`
	power.TestResult
}

// TestNodes has BMCs logged in to, and says what they answer.
func (c *Client) TestNodes(ctx context.Context, in TestNodes) ([]NodeTest, error) {
	return waiting[[]NodeTest](ctx, c, cmp.Or(in.Wait, DefaultTestWait), http.MethodPost, "/v1/tests", in)
}

// DefaultTestWait is how long a test may take where the request does not say.
const DefaultTestWait = 30 * time.Second
