package bmcsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// certificate makes the certificate of a BMC. Its key is a function of seed, name and
// number alone, so that a simulator that was started again is known by the same key; it
// protects nothing.
func certificate(seed int64, name string, number int, ip net.IP) (*tls.Certificate, error) {
	key, err := keyFrom(fmt.Sprintf("%d/%s/%d", seed, name, number))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(number) + 1),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"simulated BMC"}},
		IPAddresses:  []net.IP{ip},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// keyFrom makes a key of a text: one number in 2^32 is none of the curve, the next one is.
func keyFrom(text string) (key *ecdsa.PrivateKey, err error) {
	sum := sha256.Sum256([]byte(text))
	for range 4 {
		if key, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:]); err == nil {
			return key, nil
		}
		sum = sha256.Sum256(sum[:])
	}
	return nil, err
}

// Certificate returns the certificate that the BMC shows on its Redfish port, nil if that
// speaks plain HTTP or is not there.
func (b *BMC) Certificate() *x509.Certificate {
	_, unlock := b.look()
	defer unlock()
	if b.redfish == nil || b.farm.cfg.Redfish.Plain {
		return nil
	}
	cert, err := b.redfish.certificate()
	if err != nil {
		return nil
	}
	return cert.Leaf
}

// certificate returns the BMC's certificate, which is made when it is first needed.
func (w *redfish) certificate() (*tls.Certificate, error) {
	if w.cert == nil {
		cert, err := certificate(w.b.farm.cfg.Seed, w.b.name, w.certNumber, w.addr.Addr().AsSlice())
		if err != nil {
			return nil, err
		}
		w.cert = cert
	}
	return w.cert, nil
}

// tlsOf is the TLS configuration of all BMCs of a farm: which BMC is asked is known from
// the connection. No session is resumed, so that a new certificate is seen at once.
func tlsOf() *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			w := hello.Conn.(*webConn).redfish
			w.b.mu.Lock()
			defer w.b.mu.Unlock()
			return w.certificate()
		},
	}
	older := cfg.Clone()
	older.MaxVersion = tls.VersionTLS12
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		w := hello.Conn.(*webConn).redfish
		w.b.mu.Lock()
		defer w.b.mu.Unlock()
		if w.faults.tls12 {
			return older, nil
		}
		return nil, nil
	}
	return cfg
}
