package central

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
)

// listen opens everything that is served, or nothing.
func (c *Central) listen() (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	all = append(all, c.cfg.Listeners...)
	for _, l := range all {
		if l.Addr().Network() != "unix" {
			return all, fmt.Errorf("%s, that systemd passed, is no unix socket: without TLS nobody who asks there is known, remove it from "+
				"rackpower-central.socket", l.Addr())
		}
	}
	if c.cfg.Socket != "" {
		l, err := httpserver.ListenSocket(c.cfg.Socket)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	if c.cfg.TLS.Listen != "" {
		l := c.cfg.TLS.Listener
		if l == nil {
			if l, err = net.Listen("tcp", c.cfg.TLS.Listen); err != nil {
				return all, fmt.Errorf("cannot listen on %s: %w", c.cfg.TLS.Listen, err)
			}
		}
		all = append(all, tls.NewListener(l, c.tls.config()))
	}
	if c.cfg.TLS.Peers != nil {
		all = append(all, tls.NewListener(c.cfg.TLS.Peers, c.tls.config()))
	}
	if len(all) == 0 {
		return nil, errors.New("nothing to listen on: give a socket")
	}
	return all, nil
}

// maxConns bounds the connections open at once. An agent has two, and more for a moment: it is
// enough for 2,500 agents and those who ask.
const maxConns = 8192

func (c *Central) server() *http.Server {
	srv := httpserver.New(c.Handler(), maxConns)
	srv.ConnContext, srv.ErrorLog = httpserver.WithPeer, log.New(serverLog{c}, "", 0)
	return srv
}

// serverLog takes what the HTTP server has to say: central's log has it. Who fails to agree on
// TLS never comes to a route. That is in the audit log, too, and once a minute for each address:
// anybody can cause it.
type serverLog struct{ c *Central }

const handshakeFailed = "http: TLS handshake error from "

// Write takes one line.
func (l serverLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	rest, failed := strings.CutPrefix(text, handshakeFailed)
	if !failed {
		l.c.log.Warn(text)
		return len(line), nil
	}
	from, why, _ := strings.Cut(rest, ": ")
	address, _, err := net.SplitHostPort(from)
	if err != nil {
		address = from
	}
	if now := l.c.cfg.Now(); l.c.refusals.Due("tls "+address, now, time.Minute) {
		l.c.log.Warn("TLS handshake failed", "address", address, "reason", why)
		l.c.auditRefusal(context.Background(), api.AuditEntry{
			At: now, Who: "unknown", Outcome: string(api.CodeLogin), Detail: fmt.Sprintf("TLS handshake: %.300s", why), Address: address,
		})
	}
	return len(line), nil
}
