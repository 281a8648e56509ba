package central

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

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
		l, err := net.Listen("tcp", c.cfg.TLS.Listen)
		if err != nil {
			return all, fmt.Errorf("cannot listen on %s: %w", c.cfg.TLS.Listen, err)
		}
		all = append(all, tls.NewListener(l, c.tls.config()))
	}
	if len(all) == 0 {
		return nil, errors.New("nothing to listen on: give a socket")
	}
	return all, nil
}

// maxConns bounds the connections open at once. An agent has two, and more for a moment.
const maxConns = 4096

func (c *Central) server() *http.Server {
	srv := httpserver.New(c.Handler(), maxConns)
	srv.ConnContext, srv.ErrorLog = httpserver.WithPeer, slog.NewLogLogger(c.log.Handler(), slog.LevelWarn)
	return srv
}
