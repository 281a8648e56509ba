package central

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/store"
	"rackpower/power"
)

// movable is a clock for a central whose certificates age.
type movable struct {
	mu  sync.Mutex
	off time.Duration
}

func (m *movable) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.off)
}

func (m *movable) later(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off += d
}

// onTLS is a central with a port, and a clock.
func onTLS(t testing.TB) (*running, *movable) {
	t.Helper()
	clock := new(movable)
	r := run(t, Config{TLS: TLSConfig{Listen: "127.0.0.1:0", Names: []string{"127.0.0.1"}, Site: "lab"}, Now: clock.now})
	return r, clock
}

func (r *running) url() string { return "https://" + r.addrs[len(r.addrs)-1].String() }

// remote is a client that asks over TLS, with a token and a certificate, or without.
func (r *running) remote(t *testing.T, token string, cert *tls.Certificate) *api.Client {
	t.Helper()
	client, err := api.NewClient(r.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	cfg := auth.Pinned(r.c.tls.ca.Hash(), nil)
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	client.Secure(cfg, token)
	client.SetPatience(impatient())
	return client
}

// impatient is the patience of a client that is told of each refusal.
func impatient() api.Patience {
	p := api.DefaultPatience()
	p.TooMany = 0
	return p
}

// as is a client of a user who was added for it.
func (r *running) as(t *testing.T, name string, in api.AddUser) *api.Client {
	t.Helper()
	in.Name = name
	out, err := r.AddUser(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return r.remote(t, out.Token, nil)
}

// keyPair makes a key and what certify gives for its request.
func keyPair(t *testing.T, certify func(request string) (string, error)) (*tls.Certificate, error) {
	t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, _ := auth.ParseKey(key)
	request, err := auth.NewRequest(signer, "x")
	if err != nil {
		t.Fatal(err)
	}
	text, err := certify(string(request))
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair([]byte(text), key)
	if err != nil {
		t.Fatal(err)
	}
	return &cert, nil
}

// join enrols with a token.
func (r *running) join(t *testing.T, line string) (*tls.Certificate, error) {
	t.Helper()
	e, err := auth.ParseEnrolment(line)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair(t, func(request string) (string, error) {
		out, err := r.remote(t, "", nil).JoinSite(t.Context(), api.JoinSite{Agent: e.Agent, Secret: e.Secret, Request: request})
		return out.Certificate, err
	})
}

// enrolled is a client of an agent with a certificate.
func (r *running) enrolled(t *testing.T, name string) *api.Client {
	t.Helper()
	out, err := r.AgentToken(t.Context(), name, api.MakeAgentToken{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := r.join(t, out.Token)
	if err != nil {
		t.Fatal(err)
	}
	return r.remote(t, "", cert)
}

// signed is a client with a certificate that a CA makes for a name.
func (r *running) signed(t *testing.T, ca *auth.CA, name string, from time.Time) *api.Client {
	t.Helper()
	cert, err := keyPair(t, func(request string) (string, error) {
		text, _, err := ca.SignAgent(name, []byte(request), from)
		return string(text), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.remote(t, "", cert)
}

// leastOf is the least role that may use each route; whole: for the whole site only.
var leastOf = map[string]struct {
	role  auth.Role
	whole bool
}{
	"GET /v1/nodes": {auth.Viewer, false}, "GET /v1/nodes/alike": {auth.Viewer, false},
	"GET /v1/nodes/{name}/explain": {auth.Viewer, false}, "POST /v1/ops/query": {auth.Viewer, false},
	"POST /v1/reads": {auth.Viewer, false}, "GET /v1/racks": {auth.Viewer, false}, "GET /v1/brakes": {auth.Viewer, false},
	"GET /v1/domains": {auth.Viewer, false}, "GET /v1/schedules": {auth.Viewer, false}, "GET /v1/schedules/next": {auth.Viewer, false},
	"GET /v1/agents": {auth.Viewer, false}, "GET /v1/members": {auth.Viewer, false}, "GET /v1/peers": {auth.Viewer, false},
	"GET /v1/gossip/who": {auth.Viewer, false}, "GET /v1/audit": {auth.Viewer, false},
	"GET /v1/audit/verify": {auth.Viewer, true}, "GET /v1/info": {auth.Viewer, false}, "GET /metrics": {auth.Viewer, true},
	"GET /v1/whoami": {auth.Viewer, false}, "GET /v1/plans/{id}": {auth.Viewer, false},
	"GET /v1/approvals": {auth.Viewer, false}, "POST /v1/approvals/{id}": {auth.Operator, false},
	"GET /v1/attention": {auth.Viewer, false}, "GET /v1/watch": {auth.Viewer, false},
	"GET /v1/site": {auth.Viewer, true}, "POST /v1/site/confirm": {auth.Admin, true},
	"GET /v1/policy": {auth.Viewer, true}, "POST /v1/policy": {auth.Admin, true},

	"POST /v1/nodes/status": {auth.Operator, false}, "POST /v1/nodes/hold": {auth.Operator, false}, "POST /v1/nodes/retry": {
		auth.Operator,
		false,
	},
	"POST /v1/plans": {auth.Operator, false}, "POST /v1/plans/{id}/apply": {auth.Operator, false},
	"POST /v1/ops": {auth.Operator, false}, "POST /v1/ops/{id}/cancel": {auth.Operator, false},
	"POST /v1/racks/{name}/pause": {auth.Operator, true}, "POST /v1/pause": {auth.Operator, true},
	"POST /v1/brakes/release": {auth.Operator, true},
	"POST /v1/schedules":      {auth.Operator, true}, "POST /v1/schedules/remove": {auth.Operator, true},
	"POST /v1/agents/{name}/ack": {auth.Operator, true}, "POST /v1/gossip/ping": {auth.Operator, true},

	"POST /v1/nodes": {auth.Admin, false}, "POST /v1/nodes/protect": {auth.Admin, false}, "POST /v1/nodes/remove": {
		auth.Admin,
		false,
	}, "GET /v1/nodes/export": {auth.Admin, false},
	"POST /v1/racks/{name}": {auth.Admin, true}, "POST /v1/domains": {auth.Admin, true}, "POST /v1/agents/{name}/forget": {auth.Admin, true},
	"POST /v1/agents/{name}/drain": {auth.Admin, true},
	"GET /v1/gossip/keys":          {auth.Admin, true}, "POST /v1/gossip/keys": {auth.Admin, true}, "GET /v1/users": {auth.Admin, true},
	"POST /v1/users": {auth.Admin, true}, "POST /v1/users/{name}/rotate": {auth.Admin, true}, "POST /v1/users/{name}/remove": {
		auth.Admin,
		true,
	},
	"POST /v1/users/{name}/certificate": {auth.Admin, true}, // of another user
	"POST /v1/seal/rotate":              {auth.Admin, true},
	"GET /debug/pprof/{name}":           {auth.Admin, true},
	"POST /v1/agents/{name}/token":      {auth.Admin, true}, "POST /v1/agents/{name}/revoke": {auth.Admin, true},
}

// onSocketOnly are routes that nobody has over the network.
var onSocketOnly = map[string]bool{"POST /v1/seal/rotate": true}

// rank orders the roles, apart from what is tested.
var rank = map[auth.Role]int{auth.Viewer: 1, auth.Operator: 2, auth.Admin: 3}

// ofAgents are the routes that an agent has, for its own name.
var ofAgents = []string{"enrol", "hello", "poll", "report", "goodbye", "renew"}

// ofAnybody are the routes for who is not known yet.
var ofAnybody = map[string]bool{"GET /v1/openapi.json": true, "GET /docs": true, "GET /v1/ca": true, "POST /v1/join": true}

// documentedRoutes are central's, as package api lists them.
func documentedRoutes(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("api/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	whole, _, _ := strings.Cut(string(text), "# Routes of an agent's socket")
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(GET|POST) +(/\S+)`).FindAllStringSubmatch(whole, -1) {
		all = append(all, m[1]+" "+m[2])
	}
	return all
}

// TestEveryRouteAsEveryRole asks each route as each kind of principal. Whoever may not is
// refused before anything is looked at; whoever may gets past that, to whatever is wrong
// with an empty body.
func TestEveryRouteAsEveryRole(t *testing.T) {
	r, _ := onTLS(t)
	foreignCA, err := auth.OpenCA(t.TempDir(), "lab", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	spec := api.NodeSpec{Name: "other", Rack: "r1", BMC: "ipmi://admin@192.0.2.1"}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{spec}}); err != nil {
		t.Fatal(err)
	}
	type caller struct {
		client *api.Client
		role   auth.Role
		scoped bool
		agent  string
		known  bool
	}
	callers := map[string]caller{
		"nobody":   {client: r.remote(t, "", nil)},
		"a guess":  {client: r.remote(t, auth.NewToken(), nil)},
		"viewer":   {client: r.as(t, "v", api.AddUser{Role: "viewer"}), role: auth.Viewer, known: true},
		"operator": {client: r.as(t, "o", api.AddUser{Role: "operator"}), role: auth.Operator, known: true},
		"operator of nodes": {
			client: r.as(t, "o1", api.AddUser{Role: "operator", Nodes: "@r1"}), role: auth.Operator, scoped: true,
			known: true,
		},
		"admin": {client: r.as(t, "a", api.AddUser{Role: "admin"}), role: auth.Admin, known: true},
		"admin of nodes": {
			client: r.as(t, "a1", api.AddUser{Role: "admin", Nodes: "@r1"}), role: auth.Admin, scoped: true,
			known: true,
		},
		"agent r1":                   {client: r.enrolled(t, "r1"), agent: "r1", known: true},
		"agent r2":                   {client: r.enrolled(t, "r2"), agent: "r2", known: true},
		"agent of another CA":        {client: r.signed(t, foreignCA, "r1", time.Now().Add(-time.Second))},
		"agent, expired":             {client: r.signed(t, r.c.tls.ca, "r1", time.Now().Add(-auth.AgentLife-time.Minute))},
		"agent r1, of a clock ahead": {client: r.signed(t, r.c.tls.ca, "r1", time.Now().Add(time.Hour)), agent: "r1", known: true},
	}
	routes := documentedRoutes(t)
	if want := len(leastOf) + len(ofAgents) + len(ofAnybody); len(routes) != want {
		t.Errorf("%d routes are documented, %d are known here", len(routes), want)
	}
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		least, forPeople := leastOf[route]
		name := "r1"
		if forPeople {
			name = "other" // admins do what the route says
		}
		path = strings.NewReplacer("{name}", name, "{id}", "x").Replace(path)
		for who, c := range callers {
			var want api.Code // "" for: gets past
			switch {
			case ofAnybody[route]:
			case !c.known:
				want = api.CodeLogin
			case onSocketOnly[route], forPeople && (rank[c.role] < rank[least.role] || least.whole && c.scoped), !forPeople && c.agent != "r1":
				want = api.CodeForbidden
			}
			var in any
			if method == http.MethodPost {
				in = struct{}{}
			}
			r.c.guesses = guesses{}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := c.client.Do(ctx, method, path, in, nil)
			cancel()
			got := api.CodeOf(err)
			if passed := got != api.CodeLogin && got != api.CodeForbidden; (want == "") != passed && !ofAnybody[route] || want != "" && got != want {
				t.Errorf("%s as %s: %v, want %q", route, who, err, want)
			}
		}
	}
}

// TestWhoIsRefusedIsToldWhy looks at the words, and at what the audit log has of each.
func TestWhoIsRefusedIsToldWhy(t *testing.T) {
	r, clock := onTLS(t)
	viewer := r.as(t, "vera", api.AddUser{Role: "viewer"})
	short := r.as(t, "sam", api.AddUser{Role: "admin", TTL: time.Hour})
	agent := r.enrolled(t, "r1")
	ask := func(c *api.Client) error { _, err := c.Users(t.Context()); return err }
	hello := func(c *api.Client, name string) error {
		_, err := c.Hello(t.Context(), name, api.Hello{JournalID: "j", Epoch: 1})
		return err
	}
	expect := func(what string, err error, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", what, err, part)
			}
		}
	}
	expect("a viewer", ask(viewer), "needs the role admin", "vera is a viewer")
	expect("another agent", hello(agent, "r2"), "agent r1's", "for itself only")
	expect("an agent among people", ask(agent), "asks for nothing else")
	if err := ask(short); err != nil {
		t.Error(err)
	}
	clock.later(2 * time.Hour)
	expect("an expired token", ask(short), "token of sam expired", "rackpower user rotate sam")
	clock.later(auth.AgentLife)
	expect("an expired certificate", hello(agent, "r1"), "expired at", "rackpower agents token")
	entries, err := r.Audit(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, e := range entries {
		if e.What == "access-refused" {
			if e.Address != "127.0.0.1" {
				t.Errorf("%+v: no address", e)
			}
			found[e.Who+" "+e.Via]++
		}
	}
	for _, who := range []string{"vera token", "agent r1 certificate", "unknown "} {
		if found[who] == 0 {
			t.Errorf("the audit log has no refusal of %q: %v", who, found)
		}
	}
}

func TestAnEnrolmentTokenIsUsedOnce(t *testing.T) {
	r, clock := onTLS(t)
	token := func(name string, ttl time.Duration) string {
		t.Helper()
		out, err := r.AgentToken(t.Context(), name, api.MakeAgentToken{TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		return out.Token
	}
	line := token("r1", 0)
	cert, err := r.join(t, line)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(cert.Certificate[0])
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "rackpower://lab/agent/r1" || leaf.NotAfter.Sub(leaf.NotBefore) != auth.AgentLife {
		t.Errorf("%v, %s", leaf.URIs, leaf.NotAfter.Sub(leaf.NotBefore))
	}
	_, err = r.join(t, line)
	wantCode(t, err, api.CodeLogin)
	guess := auth.NewEnrolment("r1", r.c.tls.ca.Hash())
	_, err = r.join(t, guess.String())
	wantCode(t, err, api.CodeLogin)

	first := token("r2", time.Minute)
	second := token("r2", time.Minute)
	_, err = r.join(t, first) // made before the second
	wantCode(t, err, api.CodeLogin)
	stolen, _ := auth.ParseEnrolment(second)
	stolen.Agent = "r3"
	_, err = r.join(t, stolen.String())
	wantCode(t, err, api.CodeLogin)
	clock.later(2 * time.Minute)
	_, err = r.join(t, second)
	wantCode(t, err, api.CodeLogin)
	if err == nil || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("%v", err)
	}
	agents, err := r.remote(t, "", cert), error(nil)
	if _, err = agents.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1}); err != nil {
		t.Error(err)
	}
	_, err = r.AgentToken(t.Context(), "r1", api.MakeAgentToken{TTL: 30 * 24 * time.Hour})
	wantCode(t, err, api.CodeBadRequest)
}

// TestARevocationEndsAnOpenPoll: the agent is cut off at once, whatever it does, until it is
// enrolled anew; the certificate of before does not come back with that.
func TestARevocationEndsAnOpenPoll(t *testing.T) {
	r, _ := onTLS(t)
	agent := r.enrolled(t, "r1")
	w, err := agent.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	first, err := agent.Poll(t.Context(), "r1", api.Poll{Session: w.Session})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := agent.Poll(context.Background(), "r1", api.Poll{Session: w.Session, Database: w.Database, Rev: first.Rev, Wait: time.Minute})
		ended <- err
	}()
	d := r.c.sessions.of("r1")
	until(t, "the poll is in flight", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.polls == 1 })
	if _, err := r.RevokeAgent(t.Context(), "r1", api.RevokeAgent{Reason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the poll was answered as before")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the poll goes on")
	}
	_, err = agent.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
	wantCode(t, err, api.CodeLogin)
	if err == nil || !strings.Contains(err.Error(), "was revoked at") {
		t.Errorf("%v", err)
	}
	_, err = agent.RenewCertificate(t.Context(), "r1", api.RenewCertificate{})
	wantCode(t, err, api.CodeLogin)
	again := r.enrolled(t, "r1")
	until(t, "the new certificate holds", func() bool {
		_, err := again.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
		return err == nil
	})
	_, err = agent.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
	wantCode(t, err, api.CodeLogin)
	agents, err := r.Agents(t.Context())
	if err != nil || len(agents) != 1 || agents[0].Certificate == nil || agents[0].Certificate.RevokedAt != nil {
		t.Errorf("%+v, %v", agents, err)
	}
}

func TestACertificateIsRenewed(t *testing.T) {
	r, clock := onTLS(t)
	agent := r.enrolled(t, "r1")
	clock.later(auth.AgentLife / 2)
	cert, err := keyPair(t, func(request string) (string, error) {
		out, err := agent.RenewCertificate(t.Context(), "r1", api.RenewCertificate{Request: request})
		return out.Certificate, err
	})
	if err != nil {
		t.Fatal(err)
	}
	clock.later(auth.AgentLife/2 + time.Hour)
	if _, err := r.remote(t, "", cert).Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1}); err != nil {
		t.Error(err)
	}
	_, err = agent.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
	wantCode(t, err, api.CodeLogin)
}

// TestAScopeIsAllThatOneSees asks as users of some nodes.
func TestAScopeIsAllThatOneSees(t *testing.T) {
	r, _ := onTLS(t)
	var nodes []api.NodeSpec
	for i, name := range []string{"a1", "a2", "b1", "b2"} {
		nodes = append(nodes, api.NodeSpec{Name: name, Rack: "r" + name[:1], BMC: fmt.Sprintf("ipmi://admin@192.0.2.%d", i+1)})
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: nodes}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*api.Client{
		r.as(t, "alice", api.AddUser{Role: "operator", Nodes: "a[1-2],gone"}), r.as(t, "anna", api.AddUser{Role: "admin", Nodes: "@ra"}),
	} {
		seen, err := c.Nodes(t.Context(), "all")
		if err != nil || len(seen) != 2 || seen[0].Name != "a1" || seen[1].Name != "a2" {
			t.Errorf("%+v, %v", seen, err)
		}
		_, err = c.Nodes(t.Context(), "b1")
		wantCode(t, err, api.CodeForbidden)
		_, err = c.Explain(t.Context(), "b1")
		wantCode(t, err, api.CodeForbidden)
		both := []string{"a1", "b1"}
		_, err = c.SetStatus(t.Context(), api.SetStatus{Names: both, Status: "READY"})
		wantCode(t, err, api.CodeForbidden)
		_, err = c.SetHold(t.Context(), api.SetHold{Names: both, Want: "off", Reason: "x"})
		wantCode(t, err, api.CodeForbidden)
		_, err = c.ReadNodes(t.Context(), api.ReadNodes{Names: both, Wait: time.Second})
		wantCode(t, err, api.CodeForbidden)
		ops := api.AskOps{}
		for _, n := range both {
			ops.Ops = append(ops.Ops, api.OpRequest{ID: newID(), Node: n, Action: power.ActOn})
		}
		_, err = c.AskOps(t.Context(), ops)
		wantCode(t, err, api.CodeForbidden)
		ops.DryRun = true
		_, err = c.AskOps(t.Context(), ops)
		wantCode(t, err, api.CodeForbidden)
	}
	found, err := r.QueryOps(t.Context(), api.QueryOps{})
	if err != nil || len(found.Ops) != 0 {
		t.Errorf("something was taken: %+v, %v", found.Ops, err)
	}
	asked, err := r.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{
		{ID: newID(), Node: "a1", Action: power.ActOn}, {ID: newID(), Node: "b1", Action: power.ActOn},
	}})
	if err != nil {
		t.Fatal(err)
	}
	bob := r.as(t, "bob", api.AddUser{Role: "operator", Nodes: "@rb"})
	found, err = bob.QueryOps(t.Context(), api.QueryOps{})
	if err != nil || len(found.Ops) != 1 || found.Ops[0].Node != "b1" {
		t.Errorf("%+v, %v", found.Ops, err)
	}
	_, err = bob.CancelOp(t.Context(), asked[0].ID, api.CancelOp{})
	wantCode(t, err, api.CodeNotFound)
	entries, err := bob.Audit(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Node != "b1" && e.Node != "b2" {
			t.Errorf("bob sees %+v", e)
		}
	}
	if len(entries) == 0 {
		t.Error("bob sees nothing of his nodes")
	}
	// An admin of some nodes removes those, and adds what his scope has.
	anna := r.as(t, "anton", api.AddUser{Role: "admin", Nodes: "@ra"})
	_, err = anna.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "b3", Rack: "rb", BMC: "ipmi://admin@192.0.2.9"}}})
	wantCode(t, err, api.CodeForbidden)
	if _, err := anna.AddNodes(t.Context(),
		api.AddNodes{Nodes: []api.NodeSpec{{Name: "a3", Rack: "ra", BMC: "ipmi://admin@192.0.2.8"}}}); err != nil {
		t.Error(err)
	}
	// Nor does he take a node that is another's into his scope.
	_, err = anna.AddNodes(t.Context(), api.AddNodes{Update: true, Confirmed: true, Nodes: []api.NodeSpec{{
		Name: "b2", Rack: "ra",
		BMC: "ipmi://admin@192.0.2.4",
	}}})
	wantCode(t, err, api.CodeForbidden)
}

func TestWhoSpeaksForOthersNeedsTheRight(t *testing.T) {
	r, _ := onTLS(t)
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r1", BMC: "ipmi://x@192.0.2.1"}}}); err != nil {
		t.Fatal(err)
	}
	op := func(named string) api.AskOps {
		return api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActOn, AskedBy: named}}}
	}
	alice := r.as(t, "alice", api.AddUser{Role: "operator"})
	_, err := alice.AskOps(t.Context(), op("bob"))
	wantCode(t, err, api.CodeForbidden)
	_, err = alice.SetHold(t.Context(), api.SetHold{Names: []string{"a"}, Want: "on", Reason: "x", AskedBy: "bob"})
	wantCode(t, err, api.CodeForbidden)
	if out, err := alice.AskOps(t.Context(), op("")); err != nil || out[0].AskedBy != "alice" {
		t.Errorf("%+v, %v", out, err)
	}
	portal := r.as(t, "portal", api.AddUser{Role: "operator", SpeaksForOthers: true})
	if out, err := portal.AskOps(t.Context(), op("bob")); err != nil || out[0].AskedBy != "portal for bob" {
		t.Errorf("%+v, %v", out, err)
	}
	entries, err := r.Audit(t.Context(), "a", 100)
	if err != nil {
		t.Fatal(err)
	}
	via := map[string]string{}
	for _, e := range entries {
		if e.What == "asked" {
			via[e.Who] = e.Via + " " + e.Address
		}
	}
	if via["alice"] != "token 127.0.0.1" || via["portal for bob"] != "token 127.0.0.1" {
		t.Errorf("%v", via)
	}
}

func TestTokensAreRotatedAndRevoked(t *testing.T) {
	r, _ := onTLS(t)
	alice := r.as(t, "alice", api.AddUser{Role: "viewer"})
	out, err := r.RotateToken(t.Context(), "alice", api.RotateToken{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = alice.WhoAmI(t.Context())
	wantCode(t, err, api.CodeLogin)
	again := r.remote(t, out.Token, nil)
	if me, err := again.WhoAmI(t.Context()); err != nil || me.Name != "alice" || me.Role != "viewer" || me.Via != "token" {
		t.Errorf("%+v, %v", me, err)
	}
	if _, err := r.AddUser(t.Context(), api.AddUser{Name: "alice", Role: "admin", Update: true}); err != nil {
		t.Fatal(err)
	}
	users, err := again.Users(t.Context())
	if err != nil || len(users) != 1 || users[0].Role != "admin" || users[0].UsedAt == nil || !users[0].HasToken {
		t.Errorf("%+v, %v", users, err)
	}
	if _, err := r.RemoveUser(t.Context(), "alice", api.RemoveUser{}); err != nil {
		t.Fatal(err)
	}
	_, err = again.WhoAmI(t.Context())
	wantCode(t, err, api.CodeLogin)
	_, err = r.RemoveUser(t.Context(), "alice", api.RemoveUser{})
	wantCode(t, err, api.CodeNotFound)
}

func TestGuessesAreSlowedDown(t *testing.T) {
	r, clock := onTLS(t)
	alice := r.as(t, "alice", api.AddUser{Role: "viewer"})
	for range freeGuesses {
		_, err := r.remote(t, auth.NewToken(), nil).WhoAmI(t.Context())
		wantCode(t, err, api.CodeLogin)
	}
	_, err := r.remote(t, auth.NewToken(), nil).WhoAmI(t.Context())
	wantCode(t, err, api.CodeTooMany)
	if _, err = alice.WhoAmI(t.Context()); err != nil { // from the same address
		t.Error(err)
	}
	_, err = r.join(t, auth.NewEnrolment("r1", r.c.tls.ca.Hash()).String())
	wantCode(t, err, api.CodeTooMany)
	clock.later(guessPause)
	_, err = r.remote(t, auth.NewToken(), nil).WhoAmI(t.Context())
	wantCode(t, err, api.CodeLogin)
}

// TestOnlyTLS13 tries what is older, and what is no TLS.
func TestOnlyTLS13(t *testing.T) {
	r, _ := onTLS(t)
	addr := r.addrs[len(r.addrs)-1].String()
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{
			MinVersion: version, MaxVersion: version,
			InsecureSkipVerify: true,
		}) //nolint:gosec // to be refused
		if err == nil {
			conn.Close()
			t.Errorf("%s was taken", tls.VersionName(version))
		}
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1/nodes HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(answer), "HTTP/1.0 400") || !strings.Contains(string(answer), "HTTPS") {
		t.Errorf("%q", answer)
	}
	// Once a minute for each address.
	var all []api.AuditEntry
	until(t, "it is in the audit log", func() bool {
		all, err = r.FindAudit(t.Context(), api.AuditQuery{What: "access-refused"})
		return err != nil || len(all) > 0
	})
	if err != nil || len(all) != 1 || all[0].Address != "127.0.0.1" ||
		!strings.HasPrefix(all[0].Detail, "TLS handshake: tls: client offered") {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestWhatARouteRefusesIsInTheAuditLog, not only who is not let in.
func TestWhatARouteRefusesIsInTheAuditLog(t *testing.T) {
	r, _ := onTLS(t)
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r1"}}}); err != nil {
		t.Fatal(err)
	}
	narrow := r.as(t, "ned", api.AddUser{Role: "operator", Nodes: "@r2"})
	_, err := narrow.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActOff}}})
	wantCode(t, err, api.CodeForbidden)
	_, err = r.as(t, "bob", api.AddUser{Role: "operator"}).AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{
		ID: newID(), Node: "a", Action: power.ActOff, AskedBy: "alice",
	}}})
	wantCode(t, err, api.CodeForbidden)
	all, err := r.FindAudit(t.Context(), api.AuditQuery{What: "access-refused"})
	if err != nil || len(all) != 2 || all[0].Who != "ned" || !strings.Contains(all[0].Detail, "may see and act on @r2 only") ||
		all[1].Who != "bob" || !strings.Contains(all[1].Detail, "--speaks-for-others") {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestTLSConfigurationsThatMakeNoSense(t *testing.T) {
	for name, c := range map[string]TLSConfig{
		"no site": {Listen: "127.0.0.1:0", Names: []string{"a"}, Site: "a b"}, "no names": {Listen: "127.0.0.1:0"},
		"no address": {Names: []string{"a"}}, "no port": {Listen: "127.0.0.1", Names: []string{"a"}},
		"no key": {Listen: "127.0.0.1:0", CertFile: "c", ClientCA: "d"}, "no client CA": {Listen: "127.0.0.1:0", CertFile: "c", KeyFile: "k"},
	} {
		if c, err := New(Config{Data: t.TempDir(), TLS: c}); err == nil {
			t.Errorf("%s: taken", name)
			c.Close()
		}
	}
	_, err := New(Config{Data: t.TempDir(), TLS: TLSConfig{
		Listen: "127.0.0.1:0", CertFile: "/nonexistent", KeyFile: "/nonexistent",
		ClientCA: "/nonexistent",
	}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// outside is an issuer of logins whose tokens say who they are for: ROLE.NAME.x
type outside struct{ away bool }

func (o *outside) Verify(_ context.Context, token string) (auth.Principal, error) {
	p := auth.Principal{Kind: auth.User, Method: auth.ByOIDC}
	if o.away {
		return p, auth.ErrNoIssuer
	}
	if token == "YWxpY2U.YWxpY2U.eA" {
		p.Name, p.Role, p.Scope = "alice", auth.Operator, "@ra"
		return p, nil
	}
	if token == "YWxpY2U.bm9uZQ.eA" {
		p.Name = "alice"
		return p, errors.New("no group of alice has a role here")
	}
	return p, errors.New("bad signature")
}

func TestLoginsOfAnIssuer(t *testing.T) {
	issuer := new(outside)
	r := run(t, Config{TLS: TLSConfig{Listen: "127.0.0.1:0", Names: []string{"127.0.0.1"}}, Login: issuer})
	alice := r.remote(t, "YWxpY2U.YWxpY2U.eA", nil)
	if me, err := alice.WhoAmI(t.Context()); err != nil || me.Name != "alice" || me.Role != "operator" || me.Nodes != "@ra" ||
		me.Via != "oidc" {
		t.Errorf("%+v, %v", me, err)
	}
	_, err := alice.Users(t.Context())
	wantCode(t, err, api.CodeForbidden)
	_, err = r.remote(t, "YWxpY2U.bm9uZQ.eA", nil).WhoAmI(t.Context())
	wantCode(t, err, api.CodeForbidden)
	_, err = r.remote(t, "YWxpY2U.YWxpY2U.eQ", nil).WhoAmI(t.Context())
	wantCode(t, err, api.CodeLogin)
	issuer.away = true
	_, err = alice.WhoAmI(t.Context())
	wantCode(t, err, api.CodeUnavailable)
	_, err = r.enrolled(t, "r1").Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
	if err != nil {
		t.Errorf("an agent, while the issuer is away: %v", err)
	}
}

type forTests struct{}

// FuzzEveryRouteAsEveryRole sends bodies and queries to all routes as each role: nothing
// panics, nothing that a role may not do gets past, and no answer is an internal error.
func FuzzEveryRouteAsEveryRole(f *testing.F) {
	c, err := New(Config{Data: f.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close() })
	c.authenticate = func(r *http.Request) (auth.Principal, error) {
		p, _ := r.Context().Value(forTests{}).(auth.Principal)
		if p.Kind == "" {
			return p, api.Problemf(api.CodeLogin, "nobody")
		}
		return p, nil
	}
	for _, route := range documentedRoutes(f) {
		for role := range uint8(5) {
			f.Add(route, role, "select=all&wait=1ms", `{"names":["a"],"nodes":[{"name":"a","rack":"r1"}],"ops":[{"node":"a","action":"on"}]}`)
		}
	}
	f.Fuzz(func(t *testing.T, route string, role uint8, query, body string) {
		method, path, ok := strings.Cut(route, " ")
		if !ok || method != http.MethodGet && method != http.MethodPost {
			return
		}
		path = strings.NewReplacer("{name}", "r1", "{id}", "x").Replace(path)
		target, err := url.Parse(path)
		if err != nil || !strings.HasPrefix(path, "/") {
			return
		}
		target.RawQuery = query
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		p := []auth.Principal{
			{},
			{Kind: auth.User, Name: "v", Role: auth.Viewer},
			{Kind: auth.User, Name: "o", Role: auth.Operator, Scope: "@r1"},
			{Kind: auth.User, Name: "a", Role: auth.Admin},
			{Kind: auth.Agent, Name: "r1"},
		}[role%5]
		r := (&http.Request{
			Method: method, URL: target, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{"Content-Type": {"application/json"}},
			RemoteAddr: "192.0.2.1:1", Host: "x",
		}).WithContext(context.WithValue(ctx, forTests{}, p))
		w := httptest.NewRecorder()
		c.Handler().ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s as %s: %s", route, p.Name, w.Body)
		}
		if least, known := leastOf[route]; known && w.Code < 400 && (rank[p.Role] < rank[least.role] || least.whole && !p.Everywhere()) {
			t.Errorf("%s as %s: %d %s", route, p.Name, w.Code, w.Body)
		}
	})
}

// What is only noted beside a request keeps it waiting for no disk: when a token was used, and
// that somebody was refused.
func TestARequestWaitsForNoNote(t *testing.T) {
	r, _ := onTLS(t)
	viewer := r.as(t, "ann", api.AddUser{Role: string(auth.Viewer)})
	entered, released := make(chan struct{}), make(chan struct{})
	written := make(chan error, 1)
	go func() {
		written <- r.c.store.Write(context.Background(), func(*store.Tx) error { close(entered); <-released; return nil })
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := viewer.Nodes(ctx, "all"); err != nil {
		t.Errorf("who asks waits for the disk: %v", err)
	}
	_, err := viewer.SetStatus(ctx, api.SetStatus{Names: []string{"n1"}, Status: power.StatusReady})
	wantCode(t, err, api.CodeForbidden)
	close(released)
	if err := <-written; err != nil {
		t.Error(err)
	}
	until(t, "both were noted", func() bool {
		all, err := r.Audit(t.Context(), "", 0)
		users, err2 := r.Users(t.Context())
		return err == nil && err2 == nil && slices.ContainsFunc(all, func(e api.AuditEntry) bool { return e.What == "access-refused" }) &&
			len(users) == 1 && users[0].UsedAt != nil
	})
}
