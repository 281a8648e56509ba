package store

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// User is who may ask over the network, or on the socket beside root and central's own
// user.
type User struct {
	Name      string
	Role      string
	Scope     string // a NODES expression; "": all nodes
	Speaks    bool   // may ask in the name of others
	CreatedAt time.Time
	CreatedBy string
	// ExpiresAt and UsedAt are those of its newest token; zero: none, or never.
	ExpiresAt, UsedAt time.Time
	Tokens            int
}

// Certificate is a client certificate of a user.
type Certificate struct {
	Serial    string
	User      string
	CreatedAt time.Time
	NotAfter  time.Time
	Until     time.Time // renewals go no further; zero: as far as they like
	UsedAt    time.Time // zero: never
}

// Enrolment is what is known of the credentials of an agent.
type Enrolment struct {
	Agent     string
	Token     string    // SHA-256 of the secret that may be used once; "": none
	ExpiresAt time.Time // of the token
	UsedAt    time.Time // of the token; zero: not used
	Serial    string    // of the newest certificate; "": none
	NotAfter  time.Time // of the newest certificate
	RevokedAt time.Time // certificates that began by then hold no longer
}

const (
	userColumns = `name, role, scope, speaks, created_at, created_by,
		coalesce((SELECT max(expires_at) FROM tokens WHERE "user" = name), 0), coalesce((SELECT max(used_at) FROM tokens WHERE "user" = name), 0),
		(SELECT count(*) FROM tokens WHERE "user" = name)`
	sqlUsers   = `SELECT ` + userColumns + ` FROM users ORDER BY name`
	sqlUser    = `SELECT ` + userColumns + ` FROM users WHERE name = $1`
	sqlPutUser = `INSERT INTO users (name, role, scope, speaks, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (name) DO UPDATE SET role = excluded.role, scope = excluded.scope, speaks = excluded.speaks`
	sqlDropUser   = `DELETE FROM users WHERE name = $1`
	sqlDropTokens = `DELETE FROM tokens WHERE "user" = $1`
	sqlAddToken   = `INSERT INTO tokens (hash, "user", created_at, expires_at) VALUES ($1, $2, $3, $4)`
	sqlToken      = `SELECT "user", expires_at FROM tokens WHERE hash = $1`
	sqlTokenUsed  = `UPDATE tokens SET used_at = $1 WHERE hash = $2`

	certificateColumns   = `serial, "user", created_at, not_after, until, used_at`
	sqlCertificates      = `SELECT ` + certificateColumns + ` FROM certificates ORDER BY "user", not_after`
	sqlCertificate       = `SELECT ` + certificateColumns + ` FROM certificates WHERE serial = $1`
	sqlAddCertificate    = `INSERT INTO certificates (` + certificateColumns + `) VALUES ($1, $2, $3, $4, $5, $6)`
	sqlCertificateUsed   = `UPDATE certificates SET used_at = $1 WHERE serial = $2`
	sqlDropCertificates  = `DELETE FROM certificates WHERE "user" = $1 AND (serial = $2 OR $2 = '')`
	sqlPruneCertificates = `DELETE FROM certificates WHERE "user" = $1 AND not_after < $2`

	enrolmentColumns = `agent, token, expires_at, used_at, serial, not_after, revoked_at`
	sqlEnrolments    = `SELECT ` + enrolmentColumns + ` FROM enrolments ORDER BY agent`
	sqlEnrolment     = `SELECT ` + enrolmentColumns + ` FROM enrolments WHERE agent = $1`
	sqlPutEnrolment  = `INSERT INTO enrolments (` + enrolmentColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (agent) DO UPDATE SET token = excluded.token, expires_at = excluded.expires_at, used_at = excluded.used_at,
		serial = excluded.serial, not_after = excluded.not_after, revoked_at = excluded.revoked_at`
)

func scanUser(r scanner) (u User, err error) {
	var created, expires, used int64
	err = r.Scan(&u.Name, &u.Role, &u.Scope, &u.Speaks, &created, &u.CreatedBy, &expires, &used, &u.Tokens)
	u.CreatedAt, u.ExpiresAt, u.UsedAt = timeAt(created), timeAt(expires), timeAt(used)
	return u, err
}

// Users lists the users by name.
func (t *Tx) Users() (all []User, err error) {
	err = t.each(func(r *sql.Rows) error {
		u, err := scanUser(r)
		all = append(all, u)
		return err
	}, sqlUsers)
	if err != nil {
		return nil, fmt.Errorf("cannot read users: %w", err)
	}
	return all, nil
}

// User returns a user.
func (t *Tx) User(name string) (User, bool, error) {
	u, err := scanUser(t.row(sqlUser, name))
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, false, nil
	}
	if err != nil {
		return User{}, false, fmt.Errorf("cannot read users: %w", disk(err))
	}
	return u, true, nil
}

// PutUser adds a user or changes one, whose tokens stay.
func (t *Tx) PutUser(u User) error {
	if _, err := t.exec(sqlPutUser, u.Name, u.Role, u.Scope, u.Speaks, nanos(u.CreatedAt), u.CreatedBy); err != nil {
		return fmt.Errorf("cannot write user: %w", err)
	}
	return nil
}

// DropUser removes a user with its tokens and certificates.
func (t *Tx) DropUser(name string) error {
	if err := t.DropTokens(name); err != nil {
		return err
	}
	if _, err := t.DropCertificates(name, ""); err != nil {
		return err
	}
	if _, err := t.exec(sqlDropUser, name); err != nil {
		return fmt.Errorf("cannot remove user: %w", err)
	}
	return nil
}

// DropTokens revokes the tokens of a user.
func (t *Tx) DropTokens(user string) error {
	if _, err := t.exec(sqlDropTokens, user); err != nil {
		return fmt.Errorf("cannot revoke tokens: %w", err)
	}
	return nil
}

// AddToken stores the hash of a token of a user; expires zero: never.
func (t *Tx) AddToken(hash, user string, created, expires time.Time) error {
	if _, err := t.exec(sqlAddToken, hash, user, nanos(created), nanos(expires)); err != nil {
		return fmt.Errorf("cannot write token: %w", err)
	}
	return nil
}

// Token finds the user of a token by its hash.
func (t *Tx) Token(hash string) (user string, expires time.Time, found bool, err error) {
	var at int64
	err = t.row(sqlToken, hash).Scan(&user, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return "", time.Time{}, false, nil
	}
	if err != nil {
		return "", time.Time{}, false, fmt.Errorf("cannot read tokens: %w", disk(err))
	}
	return user, timeAt(at), true, nil
}

// TokenUsed notes when a token was used last.
func (t *Tx) TokenUsed(hash string, at time.Time) error {
	if _, err := t.exec(sqlTokenUsed, nanos(at), hash); err != nil {
		return fmt.Errorf("cannot write token: %w", err)
	}
	return nil
}

func scanCertificate(r scanner) (c Certificate, err error) {
	var created, notAfter, until, used int64
	err = r.Scan(&c.Serial, &c.User, &created, &notAfter, &until, &used)
	c.CreatedAt, c.NotAfter, c.Until, c.UsedAt = timeAt(created), timeAt(notAfter), timeAt(until), timeAt(used)
	return c, err
}

// Certificates lists the certificates of users, by user.
func (t *Tx) Certificates() (all []Certificate, err error) {
	err = t.each(func(r *sql.Rows) error {
		c, err := scanCertificate(r)
		all = append(all, c)
		return err
	}, sqlCertificates)
	if err != nil {
		return nil, fmt.Errorf("cannot read certificates: %w", err)
	}
	return all, nil
}

// Certificate finds a certificate of a user that was not revoked.
func (t *Tx) Certificate(serial string) (Certificate, bool, error) {
	c, err := scanCertificate(t.row(sqlCertificate, serial))
	if errors.Is(err, sql.ErrNoRows) {
		return Certificate{}, false, nil
	}
	if err != nil {
		return Certificate{}, false, fmt.Errorf("cannot read certificates: %w", disk(err))
	}
	return c, true, nil
}

// AddCertificate stores a certificate of a user. Those of the user that have expired go.
func (t *Tx) AddCertificate(c Certificate) error {
	if _, err := t.exec(sqlPruneCertificates, c.User, nanos(c.CreatedAt)); err != nil {
		return fmt.Errorf("cannot remove certificates: %w", err)
	}
	_, err := t.exec(sqlAddCertificate, c.Serial, c.User, nanos(c.CreatedAt), nanos(c.NotAfter), nanos(c.Until), nanos(c.UsedAt))
	if err != nil {
		return fmt.Errorf("cannot write certificate: %w", err)
	}
	return nil
}

// CertificateUsed notes when a certificate was used last.
func (t *Tx) CertificateUsed(serial string, at time.Time) error {
	if _, err := t.exec(sqlCertificateUsed, nanos(at), serial); err != nil {
		return fmt.Errorf("cannot write certificate: %w", err)
	}
	return nil
}

// DropCertificates revokes certificates of a user: the one with a serial, "" for all.
func (t *Tx) DropCertificates(user, serial string) (n int64, err error) {
	if n, err = t.exec(sqlDropCertificates, user, serial); err != nil {
		return 0, fmt.Errorf("cannot revoke certificates: %w", err)
	}
	return n, nil
}

func scanEnrolment(r scanner) (e Enrolment, err error) {
	var expires, used, until, revoked int64
	err = r.Scan(&e.Agent, &e.Token, &expires, &used, &e.Serial, &until, &revoked)
	e.ExpiresAt, e.UsedAt, e.NotAfter, e.RevokedAt = timeAt(expires), timeAt(used), timeAt(until), timeAt(revoked)
	return e, err
}

// Enrolments lists what is known of the credentials of agents, by name.
func (t *Tx) Enrolments() (all []Enrolment, err error) {
	err = t.each(func(r *sql.Rows) error {
		e, err := scanEnrolment(r)
		all = append(all, e)
		return err
	}, sqlEnrolments)
	if err != nil {
		return nil, fmt.Errorf("cannot read enrolments: %w", err)
	}
	return all, nil
}

// Enrolment returns what is known of the credentials of an agent, a zero one for nothing.
func (t *Tx) Enrolment(agent string) (Enrolment, error) {
	e, err := scanEnrolment(t.row(sqlEnrolment, agent))
	if errors.Is(err, sql.ErrNoRows) {
		return Enrolment{Agent: agent}, nil
	}
	if err != nil {
		return Enrolment{}, fmt.Errorf("cannot read enrolments: %w", disk(err))
	}
	return e, nil
}

// PutEnrolment stores what is known of the credentials of an agent.
func (t *Tx) PutEnrolment(e Enrolment) error {
	_, err := t.exec(sqlPutEnrolment, e.Agent, e.Token, nanos(e.ExpiresAt), nanos(e.UsedAt), e.Serial, nanos(e.NotAfter), nanos(e.RevokedAt))
	if err != nil {
		return fmt.Errorf("cannot write enrolment: %w", err)
	}
	return nil
}
