// Package identity keeps the certificate by which an agent of another machine is known to
// central: it enrols with a token once, keeps key and certificate in one file of the data
// directory, and renews them at half their life.
package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// FileName is the file within the data directory. It holds the private key, the
// certificate and the certificate of the site's CA, in this order.
const FileName = "identity.pem"

// Central is what is asked of central. *api.Client is one.
type Central interface {
	JoinSite(ctx context.Context, in api.JoinSite) (api.SiteCertificate, error)
	RenewCertificate(ctx context.Context, agent string, in api.RenewCertificate) (api.SiteCertificate, error)
}

// Identity is the certificate of an agent, if it has one. It may be used concurrently.
type Identity struct {
	name, path string
	token      func() (string, error)
	log        *slog.Logger

	mu   sync.Mutex
	cert *tls.Certificate // nil: none yet
	ca   *x509.Certificate
	pin  string // hash of the CA while it enrols
	// unsaved is what the file does not have yet: it could not be written. The token is used
	// up by then, so the certificate is used from memory and the file tried again.
	unsaved []byte
}

// Open reads the identity of the agent from its data directory, where it may have none.
// token reads the enrolment token; it is asked for only when there is no certificate that
// holds, and gives "" for none.
func Open(dir, name string, token func() (string, error), log *slog.Logger) (*Identity, error) {
	id := &Identity{name: name, path: filepath.Join(dir, FileName), token: token, log: log}
	text, err := os.ReadFile(id.path)
	if errors.Is(err, os.ErrNotExist) {
		return id, nil
	}
	if err == nil {
		err = id.take(text)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w; remove the file and enrol again (rackpower agents token %s)", id.path, err, name)
	}
	return id, nil
}

// take makes the identity of the text of its file.
func (id *Identity) take(text []byte) error {
	cert, err := tls.X509KeyPair(text, text)
	if err != nil {
		return err
	}
	if len(cert.Certificate) != 2 {
		return errors.New("it does not hold two certificates, the agent's and the CA's")
	}
	ca, err := x509.ParseCertificate(cert.Certificate[1])
	if err != nil {
		return err
	}
	cert.Certificate = cert.Certificate[:1]
	if kind, name, err := auth.Identity(cert.Leaf, ""); err != nil || kind != auth.Agent || name != id.name {
		return fmt.Errorf("it is of another agent than %s", id.name)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.cert, id.ca = &cert, ca
	return nil
}

// Enrolled reports whether there is a certificate, which may have expired.
func (id *Identity) Enrolled() bool { return id.leaf() != nil }

// Ends is when the certificate ends, zero where there is none.
func (id *Identity) Ends() time.Time {
	if leaf := id.leaf(); leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{}
}

func (id *Identity) leaf() *x509.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.cert == nil {
		return nil
	}
	return id.cert.Leaf
}

// TLS is how the agent asks central: with the certificate that it has at the time, and only
// a central whose certificate is of the site's CA.
func (id *Identity) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, against the CA that is known at the time
		VerifyConnection:   id.verify,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			id.mu.Lock()
			defer id.mu.Unlock()
			if id.cert == nil {
				return new(tls.Certificate), nil
			}
			return id.cert, nil
		},
	}
}

func (id *Identity) verify(state tls.ConnectionState) error {
	id.mu.Lock()
	ca, pin := id.ca, id.pin
	id.mu.Unlock()
	switch {
	case pin != "":
		return auth.Pinned(pin, nil).VerifyConnection(state)
	case ca == nil:
		return fmt.Errorf("agent %s has no certificate yet: make a token (rackpower agents token %s) and give its file with --token-file",
			id.name, id.name)
	}
	return auth.VerifyServer(state, ca)
}

// Times of Keep.
const (
	firstPause = time.Second
	mostPause  = time.Minute
	lookAgain  = 10 * time.Minute // whether to renew
)

// Keep enrols when there is no certificate that holds, and renews it at half its life,
// until ctx ends. changed is called after each new certificate.
func (id *Identity) Keep(ctx context.Context, central Central, changed func()) {
	pause, said := firstPause, ""
	for ctx.Err() == nil {
		wait, err := id.step(ctx, central, time.Now())
		switch {
		case err == nil && wait == 0:
			changed()
			pause, said = firstPause, ""
			continue
		case err != nil:
			if text := err.Error(); text != said && ctx.Err() == nil {
				said = text
				id.log.Error("no certificate from central", "agent", id.name, "err", err)
			}
			wait, pause = pause, min(2*pause, mostPause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// step does what is due; wait is how long nothing will be, 0 after a new certificate.
func (id *Identity) step(ctx context.Context, central Central, now time.Time) (wait time.Duration, err error) {
	leaf, unsaved := id.leaf(), id.save()
	switch {
	case leaf == nil || now.After(leaf.NotAfter):
		return 0, id.enrol(ctx, central, leaf)
	case now.Before(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)):
		return lookAgain, unsaved
	}
	return 0, id.renew(ctx, central)
}

// save has the file hold the certificate that is in use.
func (id *Identity) save() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.unsaved == nil {
		return nil
	}
	if err := auth.WriteFile(id.path, id.unsaved, 0o600); err != nil {
		return fmt.Errorf("the certificate is in memory only, a restart loses it: %w", err)
	}
	id.unsaved = nil
	return nil
}

func (id *Identity) enrol(ctx context.Context, central Central, expired *x509.Certificate) error {
	text, err := id.token()
	if err != nil {
		return err
	}
	if text == "" {
		if expired != nil {
			return fmt.Errorf("the certificate expired at %s: make a token (rackpower agents token %s) and give its file with --token-file",
				expired.NotAfter.Format(time.RFC3339), id.name)
		}
		return fmt.Errorf("there is no certificate and no token: make one (rackpower agents token %s) and give its file with --token-file",
			id.name)
	}
	token, err := auth.ParseEnrolment(text)
	if err != nil {
		return err
	}
	if token.Agent != id.name {
		return fmt.Errorf("the token is agent %s's, and this is %s", token.Agent, id.name)
	}
	id.setPin(token.CAHash)
	defer id.setPin("")
	return id.fetch(func(request string) (api.SiteCertificate, error) {
		out, err := central.JoinSite(ctx, api.JoinSite{Agent: id.name, Secret: token.Secret, Request: request})
		if err != nil {
			return out, err
		}
		ca, err := auth.ParseCert([]byte(out.CA))
		if err == nil && auth.Hash(ca) != token.CAHash {
			err = errors.New("central named another CA than the token does")
		}
		return out, err
	})
}

func (id *Identity) setPin(hash string) {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.pin = hash
}

func (id *Identity) renew(ctx context.Context, central Central) error {
	return id.fetch(func(request string) (api.SiteCertificate, error) {
		return central.RenewCertificate(ctx, id.name, api.RenewCertificate{Request: request})
	})
}

// fetch makes a key, has it certified, and keeps both once they hold together.
func (id *Identity) fetch(certify func(request string) (api.SiteCertificate, error)) error {
	key, err := auth.NewKey()
	if err != nil {
		return err
	}
	signer, err := auth.ParseKey(key)
	if err != nil {
		return err
	}
	request, err := auth.NewRequest(signer, id.name)
	if err != nil {
		return err
	}
	out, err := certify(string(request))
	if err != nil {
		return err
	}
	text := bytes.Join([][]byte{key, onlyCertificate(out.Certificate), onlyCertificate(out.CA)}, nil)
	next := &Identity{name: id.name}
	if err := next.take(text); err != nil {
		return fmt.Errorf("the certificate from central is of no use: %w", err)
	}
	if err := id.take(text); err != nil {
		return err
	}
	id.mu.Lock()
	id.unsaved = text
	id.mu.Unlock()
	id.log.Info("certificate from central", "agent", id.name, "until", next.cert.Leaf.NotAfter)
	_ = id.save() // else the next step does, or says why not
	return nil
}

// onlyCertificate is the first block of a PEM text, if it is a certificate.
func onlyCertificate(text string) []byte {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
}
