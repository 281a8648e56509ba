package redfish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"rackpower/power"
)

// session is a connection to one BMC: power.Driver.
type session struct {
	dialer *Dialer
	cfg    Config
	ep     power.Endpoint
	client *client
	url    string // of the session; "": none is open
	worked bool   // something was answered that needs the session
	lost   error  // why it is of no use any more

	at     link              // the System that was read last
	system computerSystem    // as it was read
	infos  map[link][]string // allowed values, by ActionInfo
}

// KeepFor implements power.Keeper: BMCs have 4 to 16 slots and take up to a second to give
// one; the shortest time after which they end an idle session is 5 minutes.
func (s *session) KeepFor() (idle, age time.Duration) { return 150 * time.Second, time.Hour }

// SetTarget implements power.Targeter: the session serves all Systems.
func (s *session) SetTarget(ep power.Endpoint) {
	if ep.System != s.ep.System {
		s.ep.System = ep.System
		s.at, s.system = "", computerSystem{}
	}
}

// credentials is the body that asks for a session.
type credentials struct {
	UserName string
	Password string
}

// open logs in, and ends sessions that a crash has left.
//
// What is kept durable says at each moment which sessions may be open: before the request
// leaves that one is asked for, and after its answer which one it is.
func (s *session) open(ctx context.Context) *power.Error {
	root, err := s.root(ctx)
	if err != nil {
		return err
	}
	if s.ep.Basic {
		s.client.sign = func(r *http.Request) { r.SetBasicAuth(s.ep.User, string(s.ep.Password)) }
		var all collection
		_, err := s.read(ctx, opOpen, root.Systems, &all) // no session says whether user and password are right
		return err
	}
	key, asked := s.ep.Key(), time.Now().UTC().Round(0)
	left, n := s.dialer.left(key), s.dialer.note(key)
	n.addOpening(asked)
	s.dialer.own(key, asked.String(), true)
	defer s.dialer.own(key, asked.String(), false)
	s.dialer.keep(key, n)
	a, err := s.logIn(ctx, root)
	if err != nil {
		if err.Kind == power.KindBusy && s.endLeft(ctx, root, left, true) {
			a, err = s.logIn(ctx, root)
		}
	}
	n = s.dialer.note(key)
	switch {
	case err == nil:
		s.url = a.location()
		if s.url == "" {
			var in sessionResource
			_ = parse(a.body, &in)
			s.url = string(in.ID)
		}
		if s.url != "" {
			n.dropOpening(asked)
			n.addSession(s.url)
			s.dialer.own(key, s.url, true)
		}
	case !err.Sent:
		n.dropOpening(asked) // it never left, or was answered: there is none
	}
	s.dialer.keep(key, n)
	if err != nil {
		err.Sent = false // it is no command
		return err
	}
	token := a.header.Get("X-Auth-Token")
	if token == "" {
		s.dialer.own(key, s.url, false)
		return &power.Error{Kind: power.KindRefused, Op: opOpen, Err: errors.New("the BMC opened a session without a token")}
	}
	s.client.sign = func(r *http.Request) { r.Header.Set("X-Auth-Token", token) }
	if s.url == "" {
		s.cfg.Log.Debug("session without a place: it cannot be ended", "bmc", key, "err", errNoSession)
	}
	s.endLeft(ctx, root, left, false)
	return nil
}

// logIn asks for a session.
func (s *session) logIn(ctx context.Context, root serviceRoot) (answer, *power.Error) {
	a, err := s.client.send(ctx, request{
		op: opOpen, method: http.MethodPost, path: string(root.Links.value.Sessions), within: s.cfg.Timeout,
		body: credentials{s.ep.User, string(s.ep.Password)},
	})
	if err != nil || a.ok() {
		return a, err
	}
	err = refused(opOpen, a, false, false)
	switch {
	case err.Kind == power.KindUnsupported:
		err.Err = fmt.Errorf("%w; if it has no sessions, say so (?auth=basic)", err.Err)
	case err.Kind == power.KindPrivilege, err.Kind == power.KindRefused && a.status == http.StatusBadRequest:
		err.Refused = true
	}
	return a, err
}

// endLeft ends the sessions that an earlier process has left, and reports whether it ended
// one. plain: there is no session yet to do it with, and the BMC has no room for one.
func (s *session) endLeft(ctx context.Context, root serviceRoot, left note, plain bool) (some bool) {
	if len(left.Sessions)+len(left.Opening) == 0 {
		return false
	}
	if plain {
		sign := s.client.sign
		s.client.sign = func(r *http.Request) { r.SetBasicAuth(s.ep.User, string(s.ep.Password)) }
		defer func() { s.client.sign = sign }()
	}
	paths := left.Sessions
	if len(left.Opening) > 0 {
		found, err := s.unnamed(ctx, root, left.Opening)
		if err != nil {
			s.cfg.Log.Debug("cannot look for sessions that were left", "bmc", s.ep.Key(), "err", err)
			return false
		}
		paths = append(paths, found...)
	}
	n := s.dialer.note(s.ep.Key())
	for _, path := range paths {
		if path == s.url {
			continue
		}
		ended, err := s.endOne(ctx, path)
		if err != nil {
			s.cfg.Log.Debug("cannot end a session that was left", "bmc", s.ep.Key(), "session", path, "err", err)
			return some // the next log-in tries again
		}
		some = some || ended
		n.dropSession(path)
	}
	for _, at := range left.Opening {
		n.dropOpening(at)
	}
	s.dialer.keep(s.ep.Key(), n)
	return some
}

// endOne ends a session if it is one of this user: a BMC that was restarted may have given
// its name to another.
func (s *session) endOne(ctx context.Context, path string) (bool, *power.Error) {
	const op = "end session"
	a, err := s.client.get(ctx, op, path)
	if err != nil {
		return false, err
	}
	var there sessionResource
	if !a.ok() || parse(a.body, &there) != nil || string(there.UserName) != s.ep.User {
		return false, nil
	}
	a, err = s.client.send(ctx, request{op: op, method: http.MethodDelete, path: path})
	if err != nil {
		return false, err
	}
	return a.ok(), nil
}

// slackOfSession is how far the time of a session may lie from that of its request: BMCs tell
// it in seconds, and may take some to open it.
const slackOfSession = 5 * time.Second

// unnamed finds the sessions of this user that the BMC opened when one was asked for whose
// answer never came, or was not noted. Times are compared by the BMC's own clock.
func (s *session) unnamed(ctx context.Context, root serviceRoot, asked []time.Time) (paths []string, _ *power.Error) {
	const op = "list sessions"
	a, err := s.client.get(ctx, op, string(root.Links.value.Sessions))
	if err != nil {
		return nil, err
	}
	date, bad := http.ParseTime(a.header.Get("Date"))
	var all collection
	if !a.ok() || bad != nil || parse(a.body, &all) != nil {
		return nil, nil
	}
	ahead := time.Until(date)
	for _, path := range all.Members {
		if string(path) == s.url {
			continue
		}
		a, err := s.client.get(ctx, op, string(path))
		if err != nil {
			return nil, err
		}
		var there sessionResource
		if !a.ok() || parse(a.body, &there) != nil || string(there.UserName) != s.ep.User {
			continue
		}
		created, bad := time.Parse(time.RFC3339, string(there.Created))
		for _, at := range asked {
			at = at.Add(ahead)
			if bad == nil && created.After(at.Add(-slackOfSession)) && created.Before(at.Add(s.cfg.Timeout+slackOfSession)) {
				paths = append(paths, string(path))
				break
			}
		}
	}
	return paths, nil
}

// Close implements power.Driver.
func (s *session) Close() error {
	defer s.client.close()
	if s.lost == nil || !errors.Is(s.lost, errClosed) {
		s.end()
	}
	s.lost = errClosed
	return nil
}

// end ends the session at the BMC. One that does not end now is ended by the next log-in.
func (s *session) end() {
	if s.url == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.CloseTimeout)
	defer cancel()
	a, err := s.client.send(ctx, request{op: "end session", method: http.MethodDelete, path: s.url, within: s.cfg.CloseTimeout})
	if err == nil && (a.ok() || a.status == http.StatusNotFound || a.status == http.StatusUnauthorized) {
		n := s.dialer.note(s.ep.Key())
		n.dropSession(s.url)
		s.dialer.keep(s.ep.Key(), n)
	}
	s.dialer.own(s.ep.Key(), s.url, false)
	s.url = ""
}

// ready reports why the session is of no use, if it is not.
func (s *session) ready(ctx context.Context, op string) *power.Error {
	switch err := ended(ctx); {
	case s.lost != nil:
		return &power.Error{Kind: power.KindUnreachable, Op: op, Lost: true, Err: s.lost}
	case err != nil:
		return &power.Error{Kind: power.KindCanceled, Op: op, Err: err}
	}
	return nil
}

// check notes when an error is the end of the session.
func (s *session) check(err *power.Error) *power.Error {
	if err != nil && err.Lost && s.lost == nil {
		s.lost = err.Err
	}
	return err
}

// read gets a resource within the session.
func (s *session) read(ctx context.Context, op string, path link, into any) (answer, *power.Error) {
	a, err := s.client.get(ctx, op, string(path))
	switch {
	case err != nil:
		return a, err
	case !a.ok():
		return a, refused(op, a, s.worked, false)
	}
	s.worked = true
	return a, a.into(op, into)
}

// find is the path of the System that the endpoint means, as it is known or as the BMC lists
// it.
func (s *session) find(ctx context.Context, op string) (link, *power.Error) {
	known := s.dialer.know(s.ep, nil)
	if path := known.systems[s.ep.System]; path != "" {
		return path, nil
	}
	root, err := s.root(ctx)
	if err != nil {
		return "", err
	}
	all, err := s.members(ctx, op, root.Systems)
	if err != nil {
		return "", err
	}
	path, err := s.choose(ctx, op, all)
	if err != nil {
		return "", err
	}
	s.dialer.know(s.ep, func(b *learnt) { b.systems[s.ep.System], b.starting = path, time.Time{} })
	return path, nil
}

// members lists a collection.
func (s *session) members(ctx context.Context, op string, path link) (all links, _ *power.Error) {
	for page := 0; path != "" && page < 8 && len(all) < maxMembers; page++ {
		var c collection
		if _, err := s.read(ctx, op, path, &c); err != nil {
			return nil, err
		}
		all, path = append(all, c.Members...), c.Next
	}
	return all, nil
}

// choose is the System that is meant among all: the one of that Id, or the only one that can
// be reset.
func (s *session) choose(ctx context.Context, op string, all links) (link, *power.Error) {
	var fit links
	for _, path := range all {
		switch {
		case s.ep.System != "":
			if lastSegment(path) == s.ep.System {
				return path, nil
			}
		case len(all) == 1:
			return path, nil
		default:
			var sys computerSystem
			if _, err := s.read(ctx, op, path, &sys); err != nil {
				return "", err
			}
			if sys.reset().Target != "" {
				fit = append(fit, path)
			}
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return "", &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf(
			"the BMC has several Systems that can be reset, %s: say which one the node is (redfish://USER@HOST/%s)", ids(fit), lastSegment(fit[0]))}
	}
	return "", s.noSystem(op, all)
}

// noSystem is the error where none is the one that is meant. A BMC that has just started may
// list none for a while.
func (s *session) noSystem(op string, all links) *power.Error {
	if len(all) > 0 {
		err := ErrNoReset
		if s.ep.System != "" {
			err = errors.New("it has no System " + s.ep.System)
		}
		return &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf("%w; it has %s", err, ids(all))}
	}
	since := time.Now()
	s.dialer.know(s.ep, func(b *learnt) {
		if b.starting.IsZero() {
			b.starting = since
		}
		since = b.starting
	})
	if time.Since(since) < s.cfg.NotReady {
		return &power.Error{Kind: power.KindBusy, Op: op, Err: errors.New("the BMC lists no System yet: it is not ready")}
	}
	return &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf("%w: it has listed none for %s", ErrNoReset,
		time.Since(since).Round(time.Second))}
}

func ids(paths links) string {
	var all []string
	for _, p := range paths {
		all = append(all, clean(lastSegment(p)))
	}
	return strings.Join(all, ", ")
}
