package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Role is what a principal may do. Each role may do what the roles before it in Roles may.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // reads
	Operator Role = "operator" // power, holds and statuses of nodes
	Admin    Role = "admin"    // nodes, racks, agents, users, credentials
)

// Roles lists the roles from the least to the most powerful.
var Roles = []Role{Viewer, Operator, Admin}

// ParseRole reads a role.
func ParseRole(text string) (Role, error) {
	if r := Role(text); slices.Contains(Roles, r) {
		return r, nil
	}
	return "", fmt.Errorf("%q is no role: want viewer, operator or admin", text)
}

// Includes reports whether who has the role r may do what asks for least. No role includes
// nothing.
func (r Role) Includes(least Role) bool {
	have, want := slices.Index(Roles, r), slices.Index(Roles, least)
	return have >= 0 && want >= 0 && have >= want
}

// Kind is what a principal is.
type Kind string

// The kinds of principals.
const (
	User  Kind = "user"  // a person or a program
	Agent Kind = "agent" // the agent of a rack
)

// Method is how a principal was authenticated; the audit log has it.
type Method string

// The methods.
const (
	BySocket      Method = "socket"      // the user at the other end of a unix socket
	ByCertificate Method = "certificate" // a client certificate
	ByToken       Method = "token"       // a bearer token of central's own
	ByOIDC        Method = "oidc"        // an ID token of an OpenID Connect issuer
)

// Principal is who asks.
type Principal struct {
	Kind Kind
	Name string // of the user, or of the agent
	Role Role   // of a user
	// Scope is the NODES expression of the nodes that the role is for; "" or "all": all.
	Scope string
	// Speaks is the right to ask in the name of others.
	Speaks  bool
	Method  Method
	Address string // of the peer; "" for a unix socket
	// Own says that a socket's user is root or the user of central itself.
	Own bool
	// Serial is the certificate's, in hexadecimal; "" without one.
	Serial string
	// Until is when the token expires; zero: never, or there is none.
	Until time.Time
}

// Everywhere reports whether the scope is all nodes.
func (p Principal) Everywhere() bool { return p.Scope == "" || p.Scope == "all" }

// For is the name that the audit log has for a request that the principal sends in the
// name of another: "alice for bob". other "" or the principal itself gives its own name.
// It is an error where the principal may not speak for others.
func (p Principal) For(other string) (string, error) {
	if other = strings.TrimSpace(other); other == "" || other == p.Name {
		return p.Name, nil
	}
	if !p.Speaks {
		return "", fmt.Errorf("%s may not ask in the name of %s", p.Name, other)
	}
	return p.Name + " for " + other, nil
}

// ErrNoIssuer is that the issuer of logins could not be asked for its keys: nothing is wrong
// with the token.
var ErrNoIssuer = errors.New("the issuer of the login is not reachable")
