// Package webhook sends the events of the audit log to a receiver, one POST an event, signed as
// Standard Webhooks has it (https://www.standardwebhooks.com). Each event is sent until it is
// taken, so at least once; those of one node are sent one after the other. It knows no database:
// Log is what it reads and where it notes how far it came.
package webhook

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"rackpower/central/api"
)

// Bounds of what is sent at a time. A receiver that does not take an event holds up those of its
// node, and all others once Window events behind it were sent.
const (
	Window  = 1000
	workers = 8
	within  = 10 * time.Second // a receiver has to answer

	firstPause, mostPause = time.Second, 5 * time.Minute
	// refusals is how often an event is sent to a receiver that says that it is wrong in itself.
	refusals = 5
	// saveEvery is how often it is noted how far it came. After a crash the events since are sent
	// again.
	saveEvery = time.Second
)

// Config says where events go.
type Config struct {
	URL    string
	Secret []byte   // signs them
	CAFile string   // "": the CAs of the machine
	What   []string // which are sent, by AuditEntry.What; none: all

	Log *slog.Logger
	Now func() time.Time // nil: time.Now

	pause time.Duration // tests: instead of firstPause
}

// Event is the body of a request.
type Event struct {
	// Database names central's database. A restore continues the ids of the state that was
	// restored: with the incarnation they stay different.
	Database api.Database   `json:"database"`
	Event    api.AuditEntry `json:"event"`
}

// id is that of the request, the same for each time that it is sent.
func (e Event) id() string {
	return fmt.Sprintf("%s-%d-%d", e.Database.CentralID, e.Database.Incarnation, e.Event.ID)
}

const secretPrefix = "whsec_"

// MinSecret is how long a secret is at least, in bytes.
const MinSecret = 24

// ParseSecret reads a secret: whsec_ and base64, or any other text as it is.
func ParseSecret(text string) ([]byte, error) {
	secret := []byte(text)
	if coded, found := strings.CutPrefix(text, secretPrefix); found {
		var err error
		if secret, err = base64.StdEncoding.DecodeString(coded); err != nil {
			return nil, errors.New("what follows whsec_ is not base64")
		}
	}
	if len(secret) < MinSecret {
		return nil, fmt.Errorf("the secret has %d bytes, at least %d are needed (echo whsec_$(openssl rand -base64 32))", len(secret), MinSecret)
	}
	return secret, nil
}

// Signature is the value of the header webhook-signature.
func Signature(secret []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Validate says what is wrong with the configuration.
func (c Config) Validate() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil:
		return errors.New("the URL cannot be read")
	case u.User != nil:
		return errors.New("the URL holds a password: the receiver knows central by the signature")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return errors.New("want an https URL")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return errors.New("without TLS events go to this machine only, to an address such as http://127.0.0.1:8080: want an https URL")
	case len(c.Secret) < MinSecret:
		return fmt.Errorf("the secret is shorter than %d bytes", MinSecret)
	}
	return nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// client asks the receiver: with its certificate verified, without a proxy, and without following
// where it redirects to. A name that stands for an address of this link only, as that of a cloud's
// metadata service, is not asked unless the URL has that address itself.
func (c Config) client() (*http.Client, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", c.CAFile)
		}
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	meant, _ := netip.ParseAddr(u.Hostname()) // invalid: a name
	dialer := &net.Dialer{Timeout: within, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if ip := at.Addr().Unmap(); ip != meant && reserved(ip) {
			return fmt.Errorf("%s stands for %s, which is no receiver's address", u.Hostname(), ip)
		}
		return nil
	}}
	return &http.Client{
		Timeout:       within,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: tlsConfig, MaxConnsPerHost: workers, MaxIdleConnsPerHost: workers,
			IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		},
	}, nil
}

// metadataV6 is where a cloud has its metadata service, beside the addresses of the link.
var metadataV6 = netip.MustParseAddr("fd00:ec2::254")

func reserved(ip netip.Addr) bool {
	return ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip == metadataV6
}

// refusedError is what a receiver answered other than "taken".
type refusedError struct {
	status int
	after  time.Duration // it asks to wait for
}

func (e refusedError) Error() string { return fmt.Sprintf("the receiver answered %d", e.status) }

// hopeless reports whether the receiver will never take what it answered so.
func (e refusedError) hopeless() bool {
	switch e.status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// post sends an event once.
func (s *Sender) post(ctx context.Context, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "rackpower-central")
	req.Header.Set("webhook-id", e.id())
	req.Header.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
	req.Header.Set("webhook-signature", Signature(s.cfg.Secret, e.id(), now, body))
	resp, err := s.client.Do(req)
	if err != nil {
		var where *url.Error
		if errors.As(err, &where) {
			err = where.Err // the URL may have a token in it
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	after, _ := time.ParseDuration(cmp.Or(resp.Header.Get("Retry-After"), "0") + "s")
	return refusedError{resp.StatusCode, min(max(after, 0), mostPause)}
}
