package agent

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/power"
	"rackpower/power/noderange"
)

// serveControl answers the rack's own socket until ctx ends. It speaks the same
// paths as central, of this rack's nodes only.
func (a *Agent) serveControl(ctx context.Context, l net.Listener) {
	srv := httpserver.New(a.Handler(), maxControlConns)
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	})
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		a.logger.Error("control socket failed", "err", err)
	}
	if !stop() {
		<-down
	}
}

// Handler serves the control socket's requests.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "GET /v1/nodes", a.ctlNodes)
	handle(mux, "POST /v1/ops", a.ctlAsk)
	handle(mux, "POST /v1/ops/query", a.ctlQuery)
	handle(mux, "POST /v1/ops/{id}/cancel", a.ctlCancel)
	handle(mux, "POST /v1/reads", a.ctlRead)
	handle(mux, "GET /v1/members", a.ctlMembers)
	handle(mux, "GET /v1/peers", a.ctlPeers)
	handle(mux, "POST /v1/gossip/ping", a.ctlPing)
	handle(mux, "GET /v1/gossip/who", a.ctlWho)
	handle(mux, "GET /v1/gossip/keys", a.ctlKeys)
	handle(mux, "POST /v1/gossip/keys", a.ctlChangeKeys)
	handle(mux, "GET /v1/info", a.ctlInfo)
	handle(mux, "POST /v1/nodes/hold", a.ctlHold)
	handle(mux, "POST /v1/nodes/retry", a.ctlRetry)
	handle(mux, "GET /v1/nodes/{name}/explain", a.ctlExplain)
	handle(mux, "GET /v1/trust", a.ctlTrust)
	handle(mux, "POST /v1/trust", a.ctlConfirmTrust)
	handle(mux, "GET /v1/brakes", a.ctlBrakes)
	handle(mux, "POST /v1/brakes/release", a.ctlReleaseBrake)
	handle(mux, "GET /v1/racks", a.ctlRacks)
	handle(mux, "GET /v1/alarms", a.ctlAlarms)
	handle(mux, "POST /v1/alarms/ack", a.ctlAckAlarm)
	handle(mux, "GET /v1/domains", a.ctlDomains)
	return httpserver.SignsOfLife(mux)
}

// Bounds of the control socket: connections at once, bytes of a body.
const (
	maxControlConns = 256
	maxControlBody  = 16 << 20
)

func handle[T any](mux *http.ServeMux, pattern string, fn func(*http.Request) (T, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		httpserver.ForgetDeadline(w)
		r.Body = http.MaxBytesReader(w, r.Body, maxControlBody)
		out, err := fn(r)
		var p *api.Problem
		if err != nil && !errors.As(err, &p) {
			p = api.Problemf(api.CodeUnavailable, "%v", err)
		}
		_ = httpserver.Answer(w, out, p)
	})
}

func body[T any](r *http.Request) (T, error) { return httpserver.Decode[T](r, true) }

func (a *Agent) ctlNodes(r *http.Request) ([]api.Node, error) {
	nodes := a.nodes(time.Now())
	expr := r.URL.Query().Get("select")
	if expr == "" || expr == "all" {
		return nodes, nil
	}
	var known []noderange.Node
	for _, n := range nodes {
		known = append(known, noderange.Node{Name: n.Name, Rack: n.Rack, Status: string(n.Status), State: string(n.State)})
	}
	parsed, err := noderange.Parse(expr)
	if err != nil {
		return nil, selectProblem(err)
	}
	names, err := parsed.Select(known) // none is no error, as at central
	if err != nil {
		return nil, selectProblem(err)
	}
	return slices.DeleteFunc(nodes, func(n api.Node) bool { return !slices.Contains(names, n.Name) }), nil
}

func selectProblem(err error) error {
	var syntax *noderange.SyntaxError
	if errors.As(err, &syntax) {
		return api.Problemf(api.CodeBadRequest, "%v", err)
	}
	return api.Problemf(api.CodeNotFound, "%v", err)
}

// nodes is the rack's power as the agent knows it.
func (a *Agent) nodes(now time.Time) []api.Node {
	list := []api.Node{}
	monitored, running := a.monitor.timetable() != nil, a.outbox.running()
	for _, n := range a.assigned.all() {
		reading := a.readings.get(n.Name)
		desired, made := n.desired(now), a.readings.made(n.Name)
		out := running[n.Name]
		row := api.Node{
			Name: n.Name, Rack: a.cfg.Name, State: reading.State, Reach: reading.Reach, Stale: reading.Stale(now, power.DefaultStale),
			Status: n.Status, Desired: desired.Want, DesiredFrom: n.from(now), Hold: api.ShowHold(n.hold, now), Agent: a.cfg.Name, BMC: n.BMC,
			Domain: n.Domain,
		}
		if !reading.ObservedAt.IsZero() {
			row.ObservedAt = &reading.ObservedAt
		}
		if !reading.TriedAt.IsZero() {
			row.TriedAt = &reading.TriedAt
		}
		if len(out) > 0 {
			op := out[0]
			row.Op = &api.OpBrief{
				ID: op.Op.ID, Action: op.Op.Action, Verdict: op.Verdict, AskedBy: op.Op.AskedBy, AskedAt: op.Op.AskedAt,
				Phase: op.Phase,
			}
			row.Waiting = len(out) - 1
		}
		row.Waits, row.WaitsMessage, row.WaitsUntil = made.Waits, made.WaitsMessage, made.WaitsUntil
		row.Fault, row.FaultSince = made.Fault, made.FaultSince
		row.Compare(desired, made.Matched, monitored)
		list = append(list, row)
	}
	return list
}

func (a *Agent) ctlAsk(r *http.Request) ([]api.Op, error) {
	in, err := body[api.AskOps](r)
	if err != nil {
		return nil, err
	}
	for _, req := range in.Ops { // all are told before any is accepted
		if err := a.usedOtherwise(opFrom(req, time.Now()).WithDefaults(time.Now())); err != nil {
			return nil, err
		}
	}
	list := make([]api.Op, len(in.Ops))
	for i, req := range in.Ops {
		report, err := a.ask(req, in.DryRun)
		if err != nil {
			return nil, err
		}
		list[i] = opOf(report, a.cfg.Name)
	}
	return list, nil
}

func opFrom(req api.OpRequest, now time.Time) power.Op {
	return req.Op(cmp.Or(req.AskedBy, "local"), power.FromLocal, now)
}

func (a *Agent) ask(req api.OpRequest, dry bool) (api.OpReport, error) {
	op := opFrom(req, time.Now())
	if dry {
		return a.weigh(op, req.Hold), nil
	}
	submit := a.Submit
	if req.Hold {
		submit = func(op power.Op) (api.OpReport, error) { return a.askHeld(req, op) }
	}
	r, err := submit(op)
	if err == nil && r.Verdict == power.VerdictRefuse {
		a.outbox.put(r) // for central's audit trail
	} else if why := a.permit.why(time.Now()); err == nil && why != "" {
		r.Message += "; carried out because it is asked for here, although this agent sends nothing of its own accord: " + why
	}
	return r, err
}

// weigh says what would become of a request, held: together with a hold.
func (a *Agent) weigh(op power.Op, held bool) api.OpReport {
	now := time.Now()
	op = op.WithDefaults(now)
	op.Seq = a.clock.Now(now).Next(now)
	r, refused := a.refuses(op)
	if refused && !(held && r.Reason == power.ReasonDesired) {
		r.Phase, r.End = phaseDryRun, nil
		return r
	}
	l := a.lane(op.Node)
	l.mu.Lock()
	defer l.mu.Unlock()
	view := l.view()
	d := power.Decide(view, op)
	return api.OpReport{Op: op, Verdict: d.Verdict, Reason: d.Reason, Message: power.Describe(d, view, op, now), Phase: phaseDryRun}
}

// phaseDryRun is the phase of a request that was only weighed.
const phaseDryRun = "dry-run"

// opOf is a report as the command line sees operations.
func opOf(r api.OpReport, rack string) api.Op {
	op := api.NewOp(r.Op, rack)
	op.Joined, op.Verdict, op.Why, op.Message, op.Phase, op.Attempts = r.Joined, r.Verdict, r.Reason, r.Message, r.Phase, r.Attempts
	if !r.StartedAt.IsZero() {
		op.StartedAt = &r.StartedAt
	}
	if e := r.End; e != nil {
		op.EndedAt, op.Outcome, op.Detail, op.Already, op.SupersededBy = &e.At, e.Outcome, e.Detail, e.Already, e.SupersededBy
		op.Attempts, op.State, op.Why = e.Attempts, e.State, e.Reason
	}
	return op
}

func (a *Agent) ctlQuery(r *http.Request) (api.FoundOps, error) {
	in, err := body[api.QueryOps](r)
	if err != nil {
		return api.FoundOps{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(in.Wait, time.Minute))
	defer cancel()
	for {
		reports, rev, news := a.outbox.after(in.AfterRev)
		found := api.FoundOps{Ops: []api.Op{}, Rev: rev}
		for _, report := range reports {
			if wanted(in, report) {
				found.Ops = append(found.Ops, opOf(report, a.cfg.Name))
			}
		}
		if len(found.Ops) > 0 || ctx.Err() != nil {
			if in.Limit > 0 && len(found.Ops) > in.Limit {
				found.Ops = found.Ops[len(found.Ops)-in.Limit:]
			}
			return found, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
		}
	}
}

func wanted(in api.QueryOps, r api.OpReport) bool {
	return (len(in.IDs) == 0 || slices.Contains(in.IDs, r.Op.ID)) &&
		(len(in.Nodes) == 0 || slices.Contains(in.Nodes, r.Op.Node)) &&
		(!in.Outstanding || r.End == nil) && !r.Op.AskedAt.Before(in.Since)
}

func (a *Agent) ctlCancel(r *http.Request) (api.Op, error) {
	in, err := body[api.CancelOp](r)
	if err != nil {
		return api.Op{}, err
	}
	by := in.AskedBy
	if by == "" {
		by = "local"
	}
	report, err := a.Cancel(api.Cancel{ID: r.PathValue("id"), By: by, Reason: in.Reason})
	if err != nil {
		return api.Op{}, err
	}
	op := opOf(report, a.cfg.Name)
	op.CancelBy = by
	return op, nil
}

// defaultReadWait is how long an asker waits for readings who does not say.
const defaultReadWait = 15 * time.Second

// ctlRead reads nodes now, whatever the monitor's schedule.
func (a *Agent) ctlRead(r *http.Request) ([]api.Node, error) {
	in, err := body[api.ReadNodes](r)
	if err != nil {
		return nil, err
	}
	for _, name := range in.Names {
		if _, ok := a.assigned.get(name); !ok {
			return nil, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", name, a.cfg.Name)
		}
	}
	if in.Wait <= 0 {
		in.Wait = defaultReadWait
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(in.Wait, time.Minute))
	defer cancel()
	if !a.begin() {
		return nil, errStopping
	}
	done := make(chan struct{})
	go func() { // an exchange under way goes on after the answer
		defer a.done()
		defer close(done)
		a.poller.readNow(ctx, in.Names)
		a.monitor.read("")
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return slices.DeleteFunc(a.nodes(time.Now()), func(n api.Node) bool { return !slices.Contains(in.Names, n.Name) }), nil
}

func (a *Agent) ctlMembers(*http.Request) ([]api.Member, error) {
	return api.AnswerMembers(a.clusterOf())
}

func (a *Agent) ctlPeers(*http.Request) ([]api.PeerNode, error) {
	peers, err := api.AnswerPeers(a.clusterOf(), a.owns)
	slices.SortFunc(peers, func(a, b api.PeerNode) int { return compareNames(a.Node, b.Node) })
	return peers, err
}

// owns is this agent's name for its own nodes, "" for others: whose those are is known by
// gossip only.
func (a *Agent) owns(node string) string {
	if _, ok := a.assigned.get(node); ok {
		return a.cfg.Name
	}
	return ""
}

func (a *Agent) ctlPing(r *http.Request) (api.Pong, error) {
	in, err := body[api.Ping](r)
	if err != nil {
		return api.Pong{}, err
	}
	return api.AnswerPing(r.Context(), a.clusterOf(), in)
}

func (a *Agent) ctlWho(r *http.Request) (api.Who, error) {
	node, bmc := r.URL.Query().Get("node"), ""
	if ep, err := a.assigned.endpoint(node); err == nil {
		bmc = net.JoinHostPort(ep.Host, strconv.Itoa(ep.Port))
	}
	return api.AnswerWho(r.Context(), a.clusterOf(), node, bmc, a.owns(node))
}

func (a *Agent) ctlKeys(r *http.Request) (api.GossipKeys, error) {
	return api.AnswerKeys(r.Context(), a.clusterOf())
}

func (a *Agent) ctlChangeKeys(r *http.Request) (api.GossipKeys, error) {
	in, err := body[api.ChangeKeys](r)
	if err != nil {
		return api.GossipKeys{}, err
	}
	return api.AnswerChangeKeys(r.Context(), a.clusterOf(), in)
}

func (a *Agent) ctlInfo(*http.Request) (api.Info, error) {
	return api.Info{ID: a.log.ID(), Version: a.cfg.Version, Nodes: len(a.assigned.all()), Agents: 1, Gossip: a.gossipAddr()}, nil
}
