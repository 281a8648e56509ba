package agentd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/central/httpserver"
	"rackpower/cmd/daemon"
	"rackpower/cmd/settings"
	"rackpower/internal/metrics"
	"rackpower/internal/prom"
)

var (
	figures metrics.Set

	certificateEnds = figures.Gauge("rackpower_agent_certificate_expiry_timestamp_seconds", "When the agent's certificate for central ends.")
)

// Metrics lists what /metrics of an agent may have beside what is common to all daemons.
func Metrics() metrics.Set { return slices.Concat(figures, agent.Metrics(), daemon.GossipMetrics()) }

// maxScrapers bounds the connections open at once for metrics.
const maxScrapers = 16

// MetricsFlags are the flags that say how others than the users of the agent's socket may read
// its metrics.
func MetricsFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "metrics", DefaultText: "on the socket only",
			Usage: "serve metrics at this `HOST:PORT`, too; an address that other machines reach needs the three flags that follow",
		},
		&cli.StringFlag{Name: "metrics-cert", Usage: "`FILE` with a certificate for --metrics (PEM)"},
		&cli.StringFlag{Name: "metrics-key", Usage: "`FILE` with the key of --metrics-cert"},
		&cli.StringFlag{Name: "metrics-client-ca", Usage: "answer those only who have a certificate of the CA in `FILE`"},
	}
}

// metrics serves the agent's metrics on its socket and, if that is asked for, on a port.
func (d *service) metrics(c *cli.Context, a *agent.Agent, l net.Listener) {
	h := prom.Handler("agent", c.App.Version, func(s metrics.Sink) {
		a.Collect(s)
		if d.identity != nil && !d.identity.Ends().IsZero() {
			s.Value(certificateEnds, float64(d.identity.Ends().Unix()))
		}
	})
	a.ServeMetrics(h)
	if l == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	srv := httpserver.New(mux, maxScrapers)
	srv.ReadTimeout, srv.WriteTimeout = 10*time.Second, time.Minute
	d.beside(c.Context, func(ctx context.Context) {
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		d.logger.Info("metrics are served", "address", l.Addr().String())
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.logger.Error("metrics are not served any more", "err", err)
		}
	})
}

// listenMetrics opens the port of --metrics; nil: there is none. Without TLS nobody who asks is
// known, so that it is for this machine only.
func listenMetrics(c *cli.Context) (net.Listener, error) {
	addr, cert, key, ca := c.String("metrics"), c.String("metrics-cert"), c.String("metrics-key"), c.String("metrics-client-ca")
	secured := cert != "" || key != "" || ca != ""
	switch {
	case addr == "" && secured:
		return nil, settings.Usage("--metrics-cert, --metrics-key and --metrics-client-ca are of no use without --metrics")
	case addr == "":
		return nil, nil
	case secured && (cert == "" || key == "" || ca == ""):
		return nil, settings.Usage("--metrics-cert, --metrics-key and --metrics-client-ca go together")
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, settings.Usage("--metrics: %q is not HOST:PORT", addr)
	}
	var cfg *tls.Config
	if secured {
		if cfg, err = metricsTLS(cert, key, ca); err != nil {
			return nil, settings.Exit(settings.ExitUsage, "--metrics: %v", err)
		}
	} else if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, settings.Usage("--metrics: %s may be reached from other machines, and without TLS nobody who asks there is known: give an "+
			"address such as 127.0.0.1, or --metrics-cert, --metrics-key and --metrics-client-ca", host)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, settings.Exit(settings.ExitFailed, "--metrics: %v", err)
	}
	if cfg != nil {
		l = tls.NewListener(l, cfg)
	}
	return l, nil
}

// metricsTLS reads the key pair again for each connection: it may be replaced while the agent runs.
func metricsTLS(cert, key, ca string) (*tls.Config, error) {
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		return &pair, err
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", ca)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return load() },
	}, nil
}
