package central

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
)

// browser is one without a script: it keeps cookies, and says where a request comes from.
type browser struct {
	t    testing.TB
	base string
	http *http.Client
	last string // text of the page that it shows
	at   string
}

func (r *running) browser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig := auth.Pinned(r.c.tls.ca.Hash(), nil)
	transport := &http.Transport{TLSClientConfig: tlsConfig}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t: t, base: r.url(), http: &http.Client{Jar: jar, Transport: transport}}
}

func (b *browser) do(req *http.Request) *http.Response {
	b.t.Helper()
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	b.last, b.at = string(text), resp.Request.URL.Path
	return resp
}

func (b *browser) get(path string) *http.Response {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.base+path, http.NoBody)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.do(req)
}

// post sends a form, from a page of the site that origin names; "": of this one.
func (b *browser) post(path, origin string, form url.Values) *http.Response {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if origin != "" {
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		req.Header.Set("Origin", origin)
	}
	return b.do(req)
}

var (
	csrfField  = regexp.MustCompile(`name="csrf" value="([^"]+)"`)
	nonceField = regexp.MustCompile(`name="nonce" value="([^"]+)"`)
)

// form is the hidden fields of the page that is shown, with others.
func (b *browser) form(pairs ...string) url.Values {
	b.t.Helper()
	out := url.Values{}
	for name, field := range map[string]*regexp.Regexp{"csrf": csrfField, "nonce": nonceField} {
		if m := field.FindStringSubmatch(b.last); m != nil {
			out.Set(name, m[1])
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		out.Add(pairs[i], pairs[i+1])
	}
	return out
}

// logsIn adds a user and logs in.
func (r *running) logsIn(t testing.TB, name string, in api.AddUser) *browser {
	t.Helper()
	in.Name = name
	out, err := r.AddUser(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	b := r.browser(t)
	if resp := b.post("/ui/login", "", url.Values{"token": {out.Token}}); resp.StatusCode != http.StatusOK || b.at != "/ui/" {
		t.Fatalf("log-in: %s at %s\n%s", resp.Status, b.at, b.last)
	}
	return b
}

// furnished is a central with a rack whose agent lives, one without an agent, and texts that
// would be a script if they were not escaped.
func furnished(t *testing.T) *running {
	t.Helper()
	r, _ := onTLS(t)
	specs := []api.NodeSpec{
		{Name: "n1", Rack: "r1", BMC: "ipmi://admin@192.0.2.1", Status: power.StatusDeployed, Domain: "pdu"},
		{Name: "n2", Rack: "r1", BMC: "ipmi://admin@192.0.2.2", Status: power.StatusReady},
		{Name: "other", Rack: "r2", BMC: "ipmi://admin@192.0.2.3"},
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	agent := r.enrolled(t, "r1")
	w, err := agent.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	report := api.Report{Session: w.Session, JournalID: "j", Epoch: 1, Rack: &api.RackState{
		Monitor: "@every 60s", Brake: &api.Brake{ID: "b", Kind: "cut", Nodes: []string{"n2"}, Total: 2, Message: script, Since: time.Now()},
	}}
	for _, name := range []string{"n1", "n2"} {
		report.Readings = append(report.Readings, api.NodeReading{
			Node: name, Reading: power.Seen(power.On, time.Now()), Monitor: api.NodeMonitor{Fault: script, FaultSince: time.Now()},
		})
	}
	if _, err := agent.Report(t.Context(), "r1", report); err != nil {
		t.Fatal(err)
	}
	hold := api.SetHold{Names: []string{"n1"}, Want: power.WantOn, Reason: script}
	if _, err := r.SetHold(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	ask := api.OpRequest{ID: newID(), Node: "n1", Action: power.ActCycle, Reason: script}
	if _, err := r.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{ask}}); err != nil {
		t.Fatal(err)
	}
	r.c.explainWait = time.Millisecond
	return r
}

const script = `<script>alert("x")</script>`

// pages are those that everybody may see.
var pages = []string{
	"/ui/", "/ui/heads", "/ui/attention", "/ui/racks/r1", "/ui/racks/r1/brake", "/ui/nodes/n1", "/ui/ops", "/ui/domains", "/ui/approvals",
}

// TestEveryPageAsEveryRole: who has no session sees the log-in, who has one sees the page and
// no more than the scope has; nothing in it is a script, and what it links to is there.
func TestEveryPageAsEveryRole(t *testing.T) {
	r := furnished(t)
	nobody := r.browser(t)
	people := map[string]*browser{
		"viewer":   r.logsIn(t, "vera", api.AddUser{Role: "viewer"}),
		"operator": r.logsIn(t, "olga", api.AddUser{Role: "operator"}),
		"admin":    r.logsIn(t, "adam", api.AddUser{Role: "admin"}),
		"of r2":    r.logsIn(t, "rita", api.AddUser{Role: "viewer", Nodes: "@r2"}),
	}
	links := regexp.MustCompile(`(?:href|src)="(/[^"]*)"`)
	for _, page := range pages {
		if resp := nobody.get(page); resp.StatusCode != http.StatusUnauthorized || strings.Contains(nobody.last, "Log out") ||
			strings.Contains(nobody.last, "alert") {
			t.Errorf("%s of nobody: %s", page, resp.Status)
		}
		for who, b := range people {
			resp := b.get(page)
			if who == "of r2" {
				if strings.Contains(b.last, "nodes/n1") || page == "/ui/nodes/n1" && resp.StatusCode < 400 {
					t.Errorf("%s: a node beyond the scope is shown", page)
				}
				continue
			}
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s as %s: %s\n%s", page, who, resp.Status, b.last)
			}
			if strings.Contains(b.last, "alert(\"") || strings.Contains(b.last, "style=\"") || strings.Contains(b.last, "onclick") {
				t.Errorf("%s as %s has a script or a style within", page, who)
			}
			if has := strings.Contains(b.last, `action="/ui/change"`); has && who == "viewer" {
				t.Errorf("%s offers a viewer what it may not do", page)
			}
			for name, part := range map[string]string{
				"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
				"Referrer-Policy": "same-origin",
			} {
				if !strings.Contains(resp.Header.Get(name), part) {
					t.Errorf("%s: %s is %q", page, name, resp.Header.Get(name))
				}
			}
		}
	}
	seen := map[string]bool{}
	admin := people["admin"]
	for _, page := range pages {
		admin.get(page)
		for _, m := range links.FindAllStringSubmatch(admin.last, -1) {
			seen[m[1]] = true
		}
	}
	for link := range seen {
		if link == "/ui/domains?watts=1" {
			continue // it waits for BMCs that are not there
		}
		if resp := admin.get(link); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", link, resp.Status)
		}
	}
	if len(seen) < 8 {
		t.Errorf("only %d links were found: %v", len(seen), seen)
	}
}

// actions are all forms, with fields that make sense.
var actions = map[string][]string{
	"/ui/change":         {"node", "n2", "what", "on"},
	"/ui/plans/x/apply":  {},
	"/ui/approvals/x":    {"decision", "approve"},
	"/ui/retry":          {"node", "n1"},
	"/ui/ops/x/cancel":   {},
	"/ui/racks/r1/pause": {},
	"/ui/racks/r1/brake": {"most", "1"},
	"/ui/agents/r1/ack":  {},
	"/ui/logout":         {},
}

// TestAFormIsTakenFromItsOwnPageOnly plays other sites, other sessions and nobody: none of
// them gets as far as to the API.
func TestAFormIsTakenFromItsOwnPageOnly(t *testing.T) {
	r := furnished(t)
	b, other := r.logsIn(t, "olga", api.AddUser{Role: "operator"}), r.logsIn(t, "oleg", api.AddUser{Role: "operator"})
	before, err := r.Audit(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for path, fields := range actions {
		b.get("/ui/racks/r1")
		genuine := b.form(fields...)
		other.get("/ui/racks/r1")
		foreign := other.form(fields...)
		if resp := b.post(path, "https://evil.example", genuine); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s from another site: %s", path, resp.Status)
		}
		if resp := b.post(path, "", foreign); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s with the form of another session: %s", path, resp.Status)
		}
		if resp := r.browser(t).post(path, "", genuine); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a session: %s", path, resp.Status)
		}
	}
	after, err := r.Audit(t.Context(), "", 1000)
	if err != nil || len(after) != len(before) {
		t.Errorf("%d entries more in the audit log, %v", len(after)-len(before), err)
	}
}

// TestAViewerDoesNothingByCurl: a form that no page offers is refused where all is.
func TestAViewerDoesNothingByCurl(t *testing.T) {
	r := furnished(t)
	b := r.logsIn(t, "vera", api.AddUser{Role: "viewer"})
	for path, fields := range actions {
		if path == "/ui/logout" {
			continue
		}
		b.get("/ui/racks/r1")
		form := b.form(fields...)
		form.Set("nonce", newID())
		if resp := b.post(path, "", form); resp.StatusCode != http.StatusForbidden || !strings.Contains(b.last, "not permitted") {
			t.Errorf("%s as a viewer: %s\n%s", path, resp.Status, b.last)
		}
	}
}

// TestACookieIsNothingToTheAPI: what a browser sends by itself opens no route.
func TestACookieIsNothingToTheAPI(t *testing.T) {
	r := furnished(t)
	b := r.logsIn(t, "adam", api.AddUser{Role: "admin"})
	if resp := b.get("/v1/nodes"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s", resp.Status)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, b.base+"/v1/pause", strings.NewReader("reason=x"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if resp := b.do(req); resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a form at the API: %s", resp.Status)
	}
	base, _ := url.Parse(b.base)
	for _, c := range b.http.Jar.Cookies(base) {
		if c.Name != "__Host-rackpower" || len(c.Value) < 40 {
			t.Errorf("%+v", c)
		}
	}
	resp := r.browser(t).post("/ui/login", "", url.Values{"token": {"rpt_nonsense"}})
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("%s, %q", resp.Status, resp.Header.Get("Set-Cookie"))
	}
}

// TestPowerIsTakenAfterItWasShown: the page of the plan names the nodes and asks. Sent twice it
// is done once.
func TestPowerIsTakenAfterItWasShown(t *testing.T) {
	r := furnished(t)
	b := r.logsIn(t, "olga", api.AddUser{Role: "operator"})
	b.get("/ui/racks/r1")
	form := b.form("node", "n2", "what", "off", "reason", "PSU")
	count := func() int {
		t.Helper()
		found, err := r.QueryOps(t.Context(), api.QueryOps{Nodes: []string{"n2"}})
		if err != nil {
			t.Fatal(err)
		}
		return len(found.Ops)
	}
	if resp := b.post("/ui/change", "", form); resp.StatusCode != http.StatusOK || !strings.HasPrefix(b.at, "/ui/plans/") ||
		!strings.Contains(b.last, "1 node will lose power") || !strings.Contains(b.last, "n2") {
		t.Fatalf("%s at %s\n%s", resp.Status, b.at, b.last)
	}
	plan := b.at
	if n := count(); n != 0 {
		t.Fatalf("%d operations before it was confirmed", n)
	}
	if b.post("/ui/change", "", form); b.at != plan {
		t.Errorf("the same form led to %s, and to %s", plan, b.at)
	}
	apply := b.form()
	for range 2 {
		if resp := b.post(plan+"/apply", "", apply); resp.StatusCode != http.StatusOK || !strings.Contains(b.last, "What became of it") {
			t.Fatalf("%s\n%s", resp.Status, b.last)
		}
	}
	if n := count(); n != 1 {
		t.Errorf("%d operations", n)
	}
	if b.get("/ui/ops"); !strings.Contains(b.last, "PSU") {
		t.Error("the operation is not shown")
	}
	// What takes no power is done at once, and once.
	b.get("/ui/nodes/n1")
	form = b.form("node", "n1", "what", "release")
	for range 2 {
		if resp := b.post("/ui/change", "", form); resp.StatusCode != http.StatusOK || !strings.Contains(b.last, "1 changed") {
			t.Errorf("%s\n%s", resp.Status, b.last)
		}
	}
	// The brake: more nodes than were seen are not released.
	b.get("/ui/racks/r1/brake")
	if resp := b.post("/ui/racks/r1/brake", "", b.form("most", "0", "reason", "x")); resp.StatusCode != http.StatusConflict {
		t.Errorf("%s", resp.Status)
	}
	b.get("/ui/racks/r1/brake")
	if resp := b.post("/ui/racks/r1/brake", "", b.form("most", "1", "reason", "x")); resp.StatusCode != http.StatusOK ||
		!strings.Contains(b.last, "released the brake of rack r1") {
		t.Errorf("%s\n%s", resp.Status, b.last)
	}
}

// TestAnApprovalOnThePage: one asks, another approves.
func TestAnApprovalOnThePage(t *testing.T) {
	r := furnished(t)
	if _, err := r.SetPolicy(t.Context(), api.SetPolicy{ApproveNodes: ptr("n2")}); err != nil {
		t.Fatal(err)
	}
	olga, oleg := r.logsIn(t, "olga", api.AddUser{Role: "operator"}), r.logsIn(t, "oleg", api.AddUser{Role: "operator"})
	events, stop := oleg.live("node=other", "") // a page of which nothing changes
	defer stop()
	events(`"approvals":0`)
	olga.get("/ui/racks/r1")
	olga.post("/ui/change", "", olga.form("node", "n2", "what", "off"))
	plan := olga.at
	olga.post(plan+"/apply", "", olga.form())
	if !strings.Contains(olga.last, "take it back") || strings.Contains(olga.last, `value="approve"`) {
		t.Fatalf("%s", olga.last)
	}
	events(`"approvals":1`)
	items, err := r.Attention(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	oleg.get("/ui/approvals")
	for _, part := range []string{
		fmt.Sprintf("<title>(%d) Approvals", len(items)), fmt.Sprintf(`class="count critical">%d</b>`, len(items)), `id="n-approvals" class="count">1</b>`,
	} {
		if !strings.Contains(oleg.last, part) {
			t.Errorf("no %s in\n%s", part, oleg.last)
		}
	}
	if !strings.Contains(oleg.last, plan) {
		t.Fatalf("%s", oleg.last)
	}
	oleg.get(plan)
	resp := oleg.post(strings.Replace(plan, "plans", "approvals", 1), "", oleg.form("decision", "approve", "reason", "seen"))
	if resp.StatusCode != http.StatusOK || !strings.Contains(oleg.last, "applied") {
		t.Errorf("%s\n%s", resp.Status, oleg.last)
	}
}

// TestASessionEnds: by log-out, with the rights of its user, and by time.
func TestASessionEnds(t *testing.T) {
	r, clock := onTLS(t)
	b := r.logsIn(t, "vera", api.AddUser{Role: "viewer"})
	form := b.form()
	if b.post("/ui/logout", "", form); b.at != "/ui/login" {
		t.Errorf("at %s", b.at)
	}
	if resp := b.get("/ui/"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after log-out: %s", resp.Status)
	}
	b = r.logsIn(t, "olga", api.AddUser{Role: "operator"})
	if _, err := r.RotateToken(t.Context(), "olga", api.RotateToken{RevokeOnly: true}); err != nil {
		t.Fatal(err)
	}
	if resp := b.get("/ui/"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the token was revoked: %s", resp.Status)
	}
	b = r.logsIn(t, "ines", api.AddUser{Role: "viewer"})
	for range 5 { // in use, but for long
		clock.later(90 * time.Minute)
		if resp := b.get("/ui/attention"); resp.StatusCode != http.StatusOK {
			t.Errorf("in use: %s", resp.Status)
		}
	}
	clock.later(3 * time.Hour)
	if resp := b.get("/ui/"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("unused for 3 hours: %s", resp.Status)
	}
}

// TestATunnelToTheSocketHasNoRights: a browser that comes by the socket of central is root or
// central's own user to the kernel. The page asks it for a token all the same.
func TestATunnelToTheSocketHasNoRights(t *testing.T) {
	s := newSite(t)
	s.nodes("n1")
	viewer, err := s.AddUser(t.Context(), api.AddUser{Name: "vera", Role: "viewer"})
	if err != nil {
		t.Fatal(err)
	}
	jar, _ := cookiejar.New(nil)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.http.Listener.Addr().String())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	b := &browser{t: t, base: "http://localhost", http: &http.Client{Jar: jar, Transport: transport}}
	if resp := b.get("/ui/"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %s", resp.Status)
	}
	b.post("/ui/login", "", url.Values{"token": {viewer.Token}})
	if b.get("/ui/nodes/n1"); !strings.Contains(b.last, "vera, viewer") {
		t.Errorf("%s", b.last)
	}
	form := b.form("node", "n1", "what", "off", "nonce", newID())
	if resp := b.post("/ui/change", "", form); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a viewer took power: %s", resp.Status)
	}
}

// TestPagesThatAreNotThere say so, and what to do.
func TestPagesThatAreNotThere(t *testing.T) {
	r := furnished(t)
	b := r.logsIn(t, "vera", api.AddUser{Role: "viewer"})
	for path, status := range map[string]int{
		"/ui/nope": 404, "/ui/nodes/none": 404, "/ui/nodes/n[1-2]": 404, "/ui/racks/none": 404, "/ui/plans/none": 404,
		"/ui/static/none": 404, "/ui/nodes/" + url.PathEscape(script): 404,
	} {
		if resp := b.get(path); resp.StatusCode != status || !strings.Contains(b.last, "To the site") || strings.Contains(b.last, script) {
			t.Errorf("%s: %s\n%s", path, resp.Status, b.last)
		}
	}
	for q, to := range map[string]string{"r1": "/ui/racks/r1", " n1 ": "/ui/nodes/n1", "../x": "/ui/nodes/../x"} {
		if b.get("/ui/find?q=" + url.QueryEscape(q)); b.at != to {
			t.Errorf("%q leads to %s", q, b.at)
		}
	}
	if b.get("/"); b.at != "/ui/" {
		t.Errorf("/ leads to %s", b.at)
	}
	r.c.stopLongPolls()
	if err := r.c.store.Close(); err != nil {
		t.Fatal(err)
	}
	if resp := b.get("/ui/attention"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(b.last, "stopping") {
		t.Errorf("central closes: %s\n%s", resp.Status, b.last)
	}
}

// live follows GET /ui/live of a session.
func (b *browser) live(query, after string) (events func(until string) string, stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base+"/ui/live?"+query, http.NoBody)
	if err != nil {
		b.t.Fatal(err)
	}
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		b.t.Fatalf("%s, %s", resp.Status, kind)
	}
	in := bufio.NewReader(resp.Body)
	events = func(until string) string {
		b.t.Helper()
		var text strings.Builder
		for !strings.Contains(text.String(), until) {
			line, err := in.ReadString('\n')
			text.WriteString(line)
			if err != nil {
				b.t.Fatalf("waited in vain for %q: %v\n%s", until, err, text.String())
			}
		}
		return text.String()
	}
	return events, func() { cancel(); resp.Body.Close() }
}

// TestAPageIsLive: the squares that changed are sent, with the rights of the session; after a
// cut it goes on where it was; the end of the session ends it.
func TestAPageIsLive(t *testing.T) {
	r := furnished(t)
	b, other := r.logsIn(t, "vera", api.AddUser{Role: "viewer"}), r.logsIn(t, "rita", api.AddUser{Role: "viewer", Nodes: "@r2"})
	hold := func(want power.Want, name string) {
		t.Helper()
		if _, err := r.SetHold(t.Context(), api.SetHold{Names: []string{name}, Want: want, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	events, stop := b.live("kind=cells", "")
	if first := events("event: news"); !strings.Contains(first, `"n1":["c n N e","!"`) || !strings.Contains(first, `"other":`) {
		t.Errorf("%s", first)
	}
	hold(power.WantOn, "other")
	seen := events(`other: unknown, desired on`)
	id := regexp.MustCompile(`(?m)^id: (.+)$`).FindStringSubmatch(seen + events("\n\n") + events("id: "))
	stop()
	if id == nil {
		t.Fatalf("no id in %s", seen)
	}
	hold(power.WantOff, "other")
	events, stop = b.live("kind=cells", id[1])
	if again := events(`other: unknown, desired off`); strings.Contains(again, `"n1":`) {
		t.Errorf("after a cut all was sent again: %s", again)
	}
	stop()
	events, stop = other.live("kind=cells", "")
	hold(power.WantOff, "n1")
	hold(power.WantOn, "other")
	if all := events(`other: unknown, desired on`); strings.Contains(all, "n1") {
		t.Errorf("a node beyond the scope: %s", all)
	}
	stop()
	events, stop = b.live("rack=r1", "")
	defer stop()
	events("event: news")
	b.get("/ui/")
	b.post("/ui/logout", "", b.form())
	events("event: reload")
	if resp := r.browser(t).get("/ui/live"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s", resp.Status)
	}
}

// BenchmarkSiteOf10000Nodes is what central does for the first look at a large site.
func BenchmarkSiteOf10000Nodes(b *testing.B) {
	r, _ := onTLS(b)
	for i := range 250 {
		var specs []api.NodeSpec
		for n := range 40 {
			specs = append(specs, api.NodeSpec{
				Name: fmt.Sprintf("r%dn%02d", i, n), Rack: fmt.Sprintf("r%d", i), BMC: fmt.Sprintf("ipmi://x@bmc-%d-%d", i, n),
				Status: power.StatusReady,
			})
		}
		if _, err := r.AddNodes(b.Context(), api.AddNodes{Nodes: specs}); err != nil {
			b.Fatal(err)
		}
	}
	page := r.logsIn(b, "vera", api.AddUser{Role: "viewer"})
	b.ResetTimer()
	for range b.N {
		page.get("/ui/")
	}
	b.ReportMetric(float64(len(page.last)), "bytes/page")
}
