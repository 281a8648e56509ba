package httpserver

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/user"
	"reflect"
	"slices"
	"strconv"

	"rackpower/central/api"
	"rackpower/central/auth"
)

// AdminGroup is the group whose members may do everything on the sockets.
const AdminGroup = "rackpower-admin"

type (
	peerKey      struct{}
	principalKey struct{}
)

// WithPeer remembers the connection of a unix socket, to ask who is there. It is the
// ConnContext of a server.
func WithPeer(ctx context.Context, conn net.Conn) context.Context {
	if u, ok := conn.(*net.UnixConn); ok {
		return context.WithValue(ctx, peerKey{}, u)
	}
	return ctx
}

// OnSocket reports whether a request came over a unix socket.
func OnSocket(ctx context.Context) bool {
	_, ok := ctx.Value(peerKey{}).(*net.UnixConn)
	return ok
}

// SocketUser is the user at the other end of a unix socket. Root and the user who serves
// are admins and speak for others; everybody else has no role yet.
func SocketUser(ctx context.Context) (auth.Principal, error) {
	conn, _ := ctx.Value(peerKey{}).(net.Conn) // nil of other networks
	id, err := api.PeerOf(conn)
	if err != nil {
		return auth.Principal{}, api.Problemf(api.CodeLogin, "who asks is not known: %v", err)
	}
	uid := strconv.FormatUint(uint64(id), 10)
	p := auth.Principal{Kind: auth.User, Name: "uid " + uid, Method: auth.BySocket}
	if account, err := user.LookupId(uid); err == nil {
		p.Name = account.Username
	}
	if id == 0 || int(id) == os.Geteuid() {
		p.Role, p.Own, p.Speaks = auth.Admin, true, true
	}
	return p, nil
}

// IsAdmin reports whether the process at the other end of a unix socket is in AdminGroup.
func IsAdmin(ctx context.Context) bool {
	g, err := user.LookupGroup(AdminGroup)
	if err != nil {
		return false
	}
	conn, _ := ctx.Value(peerKey{}).(net.Conn)
	groups, err := api.PeerGroups(conn)
	return err == nil && slices.ContainsFunc(groups, func(gid uint32) bool { return strconv.FormatUint(uint64(gid), 10) == g.Gid })
}

// WithPrincipal has a request know who asks.
func WithPrincipal(ctx context.Context, p auth.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Principal is who asks, as WithPrincipal was told.
func Principal(r *http.Request) auth.Principal {
	p, _ := r.Context().Value(principalKey{}).(auth.Principal)
	return p
}

// MaySpeak refuses a body that names another than the principal, who may not speak for
// others. advice says what to do about it.
func MaySpeak(p auth.Principal, in any, advice string) error {
	for _, field := range askers(reflect.ValueOf(in)) {
		if _, err := p.For(field.String()); err != nil {
			return api.Problemf(api.CodeForbidden, "not permitted: %v (%s)", err, advice)
		}
	}
	return nil
}

// NameAsker has a body, and its operations, say who asks: the principal, and the one whom
// the body named, see auth.Principal.For. MaySpeak has to come before it.
func NameAsker[In any](p auth.Principal, in *In) {
	for _, field := range askers(reflect.ValueOf(in).Elem()) {
		if who, err := p.For(field.String()); err == nil {
			field.SetString(who)
		}
	}
}

// askers are the fields of a body that name who asks, its operations' too.
func askers(v reflect.Value) (fields []reflect.Value) {
	if v.Kind() != reflect.Struct {
		return nil
	}
	if f := v.FieldByName("AskedBy"); f.IsValid() && f.Kind() == reflect.String {
		fields = append(fields, f)
	}
	if ops := v.FieldByName("Ops"); ops.IsValid() && ops.Kind() == reflect.Slice {
		for i := range ops.Len() {
			fields = append(fields, askers(ops.Index(i))...)
		}
	}
	return fields
}
