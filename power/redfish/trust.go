package redfish

import (
	"crypto/tls"
	"fmt"

	"rackpower/power"
)

// curves are those that BMCs know. Without the post-quantum ones, which they do not know so far, a
// log-in costs a fifth less, and its first message fits one packet, which old TLS stacks want.
var curves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// tlsFor is how the BMC of an endpoint is known: by its pinned key, or by an authority.
func (d *Dialer) tlsFor(ep power.Endpoint) *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: d.cfg.Roots, ServerName: ep.Host, CurvePreferences: curves}
	if ep.OldTLS {
		t.MinVersion = tls.VersionTLS12
	}
	if ep.Pin == "" {
		return t
	}
	t.InsecureSkipVerify = true // the key itself is compared, whoever certified it
	t.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return fmt.Errorf("the BMC has no certificate")
		}
		return d.checkKey(ep, power.PinOf(state.PeerCertificates[0].RawSubjectPublicKeyInfo))
	}
	return t
}

// checkKey compares the key of a BMC with the pinned one, and pins it where it is the first.
func (d *Dialer) checkKey(ep power.Endpoint, is string) error {
	want := ep.Pin
	if want == power.PinFirst {
		n := d.note(ep.Key())
		if n.Pin == "" {
			n.Pin = is
			d.keep(ep.Key(), n)
			d.cfg.Log.Info("public key of a BMC trusted at first contact", "bmc", ep.Key(), "key", is)
		}
		want = n.Pin
	}
	if is != want {
		return &keyError{ep: ep, want: want, is: is}
	}
	return nil
}

// keyError is a BMC with another key than the pinned one.
type keyError struct {
	ep       power.Endpoint
	want, is string
}

// Error gives both keys, and the command that accepts the new one.
func (e *keyError) Error() string {
	return fmt.Sprintf("its public key is %s, and the pinned one is %s: somebody may be in between, or it was given a new certificate. %s",
		e.is,
		e.want, accept(e.ep, e.is))
}

// accept is the command that pins a key.
func accept(ep power.Endpoint, key string) string {
	ep.Pin = key
	return fmt.Sprintf("To accept it: rackpower node add NODE --rack RACK --update --bmc '%s'", ep)
}

// untrusted says which key a certificate has that no authority vouches for.
func (c *client) untrusted(err *tls.CertificateVerificationError) error {
	if len(err.UnverifiedCertificates) == 0 {
		return err
	}
	key := power.PinOf(err.UnverifiedCertificates[0].RawSubjectPublicKeyInfo)
	return fmt.Errorf("its certificate is not trusted (%w); its public key is %s. %s", err.Err, key, accept(c.ep, key))
}
