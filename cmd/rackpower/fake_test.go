package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
)

// fake answers as central, or an agent's socket, would. Its verbs set the scene;
// asked holds what the command line sent.
type fake struct {
	info   api.Info
	t      *testing.T
	url    string
	screen io.ReadWriter // of the command line, a terminal; nil: none
	clock  printer.Clock // of the command line, UTC unless the test says otherwise

	mu    sync.Mutex
	nodes []api.Node
	ops   map[string]*api.Op
	rev   int64
	// becomes is what an operation turns into when it is looked at the nth time
	// (from 1); nil leaves it as it is.
	becomes func(op *api.Op, look int)
	looks   int
	seen    func(look int) // called before nodes are shown the nth time
	selects []string       // for which they were asked
	drop    int            // requests to /v1/ops to leave unanswered
	full    int            // requests to /v1/ops to refuse because there are too many
	problem *api.Problem
	export  []api.NodeSpec

	asked   []api.AskOps
	added   []api.AddNodes
	removed []api.RemoveNodes
	status  []api.SetStatus
	cancels []string
	reads   []api.ReadNodes
	queries []api.QueryOps

	agents    []api.Agent
	attention []api.Attention
	happens   chan struct{} // each makes a stream of events have one
	racks     []api.Rack
	brakes    []api.RackBrake
	site      api.Site
	confirms  []api.ConfirmSite
	domains   []api.Domain
	schedules []api.Schedule
	runs      []api.ScheduledRun
	explained api.Explanation
	planned   api.Plan
	policy    api.Policy
	trail     []api.AuditEntry
	notes     []string       // of changes
	check     api.AuditCheck // of the audit log
	question  string         // to the audit log, the last one
	away      int            // polls of the audit log to answer with "stopping"
	polled    func(all bool) // called before such a poll is answered: who polls has seen all

	forgets  []api.ForgetAgent
	holds    []api.SetHold
	retries  []api.RetryNodes
	protects []api.ProtectNodes
	pauses   []api.SetPause
	rackSets []api.SetRack
	plans    []api.MakePlan
	applied  []struct{}
	decided  []api.DecidePlan
	paths    []string // to which something was sent
	policies []api.SetPolicy
	releases []api.ReleaseBrake
	page     int          // how many things of a list are answered at once; 0: all
	turned   atomic.Int64 // pages that had a next one
	limits   []api.SetDomain
	puts     []api.PutSchedule
	unputs   []api.RemoveSchedule
}

func newFake(t *testing.T, nodes ...api.Node) *fake {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // no profile of who runs the tests
	f := &fake{t: t, nodes: nodes, ops: map[string]*api.Op{}, clock: printer.Clock{Now: time.Now, Zone: time.UTC}, happens: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/nodes", f.getNodes)
	mux.HandleFunc("GET /v1/nodes/alike", func(w http.ResponseWriter, r *http.Request) {
		f.selectNodes(w, r, func(found []api.Node) any { return foldedNodes(found) })
	})
	f.info = api.Info{ID: "x", Version: "v1"}
	mux.HandleFunc("GET /v1/info", func(w http.ResponseWriter, _ *http.Request) { reply(w, f.info) })
	mux.HandleFunc("POST /v1/ops", f.ask)
	mux.HandleFunc("POST /v1/ops/query", f.query)
	mux.HandleFunc("POST /v1/ops/{id}/cancel", f.cancel)
	mux.HandleFunc("GET /v1/nodes/export", func(w http.ResponseWriter, _ *http.Request) { reply(w, f.export) })
	taking(f, mux, "POST /v1/nodes", &f.added, func(in api.AddNodes) any { return api.AddedNodes{Added: len(in.Nodes)} })
	taking(f, mux, "POST /v1/nodes/remove", &f.removed, func(in api.RemoveNodes) any { return api.Changed{Changed: len(in.Names)} })
	taking(f, mux, "POST /v1/nodes/status", &f.status, func(in api.SetStatus) any { return api.Changed{Changed: len(in.Names)} })
	taking(f, mux, "POST /v1/reads", &f.reads, func(api.ReadNodes) any { return f.nodes })
	mux.HandleFunc("GET /v1/agents", func(w http.ResponseWriter, _ *http.Request) {
		if f.agents != nil {
			reply(w, f.agents)
			return
		}
		seen := time.Now().Add(-3 * time.Second)
		reply(w, []api.Agent{{Name: "r1", State: "alive", SeenAt: &seen, Nodes: 40, Version: "v1"}, {Name: "r2", State: "away", Taken: 2}})
	})
	taking(f, mux, "POST /v1/agents/{name}/forget", &f.forgets, func(api.ForgetAgent) any {
		return api.ForgottenAgent{Name: "r1", Ended: 2, Nodes: []string{"r1n01", "r1n02", "r1n03"}}
	})
	mux.HandleFunc("GET /v1/members", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, []api.Member{{
			Name: "r1", Addr: "127.0.0.1", Port: 7946, Status: "alive",
			Tags: map[string]string{"role": "agent", "rack": "r1"},
		}})
	})
	mux.HandleFunc("GET /v1/peers", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, []api.PeerNode{
			{Node: "r2n01", State: power.Off, Reach: power.ReachOK, AgeMS: 90_000, Owner: "r2", OwnerStatus: "failed"},
			{Node: "r1n01", State: power.On, Reach: power.ReachOK, AgeMS: 2_000, Owner: "r1", OwnerStatus: "alive"},
		})
	})
	f.monitorPaths(mux)
	f.url = serveUnix(t, f.inPages(mux))
	return f
}

// inPages answers lists with f.page things at once, 0 for all, and a link to the next ones.
func (f *fake) inPages(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.page == 0 || r.Method != http.MethodGet || !r.URL.Query().Has("limit") {
			h.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		var all []json.RawMessage
		if json.Unmarshal(rec.Body.Bytes(), &all) != nil {
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
			return
		}
		q := r.URL.Query()
		from, _ := strconv.Atoi(q.Get("page"))
		to := min(from+f.page, len(all))
		if to < len(all) {
			q.Set("page", strconv.Itoa(to))
			w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
			f.turned.Add(1)
		}
		reply(w, all[from:to])
	})
}

// serveUnix serves on a unix socket and returns its address.
func serveUnix(t *testing.T, h http.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(srv.Close)
	return "unix://" + path
}

// monitorPaths are the paths of holds, racks, brakes, domains, schedules and events.
func (f *fake) monitorPaths(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/watch", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-f.happens:
			_, _ = w.Write([]byte("event: removed\nid: 1\ndata: {\"name\":\"x\"}\n\n"))
		case <-r.Context().Done():
		}
	})
	seeing(f, mux, "GET /v1/attention", func(*http.Request) any { return f.attention })
	seeing(f, mux, "GET /v1/racks", func(*http.Request) any { return f.racks })
	seeing(f, mux, "GET /v1/site", func(*http.Request) any { return f.site })
	taking(f, mux, "POST /v1/site/confirm", &f.confirms, func(api.ConfirmSite) any { f.site.Waits = nil; return f.site })
	seeing(f, mux, "GET /v1/brakes", func(*http.Request) any { return f.brakes })
	seeing(f, mux, "GET /v1/domains", func(*http.Request) any { return f.domains })
	seeing(f, mux, "GET /v1/schedules", func(*http.Request) any { return f.schedules })
	seeing(f, mux, "GET /v1/schedules/next", func(r *http.Request) any {
		name := r.URL.Query().Get("name")
		return slices.DeleteFunc(slices.Clone(f.runs), func(run api.ScheduledRun) bool { return name != "" && run.Schedule != name })
	})
	seeing(f, mux, "GET /v1/nodes/{name}/explain", func(r *http.Request) any {
		e := f.explained
		e.Node = r.PathValue("name")
		return e
	})
	mux.HandleFunc("GET /v1/audit", f.audit)
	seeing(f, mux, "GET /v1/audit/verify", func(*http.Request) any { return f.check })
	changed := func(names []string) any { return api.Changed{Changed: len(names), Notes: f.notes} }
	taking(f, mux, "POST /v1/nodes/hold", &f.holds, func(in api.SetHold) any { return changed(in.Names) })
	taking(f, mux, "POST /v1/nodes/protect", &f.protects, func(in api.ProtectNodes) any { return changed(in.Names) })
	taking(f, mux, "POST /v1/nodes/retry", &f.retries, func(in api.RetryNodes) any { return changed(in.Names) })
	taking(f, mux, "POST /v1/racks/{name}", &f.rackSets, func(in api.SetRack) any {
		rack := f.racks[0]
		if in.BrakePercent != nil {
			rack.Settings.BrakePercent = *in.BrakePercent
		}
		return rack
	})
	taking(f, mux, "POST /v1/plans", &f.plans, func(in api.MakePlan) any { f.planned.ID = in.ID; return f.planned })
	seeing(f, mux, "GET /v1/plans/{id}", func(*http.Request) any { return f.planned })
	taking(f, mux, "POST /v1/plans/{id}/apply", &f.applied, func(struct{}) any { return f.planned })
	seeing(f, mux, "GET /v1/approvals", func(*http.Request) any { return []api.Plan{f.planned} })
	taking(f, mux, "POST /v1/approvals/{id}", &f.decided, func(api.DecidePlan) any { return f.planned })
	seeing(f, mux, "GET /v1/policy", func(*http.Request) any { return f.policy })
	taking(f, mux, "POST /v1/policy", &f.policies, func(api.SetPolicy) any { return f.policy })
	taking(f, mux, "POST /v1/pause", &f.pauses, func(api.SetPause) any { return f.racks })
	taking(f, mux, "POST /v1/racks/{name}/pause", &f.pauses, func(api.SetPause) any { return f.racks[0] })
	taking(f, mux, "POST /v1/brakes/release", &f.releases, func(api.ReleaseBrake) any { return f.brakes })
	taking(f, mux, "POST /v1/domains", &f.limits, func(in api.SetDomain) any {
		return api.Domain{DomainState: api.DomainState{DomainLimit: in.DomainLimit}}
	})
	taking(f, mux, "POST /v1/schedules", &f.puts, func(in api.PutSchedule) any {
		in.NextAt = time.Now().Add(90 * time.Minute)
		return in.Schedule
	})
	taking(f, mux, "POST /v1/schedules/remove", &f.unputs, func(api.RemoveSchedule) any { return api.Changed{Changed: 1} })
}

// seeing answers a path with what the fake has there.
func seeing(f *fake, mux *http.ServeMux, pattern string, what func(*http.Request) any) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		reply(w, what(r))
	})
}

// audit answers with the newest entries, or, as a long poll, with those behind one.
func (f *fake) audit(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !q.Has("after") {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.question = r.URL.RawQuery
		if f.trail != nil {
			limit, _ := strconv.Atoi(q.Get("limit"))
			reply(w, f.trail[max(len(f.trail)-limit, 0):])
			return
		}
		at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		reply(w, []api.AuditEntry{{ID: 7, At: at, Who: "bob", What: "asked", Node: q.Get("select"), Why: "limit " + q.Get("limit")}})
		return
	}
	after, _ := strconv.ParseInt(q.Get("after"), 10, 64)
	f.mu.Lock()
	all := f.away == 0 && after == int64(len(f.trail))
	f.mu.Unlock()
	if f.polled != nil {
		f.polled(all)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away > 0 {
		f.away--
		api.Problemf(api.CodeUnavailable, "central is stopping").Write(w)
		return
	}
	reply(w, slices.DeleteFunc(slices.Clone(f.trail), func(e api.AuditEntry) bool { return e.ID <= after }))
}

func reply(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

// taking notes what was sent to a path and answers it, or with f.problem.
func taking[T any](f *fake, mux *http.ServeMux, pattern string, into *[]T, answer func(T) any) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		var in T
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			api.Problemf(api.CodeBadRequest, "%v", err).Write(w)
			return
		}
		*into = append(*into, in)
		f.paths = append(f.paths, r.URL.Path)
		if f.problem != nil {
			f.problem.Write(w)
			return
		}
		reply(w, answer(in))
	})
}

func (f *fake) getNodes(w http.ResponseWriter, r *http.Request) {
	f.selectNodes(w, r, func(found []api.Node) any { return found })
}

// selectNodes answers with what is made of the nodes that are selected.
func (f *fake) selectNodes(w http.ResponseWriter, r *http.Request, answer func([]api.Node) any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	expr := r.URL.Query().Get("select")
	f.selects = append(f.selects, expr)
	if f.seen != nil {
		f.seen(len(f.selects))
	}
	var known []noderange.Node
	for _, n := range f.nodes {
		known = append(known, noderange.Node{
			Name: n.Name, Rack: n.Rack, Status: string(n.Status), State: string(n.State),
			Labels: noderange.Labels("").With(n.Labels),
		})
	}
	names := []string{}
	if len(known) > 0 {
		parsed, err := noderange.Parse(expr)
		if err == nil {
			names, err = parsed.Select(known)
		}
		if err != nil {
			api.Problemf(api.CodeNotFound, "%v", err).Write(w)
			return
		}
	}
	found := []api.Node{}
	for _, n := range f.nodes {
		if slices.Contains(names, n.Name) {
			found = append(found, n)
		}
	}
	reply(w, answer(found))
}

// ask takes requests; one that is known by its id is not taken twice.
func (f *fake) ask(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full > 0 {
		f.full--
		api.TooMany(0, "too many requests of alice").Write(w)
		return
	}
	var in api.AskOps
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		api.Problemf(api.CodeBadRequest, "%v", err).Write(w)
		return
	}
	f.asked = append(f.asked, in)
	if f.problem != nil {
		f.problem.Write(w)
		return
	}
	out := []api.Op{}
	for _, req := range in.Ops {
		op := f.ops[req.ID]
		if op == nil {
			f.rev++
			op = &api.Op{
				ID: req.ID, Node: req.Node, Action: req.Action, AskedBy: req.AskedBy, AskedAt: time.Now(), Verdict: power.VerdictStart,
				Phase: api.PhaseTaken, Rev: f.rev, Options: req.Options,
			}
			if f.becomes != nil {
				f.becomes(op, 0)
			}
			if !in.DryRun {
				f.ops[req.ID] = op
			}
		}
		out = append(out, *op)
	}
	if f.drop > 0 {
		f.drop--
		panic(http.ErrAbortHandler) // taken, but the answer is lost
	}
	reply(w, out)
}

func (f *fake) query(w http.ResponseWriter, r *http.Request) {
	var in api.QueryOps
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		api.Problemf(api.CodeBadRequest, "%v", err).Write(w)
		return
	}
	f.mu.Lock()
	f.queries = append(f.queries, in)
	f.looks++
	found := api.FoundOps{Ops: []api.Op{}}
	for _, op := range f.ops {
		if len(in.IDs) > 0 && !slices.Contains(in.IDs, op.ID) || len(in.Nodes) > 0 && !slices.Contains(in.Nodes, op.Node) || in.Outstanding &&
			op.Outcome != "" {
			continue
		}
		if before := *op; f.becomes != nil {
			if f.becomes(op, f.looks); *op != before {
				f.rev++
				op.Rev = f.rev
			}
		}
		if op.Rev > in.AfterRev {
			found.Ops = append(found.Ops, *op)
		}
	}
	found.Rev = f.rev
	f.mu.Unlock()
	slices.SortFunc(found.Ops, func(a, b api.Op) int { return strings.Compare(a.Node, b.Node) })
	if len(found.Ops) == 0 {
		select { // a long poll
		case <-time.After(min(in.Wait, 20*time.Millisecond)):
		case <-r.Context().Done():
		}
	}
	reply(w, found)
}

func (f *fake) cancel(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op := f.ops[r.PathValue("id")]
	if op == nil {
		api.Problemf(api.CodeNotFound, "no operation %s", r.PathValue("id")).Write(w)
		return
	}
	f.cancels = append(f.cancels, op.ID)
	reply(w, *op)
}

// requests lists all that was asked for, each attempt once.
func (f *fake) requests() []api.OpRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []api.OpRequest
	for _, in := range f.asked {
		all = append(all, in.Ops...)
	}
	return all
}

// know gives the fake an operation from before.
func (f *fake) know(op api.Op) {
	f.rev++
	op.Rev = f.rev
	f.ops[op.ID] = &op
}

// ran is what one command line did.
type ran struct {
	exit      int
	out, errs string
}

// run runs a command line against the fake; stdin is what a person types.
func (f *fake) run(args string, stdin ...string) ran {
	f.t.Helper()
	return f.runContext(f.t.Context(), append(strings.Fields(args), "--config", ""), stdin...)
}

func (f *fake) runContext(ctx context.Context, args []string, stdin ...string) ran {
	f.t.Helper()
	f.t.Setenv("RACKPOWER_CENTRAL", f.url)
	f.t.Setenv("RACKPOWER_SOCKET", f.url)
	f.t.Setenv("RACKPOWER_ASKED_BY", "tester")
	var out, errs bytes.Buffer
	app := newApp()
	app.Metadata = map[string]any{clockKey: f.clock}
	app.Writer, app.ErrWriter, app.Reader = &out, &errs, strings.NewReader(strings.Join(stdin, "\n"))
	if f.screen != nil {
		app.Writer, app.Reader = f.screen, f.screen
	}
	exit := settings.RunContext(ctx, app, append([]string{"rackpower"}, args...))
	return ran{exit, out.String(), errs.String()}
}

// hall makes nodes r1n01 and so on, in a state.
func hall(n int, state power.State) []api.Node {
	seen := time.Now().Add(-5 * time.Second)
	var nodes []api.Node
	names, _ := noderange.Expand("r1n[01-99]")
	for _, name := range names[:n] {
		nodes = append(nodes, api.Node{
			Name: name, Rack: "r1", State: state, Reach: power.ReachOK, ObservedAt: &seen, TriedAt: &seen,
			Status: power.StatusReady, Desired: power.WantOff, Agent: "r1", AgentState: api.AgentPresence{State: api.AgentAlive},
			BMC: "ipmi://admin@10.0.1.1",
		})
	}
	return nodes
}

// ends has operations end with an outcome at a look.
func ends(at int, outcome power.Outcome, more ...func(*api.Op)) func(*api.Op, int) {
	return func(op *api.Op, look int) {
		if look < at || op.Outcome != "" {
			return
		}
		now := time.Now()
		op.Outcome, op.Phase, op.EndedAt, op.State = outcome, api.PhaseEnded, &now, op.Action.Final()
		for _, fn := range more {
			fn(op)
		}
	}
}
