package agentd

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/auth"
)

// TestMetricsOverTLSAreForHoldersOfACertificate asks with a certificate of the CA, with one of another
// CA, and without any.
func TestMetricsOverTLSAreForHoldersOfACertificate(t *testing.T) {
	dir := t.TempDir()
	ca, err := auth.OpenCA(dir, "lab", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Server([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, keyFile := filepath.Join(dir, "m.crt"), filepath.Join(dir, "m.key")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: server.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	app := &cli.App{Flags: MetricsFlags(), Action: func(c *cli.Context) error {
		l, err := listenMetrics(c)
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: http.NotFoundHandler()}
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
		ask := func(holder *tls.Certificate) error {
			cfg := &tls.Config{RootCAs: ca.Pool()}
			if holder != nil {
				cfg.Certificates = []tls.Certificate{*holder}
			}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}, Timeout: 20 * time.Second}
			defer client.CloseIdleConnections()
			resp, err := client.Get("https://" + l.Addr().String() + "/metrics")
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		foreign, err := auth.OpenCA(t.TempDir(), "lab", nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(holderOf(t, ca)); err != nil {
			t.Errorf("with a certificate: %v", err)
		}
		if ask(nil) == nil || ask(holderOf(t, foreign)) == nil {
			t.Error("somebody who is not known may read")
		}
		return nil
	}}
	err = app.RunContext(t.Context(), []string{
		"agent", "--metrics", "127.0.0.1:0", "--metrics-cert", cert, "--metrics-key", keyFile,
		"--metrics-client-ca", filepath.Join(dir, auth.CACertFile),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// holderOf is a certificate of a user.
func holderOf(t *testing.T, ca *auth.CA) *tls.Certificate {
	t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := auth.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	request, err := auth.NewRequest(signer, "prometheus")
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := ca.SignUser("prometheus", request, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}
