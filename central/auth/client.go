package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Pinned is the TLS configuration of a client that knows nothing of a site but the hash of
// its CA: it takes the CA's certificate from the server's chain, and then asks of the chain
// what any client does. seen is called with the CA's certificate when all of it holds.
func Pinned(hash string, seen func(ca *x509.Certificate)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, against the CA of the hash
		VerifyConnection: func(state tls.ConnectionState) error {
			ca, err := pinnedChain(state, hash)
			if err == nil && seen != nil {
				seen(ca)
			}
			return err
		},
	}
}

func pinnedChain(state tls.ConnectionState, hash string) (*x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, errors.New("the server showed no certificate")
	}
	for _, c := range state.PeerCertificates[1:] {
		if c.IsCA && Hash(c) == hash {
			return c, VerifyServer(state, c)
		}
	}
	return nil, errors.New("the server belongs to another site: none of its certificates is of the CA with the hash that was given")
}

// Begun is the time by which a certificate is verified: now, but not before it began. A
// clock that is behind, or was set back, refuses nobody; one that ended has ended.
func Begun(cert *x509.Certificate, now time.Time) time.Time {
	if now.Before(cert.NotBefore) {
		return cert.NotBefore
	}
	return now
}

// VerifyServer verifies the certificate of a server against a CA.
func VerifyServer(state tls.ConnectionState, ca *x509.Certificate) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server showed no certificate")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca)
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		DNSName: state.ServerName, Roots: roots, Intermediates: between, CurrentTime: Begun(state.PeerCertificates[0],
			time.Now()), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// Trusting is the TLS configuration of a client that knows the certificate of the site's
// CA, in PEM. It verifies as VerifyServer does.
func Trusting(ca []byte) (*tls.Config, error) {
	cert, err := ParseCert(ca)
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate of the site's CA: %w", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection verifies
		VerifyConnection:   func(state tls.ConnectionState) error { return VerifyServer(state, cert) },
	}, nil
}
