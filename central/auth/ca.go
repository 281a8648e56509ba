package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Lives of certificates.
const (
	AgentLife  = 30 * 24 * time.Hour
	UserLife   = 30 * 24 * time.Hour // unless another is asked for
	serverLife = 90 * 24 * time.Hour
	caLife     = 20 * 365 * 24 * time.Hour
	// skew is how far a client's clock may be behind: its certificate of the server is
	// dated back by it.
	skew = time.Hour
)

// Files of a CA in its directory.
const (
	CAKeyFile  = "ca.key"
	CACertFile = "ca.crt"
)

const uriScheme = "rackpower"

// CA is the certificate authority of a site. It may be used concurrently.
type CA struct {
	site string
	key  crypto.Signer
	cert *x509.Certificate
}

// OpenCA reads the CA of a directory, or makes one for the site where there is none: an
// ECDSA key on P-256 with mode 0600 and its certificate. key is the PEM text of the private
// key where it is kept elsewhere (a systemd credential); nil: in the directory.
func OpenCA(dir, site string, key []byte, now time.Time) (*CA, error) {
	certPath, keyPath := filepath.Join(dir, CACertFile), filepath.Join(dir, CAKeyFile)
	cert, err := readCert(certPath)
	switch {
	case err == nil:
		if key == nil {
			if key, err = os.ReadFile(keyPath); err != nil {
				return nil, fmt.Errorf("cannot read the key of the site's CA: %w", err)
			}
		}
		signer, err := ParseKey(key)
		if err != nil {
			return nil, fmt.Errorf("cannot read the key of the site's CA: %w", err)
		}
		if !samePublic(signer.Public(), cert.PublicKey) {
			return nil, fmt.Errorf("the key of the site's CA does not belong to %s", certPath)
		}
		return &CA{site: siteOf(cert), key: signer, cert: cert}, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("cannot read the certificate of the site's CA: %w", err)
	}
	return makeCA(dir, site, key, now)
}

// makeCA writes the key before the certificate: a certificate without its key would
// promise what nobody can keep.
func makeCA(dir, site string, key []byte, now time.Time) (*CA, error) {
	keyPath := filepath.Join(dir, CAKeyFile)
	if key == nil {
		left, err := os.ReadFile(keyPath) // of a start that ended here
		if err == nil {
			key = left
		} else if key, err = NewKey(); err != nil {
			return nil, err
		}
		if err := WriteFile(keyPath, key, 0o600); err != nil {
			return nil, err
		}
	}
	signer, err := ParseKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of the site's CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "rackpower CA of " + site, Organization: []string{site}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(caLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("cannot make the site's CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := WriteFile(filepath.Join(dir, CACertFile), encodeCert(der), 0o644); err != nil {
		return nil, err
	}
	return &CA{site: site, key: signer, cert: cert}, nil
}

// Site is the name that the CA was made for.
func (ca *CA) Site() string { return ca.site }

// Hash names the CA, see Hash.
func (ca *CA) Hash() string { return Hash(ca.cert) }

// Cert is the CA's certificate in PEM.
func (ca *CA) Cert() []byte { return encodeCert(ca.cert.Raw) }

// Pool has the CA alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Server makes a key and a certificate for central under its names, which may be
// addresses. The certificate of the CA goes with it, for clients that know its hash only.
func (ca *CA) Server(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "rackpower central", Organization: []string{ca.site}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("cannot make the certificate of central: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key, Leaf: leaf}, err
}

// SignAgent makes the certificate of an agent for the key of a signing request in PEM. Of
// the request only the key is used: what it says of its owner is not believed. The answer
// is the certificate in PEM.
func (ca *CA) SignAgent(name string, request []byte, from time.Time) (certificate []byte, leaf *x509.Certificate, err error) {
	return ca.sign(Agent, name, request, from, from.Add(AgentLife))
}

// SignUser is SignAgent for a person or a program, until a time.
func (ca *CA) SignUser(name string, request []byte, from, to time.Time) (certificate []byte, leaf *x509.Certificate, err error) {
	return ca.sign(User, name, request, from, to)
}

func (ca *CA) sign(kind Kind, name string, request []byte, from, to time.Time) (certificate []byte, leaf *x509.Certificate, err error) {
	block, rest := pem.Decode(request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, errors.New("the signing request is no PEM text of a CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the signing request does not hold: %w", err)
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, nil, errors.New("the signing request has another key than ECDSA on P-256")
	}
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: string(kind) + " " + name, Organization: []string{ca.site}},
		NotBefore: from, NotAfter: to, URIs: []*url.URL{identityURI(ca.site, kind, name)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, csr.PublicKey, ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot sign: %w", err)
	}
	leaf, err = x509.ParseCertificate(der)
	return encodeCert(der), leaf, err
}

func identityURI(site string, kind Kind, name string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: url.PathEscape(site), Path: "/" + string(kind) + "/" + name}
}

// Identity is whom a verified client certificate of a site names by its URI SAN
// rackpower://SITE/KIND/NAME. site "": any.
func Identity(cert *x509.Certificate, site string) (Kind, string, error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != uriScheme {
		return "", "", errors.New("the certificate names nobody: it has no rackpower:// URI")
	}
	u := cert.URIs[0]
	if site != "" && u.Host != url.PathEscape(site) {
		return "", "", fmt.Errorf("the certificate is for another site: %q, this one is %q", u.Host, site)
	}
	kind, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if k := Kind(kind); ok && name != "" && !strings.Contains(name, "/") && (k == Agent || k == User) {
		return k, name, nil
	}
	return "", "", fmt.Errorf("the certificate names nobody that is known here: %s", u)
}

// Serial is a certificate's serial number in hexadecimal.
func Serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

const hashPrefix = "sha256:"

// Hash names a CA: the SHA-256 of its public key (SubjectPublicKeyInfo, RFC 7469 section
// 2.4, in hexadecimal), which stays when the certificate is renewed.
func Hash(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hashPrefix + hex.EncodeToString(sum[:])
}

// ParseHash reads what Hash gives, with or without "sha256:" before it.
func ParseHash(text string) (string, error) {
	digits := strings.ToLower(strings.TrimPrefix(strings.TrimSpace(text), hashPrefix))
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != sha256.Size {
		return "", errors.New("the hash of a CA is sha256: and 64 hexadecimal digits")
	}
	return hashPrefix + digits, nil
}

// NewKey makes a private key (ECDSA on P-256) in PEM.
func NewKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads a private key in PEM.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no PEM text")
	}
	if block.Type == "EC PRIVATE KEY" {
		return x509.ParseECPrivateKey(block.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	if signer, ok := key.(crypto.Signer); ok {
		return signer, nil
	}
	return nil, errors.New("it is no key that signs")
}

// NewRequest makes the signing request of a key, in PEM.
func NewRequest(key crypto.Signer, name string) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

func newSerial() *big.Int {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // does not fail
	raw[0] &= 0x7f        // positive in 16 bytes
	return new(big.Int).SetBytes(raw)
}

func siteOf(cert *x509.Certificate) string {
	if len(cert.Subject.Organization) == 1 {
		return cert.Subject.Organization[0]
	}
	return ""
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func readCert(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseCert(text)
}

// ParseCert reads the first certificate of a PEM text.
func ParseCert(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is no PEM text of a CERTIFICATE")
	}
	return x509.ParseCertificate(block.Bytes)
}

// WriteFile replaces a file so that a crash leaves the old one or the new one.
func WriteFile(path string, text []byte, mode os.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write %s: %w", path, err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
