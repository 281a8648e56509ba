package central

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
)

// rawly is a raw request to a handler, with its answer.
func rawly(t testing.TB, c *http.Client, method, url, kind, body string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, data
}

// raw is a client of HTTP that asks a site at http://unix.
func (s *site) raw() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: dialer(s.http.Listener.Addr().String())}}
}

// TestTheDescriptionIsTheTable: each route is described, and nothing else; what it names is there.
func TestTheDescriptionIsTheTable(t *testing.T) {
	s := newSite(t)
	left := maps.Clone(described)
	for _, r := range s.c.table {
		d, ok := described[r.pattern]
		if !ok || d.summary == "" {
			t.Errorf("%s is not described: see openapi_routes.go", r.pattern)
		}
		for _, name := range d.query {
			if queries[name].meaning == "" {
				t.Errorf("%s: nothing says what %s means", r.pattern, name)
			}
		}
		delete(left, r.pattern)
	}
	for pattern := range left {
		t.Errorf("%s is described and no route", pattern)
	}
	_, data := rawly(t, s.raw(), "GET", "http://unix/v1/openapi.json", "", "")
	var doc object
	if err := json.Unmarshal(data, &doc); err != nil || doc["openapi"] != "3.1.0" {
		t.Fatal(err, doc["openapi"])
	}
	schemas := doc["components"].(object)["schemas"].(object)
	for _, m := range regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllSubmatch(data, -1) {
		if _, there := schemas[string(m[1])]; !there {
			t.Errorf("no schema %s", m[1])
		}
	}
	resp, page := rawly(t, s.raw(), "GET", "http://unix/docs", "", "")
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
		t.Errorf("policy %q", csp)
	}
	if bytes.Contains(page, []byte("<script")) || bytes.Contains(page, []byte("http://")) || bytes.Contains(page, []byte("https://")) {
		t.Error("the page needs something else")
	}
	for path := range doc["paths"].(object) {
		if !bytes.Contains(page, []byte(path)) {
			t.Errorf("the page has no %s", path)
		}
	}
}

// played are the answers to examples that are errors, on purpose.
var played = map[string]api.Code{
	"POST /v1/approvals/{id}": api.CodeRefused,  // it awaits none
	"POST /v1/brakes/release": api.CodeNotFound, // none holds
	"POST /v1/site/confirm":   api.CodeRefused,  // there was no restore
}

// examples plays them, one after the other.
type examples struct {
	t      *testing.T
	client *http.Client
	doc    object
	// given are the words in capitals that answers before have given, and what stands for names.
	given map[string]string
}

// TestTheExamplesArePlayed sends the example of each route with a body, and asks each other one,
// with each of its parameters: the answers have no field that the description lacks, and none of
// another type. A route without an example fails.
func TestTheExamplesArePlayed(t *testing.T) {
	r, _ := onTLS(t)
	r.c.explainWait = 0
	if err := r.c.UseGossip(new(exampleGossip)); err != nil {
		t.Fatal(err)
	}
	for name, rack := range map[string]string{"n1": "r1", "n2": "r1", "n8": "r8"} {
		in := api.AddNodes{Nodes: []api.NodeSpec{{Name: name, Rack: rack, BMC: "ipmi://admin@192.0.2.1" + name[1:], Password: "secret"}}}
		if _, err := r.AddNodes(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.AgentToken(t.Context(), "r7", api.MakeAgentToken{}); err != nil {
		t.Fatal(err)
	}
	err := r.c.write(t.Context(), time.Now(), "central", func(u *unitOfWork) error {
		return u.raise("r1", api.Alarm{Kind: api.AlarmJournalLost, Message: "it is gone", NeedsAck: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	x := examples{t: t, client: &http.Client{Transport: &http.Transport{DialContext: dialer(r.cfg.Socket)}}, given: map[string]string{}}
	t.Cleanup(x.client.CloseIdleConnections)
	_, data := rawly(t, x.client, "GET", "http://unix/v1/openapi.json", "", "")
	if err := json.Unmarshal(data, &x.doc); err != nil {
		t.Fatal(err)
	}
	for _, route := range r.c.table {
		d := described[route.pattern]
		if (route.in != nil) != (d.example != "") {
			t.Errorf("%s: it has a body: %v, and the example %q", route.pattern, route.in != nil, d.example)
			continue
		}
		if !slices.Contains(d.query, needed) {
			x.play(route, "", d.example)
		}
		for _, name := range slices.Concat(d.query, route.query) {
			value := cmp.Or(x.given[route.pattern+" "+name], queries[name].example, x.given[name])
			if value == "" {
				t.Errorf("%s: %s has no example, and no answer gave one", route.pattern, name)
			}
			query := "?" + name + "=" + url.QueryEscape(value)
			if name == "wait" {
				query += "&after=" + queries["after"].example
			}
			x.play(route, query, "")
		}
	}
}

// needed is a parameter that its route does not do without.
const needed = "node"

// exampleGossip is a cluster of one agent.
type exampleGossip struct{ keyedGossip }

func (*exampleGossip) Peers() []api.PeerNode {
	return []api.PeerNode{{Node: "n1", Owner: "r1", OwnerStatus: "alive", State: power.On, Reach: power.ReachOK}}
}

// inPaths are what stands in paths.
var inPaths = map[string]string{
	"GET /debug/pprof/{name}": "heap",
	"nodes":                   "n1", "racks": "r1", "users": "vera", "credentials": "lab", "agents": "r1",
	"POST /v1/agents/{name}/forget": "r8", // which is gone
	"POST /v1/agents/{name}/drain":  "r1",
	"POST /v1/agents/{name}/revoke": "r7", // not that which goes on below
	"ops":                           "019350e0-0000-7000-8000-000000000001",
	"plans":                         "019350e0-0000-7000-8000-000000000002",
	"approvals":                     "019350e0-0000-7000-8000-000000000002",
}

// play asks once.
func (x *examples) play(r route, query, body string) {
	x.t.Helper()
	method, path, _ := strings.Cut(r.pattern, " ")
	what := r.pattern + query
	kind, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	name := cmp.Or(inPaths[r.pattern], inPaths[kind])
	for word, value := range x.given {
		if strings.ToUpper(word) == word {
			body = strings.ReplaceAll(body, word, value)
		}
	}
	ctx, cancel := context.WithCancel(x.t.Context())
	defer cancel() // of a stream
	url := "http://unix" + strings.NewReplacer("{name}", name, "{id}", name).Replace(path) + query
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := x.client.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	if r.media != "" {
		if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, r.media) {
			x.t.Errorf("%s: %s, %s, want %s", what, resp.Status, kind, r.media)
		}
		for lines := bufio.NewScanner(resp.Body); r.media == "text/event-stream" && lines.Scan(); {
			if id, found := strings.CutPrefix(lines.Text(), "id: "); found {
				x.given[r.pattern+" after"] = id
				return
			}
		}
		return
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	var answer any
	if len(data) > 0 {
		if err := json.Unmarshal(data, &answer); err != nil {
			x.t.Errorf("%s: %v: %s", what, err, data)
			return
		}
	}
	op := x.doc["paths"].(object)[path].(object)[strings.ToLower(method)].(object)
	schema := op["responses"].(object)["200"].(object)["content"].(object)["application/json"].(object)["schema"]
	if want := played[r.pattern]; want != "" {
		schema = object{"$ref": "#/components/schemas/Problem"}
		if code := answer.(object)["code"]; code != string(want) {
			x.t.Errorf("%s: %s, want %s", what, data, want)
		}
	} else if resp.StatusCode != http.StatusOK {
		x.t.Errorf("%s: %d %s", what, resp.StatusCode, data)
		return
	}
	if wrong := conforms(x.doc, schema, answer, what); wrong != "" {
		x.t.Errorf("%s\n%s", wrong, data)
	}
	x.keep(r.pattern, resp, answer)
}

// keep notes what later examples want.
func (x *examples) keep(pattern string, resp *http.Response, answer any) {
	if m := nextLink.FindStringSubmatch(resp.Header.Get("Link")); m != nil {
		if u, err := url.Parse(m[1]); err == nil {
			x.given["page"] = u.Query().Get("page")
		}
	}
	of, _ := answer.(object)
	switch pattern {
	case "GET /v1/audit/verify":
		x.given["head"], _ = of["head"].(string)
	case "POST /v1/agents/{name}/token":
		if token, _ := of["token"].(string); token != "" {
			line, err := auth.ParseEnrolment(token)
			x.given["SECRET"] = line.Secret
			if err != nil {
				x.t.Error(err)
			}
		}
	case "POST /v1/agents/{name}/hello":
		x.given["SESSION"], _ = of["session"].(string)
	}
}

// conforms says what of a value is not as a schema has it, "" for nothing. It is stricter than
// JSON Schema: no property may be there that is not described.
func conforms(doc object, schema, value any, at string) string {
	s := schema.(object)
	if ref, ok := s["$ref"].(string); ok {
		return conforms(doc, doc["components"].(object)["schemas"].(object)[strings.TrimPrefix(ref, "#/components/schemas/")], value, at)
	}
	if any, ok := s["anyOf"].([]any); ok {
		if value == nil {
			return ""
		}
		return conforms(doc, any[0], value, at)
	}
	is := ""
	switch v := value.(type) {
	case nil:
		is = "null"
	case string:
		is = "string"
	case bool:
		is = "boolean"
	case float64:
		if is = "number"; v == float64(int64(v)) {
			is = "integer"
		}
	case []any:
		is = "array"
		for i, one := range v {
			if s["items"] != nil {
				if wrong := conforms(doc, s["items"], one, fmt.Sprintf("%s[%d]", at, i)); wrong != "" {
					return wrong
				}
			}
		}
	case object:
		is = "object"
		properties, _ := s["properties"].(object)
		for name, one := range v {
			of := properties[name]
			if of == nil {
				of = s["additionalProperties"]
			}
			if of == nil && s["type"] != nil {
				return fmt.Sprintf("%s.%s is not described", at, name)
			}
			if of != nil {
				if wrong := conforms(doc, of, one, at+"."+name); wrong != "" {
					return wrong
				}
			}
		}
	}
	types, ok := s["type"].([]any)
	if !ok && s["type"] != nil {
		types = []any{s["type"]}
	}
	if types != nil && !slices.Contains(types, any(is)) && !(is == "integer" && slices.Contains(types, any("number"))) {
		return fmt.Sprintf("%s is %s, want %v", at, is, types)
	}
	return ""
}

// TestErrorsAreProblems: whatever is wrong, the answer is a problem with its code.
func TestErrorsAreProblems(t *testing.T) {
	r, _ := onTLS(t)
	s := newSite(t)
	https := r.remote(t, "", nil)
	if code := api.CodeOf(https.Do(t.Context(), "GET", "/v1/nodes", nil, nil)); code != api.CodeLogin {
		t.Errorf("nobody over TLS: %s", code)
	}
	client := s.raw()
	const form, plain = "application/json", "application/x-www-form-urlencoded"
	for _, one := range []struct {
		method, path, kind, body string
		code                     api.Code
	}{
		{"GET", "/nothing", "", "", api.CodeNotFound},
		{"GET", "/v1/nothing", "", "", api.CodeNotFound},
		{"POST", "/v1/nothing", form, "{}", api.CodeNotFound},
		{"DELETE", "/v1/nodes", "", "", api.CodeMethod},
		{"PUT", "/v1/racks/r1", form, "{}", api.CodeMethod},
		{"GET", "/v1/racks/r1", "", "", api.CodeMethod},
		{"POST", "/v1/audit", form, "{}", api.CodeMethod},
		{"GET", "/v1/nodes?slect=n1", "", "", api.CodeBadRequest},
		{"GET", "/v1/nodes?select=n1", "", "", api.CodeNotFound},
		{"GET", "/v1/nodes?select=[", "", "", api.CodeBadRequest},
		{"POST", "/v1/nodes", plain, "{}", api.CodeMediaType},
		{"POST", "/v1/nodes", "", "{}", api.CodeMediaType},
		{"POST", "/v1/nodes", form, "", api.CodeBadRequest},
		{"POST", "/v1/nodes", form, "{", api.CodeBadRequest},
		{"POST", "/v1/nodes", form, `{"nods": []}`, api.CodeBadRequest},
		{"POST", "/v1/nodes", form, `{} {}`, api.CodeBadRequest},
		{"POST", "/v1/join", form, `"` + strings.Repeat("x", maxJoinBody) + `"`, api.CodeTooLarge},
		{"POST", "/v1/agents/r1/poll", form, `{}`, api.CodeHello},
		{"POST", "/v1/ops/x/cancel", form, `{}`, api.CodeNotFound},
	} {
		resp, body := rawly(t, client, one.method, "http://unix"+one.path, one.kind, one.body)
		isProblem(t, one.method+" "+one.path, resp, body, one.code)
		if allow := resp.Header.Get("Allow"); (allow != "") != (one.code == api.CodeMethod) {
			t.Errorf("%s %s: Allow %q", one.method, one.path, allow)
		}
	}
	w := httptest.NewRecorder()
	query(s.c, func(*http.Request) (int, error) { panic("oops") }).handler(w, httptest.NewRequest("GET", "/", nil))
	isProblem(t, "a panic", w.Result(), w.Body.Bytes(), api.CodeInternal)
}

func isProblem(t *testing.T, what string, resp *http.Response, body []byte, want api.Code) {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Errorf("%s: %v: %s", what, err, body)
		return
	}
	if p.Code != want || p.Status != resp.StatusCode || p.Detail == "" || p.Title != http.StatusText(p.Status) ||
		resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %d %s %+v, want %s", what, resp.StatusCode, resp.Header, p, want)
	}
}

// TestEachCodeHasAMeaning: the constants of package api are its table.
func TestEachCodeHasAMeaning(t *testing.T) {
	source, err := os.ReadFile("api/problem.go")
	if err != nil {
		t.Fatal(err)
	}
	var named, listed []string
	for _, m := range regexp.MustCompile(`(?m)^\tCode\w+ +Code = "([a-z-]+)"`).FindAllSubmatch(source, -1) {
		named = append(named, string(m[1]))
	}
	for _, c := range api.Codes {
		listed = append(listed, string(c.Code))
		if c.Meaning == "" || http.StatusText(c.Status) == "" {
			t.Errorf("code %+v", c)
		}
	}
	slices.Sort(named)
	slices.Sort(listed)
	if !slices.Equal(named, listed) {
		t.Errorf("constants %v\ntable     %v", named, listed)
	}
}

// dialer dials a unix socket, whatever it is asked for.
func dialer(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}
