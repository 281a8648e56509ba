package central

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/forward"
)

// DefaultSite is the name of a site that was given none.
const DefaultSite = "default"

// TLSConfig says how central is reached from other machines.
type TLSConfig struct {
	Listen string // HOST:PORT
	// Listener is Listen, where it is open already; nil: central opens it.
	Listener net.Listener
	// Peers takes what other centrals pass on, which stand by on the same database on PostgreSQL; nil:
	// they pass nothing on.
	Peers *forward.Receiver
	Names []string // under which clients reach it: DNS names and addresses
	// Site is the name of the site in the certificates. Default DefaultSite. It stays what it
	// was when the CA was made.
	Site string
	// CAKey is the CA's private key in PEM where it is kept elsewhere; nil: in Data.
	CAKey []byte

	// CertFile and KeyFile are a certificate of another CA in place of central's own, and
	// ClientCA holds the CA of its clients. All or none.
	CertFile, KeyFile, ClientCA string
}

// validate reports what is wrong.
func (t TLSConfig) validate() error {
	external := t.CertFile != ""
	switch {
	case t.Listen == "" && (len(t.Names) > 0 || external || t.KeyFile != "" || t.ClientCA != ""):
		return errors.New("a certificate is of no use without an address to listen on (--listen)")
	case t.Listen == "":
		return nil
	case external != (t.KeyFile != "") || external != (t.ClientCA != ""):
		return errors.New("--tls-cert, --tls-key and --client-ca go together")
	case !external && len(t.Names) == 0:
		return errors.New("without TLS nobody who asks over the network is known: give the names by which agents and people reach " +
			"central (--tls-name NAME, may be repeated); or take --listen away: on this machine all use the socket")
	}
	if t.Site != "" {
		if err := api.CheckName(t.Site); err != nil {
			return fmt.Errorf("--site: %w", err)
		}
	}
	if _, _, err := net.SplitHostPort(t.Listen); err != nil {
		return fmt.Errorf("--listen: %q is not HOST:PORT", t.Listen)
	}
	return nil
}

// serverTLS is TLS as central serves it.
type serverTLS struct {
	site    string
	ca      *auth.CA       // nil: certificates come from elsewhere
	clients *x509.CertPool // whose certificates are taken

	names    []string
	certFile string
	keyFile  string
	now      func() time.Time

	mu     sync.Mutex
	cert   *tls.Certificate
	loaded time.Time                   // modification of certFile
	others map[string]*tls.Certificate // under the names of centrals that pass connections on
}

func newServerTLS(cfg TLSConfig, data string, now func() time.Time) (*serverTLS, error) {
	s := &serverTLS{site: cfg.Site, names: cfg.Names, certFile: cfg.CertFile, keyFile: cfg.KeyFile, now: now}
	if s.site == "" {
		s.site = DefaultSite
	}
	if cfg.CertFile != "" {
		text, err := os.ReadFile(cfg.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA of the clients: %w", err)
		}
		if s.clients = x509.NewCertPool(); !s.clients.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", cfg.ClientCA)
		}
	} else {
		ca, err := auth.OpenCA(data, s.site, cfg.CAKey, now())
		if err != nil {
			return nil, err
		}
		s.ca, s.clients, s.site = ca, ca.Pool(), ca.Site()
	}
	_, err := s.certificate(nil)
	return s, err
}

// certificate gives the handshake the certificate of central: a new one when half the life
// of the last is over, or when the file has changed. A file that cannot be read, or is half
// written, leaves the one before in place.
//
// Whoever was passed on by another central asked for one of its names.
func (s *serverTLS) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ca == nil {
		return s.fromFile()
	}
	if hello != nil {
		if passed, ok := hello.Conn.(*forward.Conn); ok && len(passed.Names) > 0 {
			return s.forOther(passed.Names)
		}
	}
	cert, err := s.renewed(s.cert, s.names)
	if err == nil {
		s.cert = cert
	}
	return cert, err
}

// renewed is a certificate under the names: the last one, or a new one when half its life is over.
func (s *serverTLS) renewed(last *tls.Certificate, names []string) (*tls.Certificate, error) {
	if last != nil {
		if leaf := last.Leaf; s.now().Before(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)) {
			return last, nil
		}
	}
	return s.ca.Server(names, s.now())
}

// forOther is the certificate under the names of another central. There are few of them.
func (s *serverTLS) forOther(names []string) (*tls.Certificate, error) {
	key := strings.Join(names, " ")
	cert, err := s.renewed(s.others[key], names)
	if err != nil {
		return nil, err
	}
	if s.others == nil || len(s.others) > maxOthers {
		s.others = map[string]*tls.Certificate{}
	}
	s.others[key] = cert
	return cert, nil
}

// maxOthers bounds the certificates that are kept for other centrals.
const maxOthers = 16

func (s *serverTLS) fromFile() (*tls.Certificate, error) {
	info, err := os.Stat(s.certFile)
	if err == nil && s.cert != nil && info.ModTime().Equal(s.loaded) {
		return s.cert, nil
	}
	if err == nil {
		var cert tls.Certificate
		if cert, err = tls.LoadX509KeyPair(s.certFile, s.keyFile); err == nil {
			s.cert, s.loaded = &cert, info.ModTime()
			return s.cert, nil
		}
	}
	if s.cert != nil {
		return s.cert, nil
	}
	return nil, fmt.Errorf("cannot read the certificate of central: %w", err)
}

// config is TLS 1.3 for HTTP/1.1. Client certificates are asked for and verified with the
// request, so that who is refused gets an answer in words.
func (s *serverTLS) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, GetCertificate: s.certificate, NextProtos: []string{"http/1.1"},
		ClientCAs: s.clients,
	}
}

// addressOf is the host that a request comes from, "" for a unix socket.
func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}
