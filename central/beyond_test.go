package central

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// naming are, for each route of people that takes names of nodes or ids of what is theirs,
// queries and bodies with NAME and ID in their place.
var naming = map[string][]string{
	"GET /v1/nodes":                {"?select=NAME", "?select=a1,NAME", "?select=@rNAME", "?select=!NAME", "?select=all"},
	"GET /v1/nodes/alike":          {"?select=NAME", "?select=a1,NAME", "?select=@rNAME", "?select=!NAME", "?select=all"},
	"GET /v1/racks":                {"?select=NAME", "?select=@rNAME"},
	"POST /v1/nodes/remove":        {`{"names":["NAME"]}`, `{"names":["a1","NAME"]}`},
	"POST /v1/nodes/status":        {`{"names":["NAME"],"status":"READY"}`},
	"POST /v1/nodes/hold":          {`{"names":["NAME"],"want":"off","reason":"x"}`, `{"names":["NAME"],"want":""}`},
	"POST /v1/nodes/protect":       {`{"names":["NAME"],"reason":"x"}`},
	"POST /v1/nodes/retry":         {`{"names":["NAME"]}`},
	"GET /v1/nodes/{name}/explain": {""},
	"POST /v1/ops": {
		`{"ops":[{"id":"NEW","node":"NAME","action":"on"}]}`,
		`{"dry_run":true,"ops":[{"id":"NEW","node":"NAME","action":"on"}]}`, `{"ops":[{"id":"ID","node":"a1","action":"diag"}]}`,
	},
	"POST /v1/ops/query":        {`{"nodes":["NAME"]}`, `{"ids":["ID"]}`},
	"POST /v1/ops/{id}/cancel":  {`{}`},
	"POST /v1/reads":            {`{"names":["NAME"]}`},
	"POST /v1/plans":            {`{"id":"NEW","status":{"names":["NAME"],"status":"READY"}}`},
	"GET /v1/plans/{id}":        {""},
	"POST /v1/plans/{id}/apply": {`{}`},
	"POST /v1/approvals/{id}":   {`{}`, `{"deny":true}`},
	"POST /v1/power":            {`{"names":["NAME"]}`},
	"POST /v1/tests":            {`{"names":["NAME"]}`},
	"GET /v1/audit":             {"?select=NAME", "?select=NAME&after=1&wait=1ms"},
	"GET /v1/gossip/who":        {"?node=NAME"},
	"GET /v1/watch":             {"?nodes=NAME", "?nodes=a1,NAME", "?nodes=@rNAME", "?nodes=!NAME&kinds=node"},
}

// nameless are the routes that take no name of a node, or are for the whole site, where who
// has a scope is refused before anything is looked at. A node that is added with a name
// which is taken cannot be answered as one with a free name.
var nameless = []string{
	"POST /v1/nodes", "GET /v1/nodes/export", "GET /v1/brakes", "GET /v1/domains", "GET /v1/schedules",
	"GET /v1/schedules/next", "GET /v1/agents", "GET /v1/members", "GET /v1/peers", "GET /v1/info", "GET /v1/whoami",
	"POST /v1/users/{name}/certificate", "GET /v1/approvals", "GET /v1/attention",
}

// TestWhatLiesBeyondTheScopeIsNotThere asks each route for a node of others, and for one that
// there is not: the answers are the same. Nor does any listing name what lies beyond.
func TestWhatLiesBeyondTheScopeIsNotThere(t *testing.T) {
	r, _ := onTLS(t)
	var nodes []api.NodeSpec
	for i, name := range []string{"a1", "hidden7"} {
		nodes = append(nodes, api.NodeSpec{Name: name, Rack: []string{"ra", "rhidden7"}[i], BMC: fmt.Sprintf("ipmi://admin@192.0.2.%d", i+1)})
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: nodes}); err != nil {
		t.Fatal(err)
	}
	op := newID()
	if _, err := r.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{
		ID: op, Node: "hidden7", Action: power.ActOn,
		Reason: "secret",
	}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutSchedule(t.Context(),
		api.PutSchedule{Schedule: api.Schedule{Name: "night", Cron: "0 2 * * *", Nodes: "all", Want: power.WantOff, Reason: "x"}}); err != nil {
		t.Fatal(err)
	}
	plan := newID()
	change := api.Change{Status: &api.SetStatus{Names: []string{"hidden7"}, Status: "READY"}}
	if _, err := r.MakePlan(t.Context(), api.MakePlan{ID: plan, Change: change}); err != nil {
		t.Fatal(err)
	}
	out, err := r.AddUser(t.Context(), api.AddUser{Name: "anna", Role: "admin", Nodes: "@ra"})
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // of this test
	defer client.CloseIdleConnections()
	ask := func(route, form, name, id string) string {
		t.Helper()
		method, path, _ := strings.Cut(route, " ")
		fresh := newID()
		form = strings.NewReplacer("NAME", name, "ID", id, "NEW", fresh).Replace(form)
		path = strings.NewReplacer("{name}", name, "{id}", id).Replace(path)
		body := ""
		if method == http.MethodGet {
			path += form
		} else {
			body = form
		}
		req, err := http.NewRequestWithContext(t.Context(), method, r.url()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+out.Token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			return resp.Status + " a stream, which does not end"
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Status + " " + strings.NewReplacer(name, "NAME", id, "ID", fresh, "NEW").Replace(string(text))
	}
	for _, route := range documentedRoutes(t) {
		least, forPeople := leastOf[route]
		switch forms := naming[route]; {
		case !forPeople || least.whole && !slices.Contains(nameless, route):
		case forms == nil:
			if !slices.Contains(nameless, route) {
				t.Errorf("%s takes names, or not: this test does not know", route)
			}
			if method, _, _ := strings.Cut(route, " "); method == http.MethodGet && route != "GET /v1/racks" && route != "GET /v1/agents" {
				if text := ask(route, "", "NONE", "NONE"); strings.Contains(text, "hidden7") || strings.Contains(text, "secret") {
					t.Errorf("%s tells of what lies beyond: %s", route, text)
				}
			}
		default:
			for _, form := range forms {
				id := op
				if strings.Contains(route, "/plans/") || strings.Contains(route, "/approvals/") {
					id = plan
				}
				there, nowhere := ask(route, form, "hidden7", id), ask(route, form, "absent7", newID())
				if route == "POST /v1/ops" && strings.Contains(form, `"ID"`) {
					if strings.Contains(there, "NAME") || strings.Contains(there, "secret") { // an id is taken, or it is not
						t.Errorf("%s %s: %s", route, form, there)
					}
					continue
				}
				if there != nowhere {
					t.Errorf("%s %s:\nthere   %s\nnowhere %s", route, form, there, nowhere)
				}
			}
		}
	}
	// The BMC of a node of others.
	if text := ask("POST /v1/nodes", `{"nodes":[{"name":"a2","rack":"ra","bmc":"ipmi://admin@192.0.2.2"}]}`, "hidden7",
		op); strings.Contains(text,
		"NAME") || !strings.Contains(text, "beyond @ra") {
		t.Errorf("%s", text)
	}
}

// TestNoAnswerTellsOfTheMachine: paths, and what SQLite says, are for the log.
func TestNoAnswerTellsOfTheMachine(t *testing.T) {
	var log bytes.Buffer
	c, err := New(Config{Data: t.TempDir(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	inner := errors.New("SELECT hash FROM tokens: /var/lib/x/central.db is odd")
	for _, err := range []error{
		inner, fmt.Errorf("cannot save: %w: %w", store.ErrDisk, inner), fmt.Errorf("%w: %w", store.ErrRemoved, inner),
		fmt.Errorf("%w: %w", store.ErrClosed, inner), fmt.Errorf("%w: %w", store.ErrCorrupt, inner),
		&os.PathError{Op: "open", Path: filepath.Join(t.TempDir(), "x"), Err: os.ErrPermission},
	} {
		if p := c.problem(err); strings.Contains(p.Detail, "/") || strings.Contains(p.Detail, "SELECT") {
			t.Errorf("%v: %s", err, p.Detail)
		}
	}
	if n := strings.Count(log.String(), "SELECT hash"); n != 4 {
		t.Errorf("the log has %d of them:\n%s", n, &log)
	}
}
