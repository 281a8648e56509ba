package central

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"

	"rackpower/central/api"
	"rackpower/central/httpserver"
)

// listen opens everything that is to be served, or nothing.
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
	if len(all) == 0 {
		return nil, errors.New("nothing to listen on: give a socket")
	}
	return all, nil
}

// maxConns bounds the connections open at once. An agent has two, and more for a moment.
const maxConns = 4096

func (c *Central) server() *http.Server {
	srv := httpserver.New(c.Handler(), maxConns)
	srv.ConnContext, srv.ErrorLog = withPeer, slog.NewLogLogger(c.log.Handler(), slog.LevelWarn)
	return srv
}

type peerKey struct{}

// withPeer remembers the connection of a unix socket, to ask who is there.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if u, ok := conn.(*net.UnixConn); ok {
		return context.WithValue(ctx, peerKey{}, u)
	}
	return ctx
}

// peer names the user at the other end of a unix socket, "" for other
// connections.
func peer(r *http.Request) string {
	conn, _ := r.Context().Value(peerKey{}).(net.Conn)
	id, err := api.PeerOf(conn)
	if err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}

// agentsOnly serves a path to root and to central's own user, who have the passwords of
// BMCs and the gossip keys anyway: who may ask for power is not told them.
func agentsOnly(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, _ := r.Context().Value(peerKey{}).(net.Conn)
		if id, err := api.PeerOf(conn); err != nil || id != 0 && int(id) != os.Geteuid() {
			api.Problemf(api.CodeRefused, "not permitted: an agent runs as root or as the user of central, on the socket of central").Write(w)
			return
		}
		h(w, r)
	}
}
