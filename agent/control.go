package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/noderange"
)

// control answers at the rack's own socket.
type control struct {
	name, version, journal string // of the agent; journal is its id
	agent                  requests
	view                   *rackView
	link                   *link
	assigned               *assigned
	outbox                 *outbox
	monitor                *monitor.Monitor
	poller                 *poller
	permit                 *permit
	alarms                 *alarms
	gossip                 *gossiper
	clock                  *power.Clock
	tellRack               func() // has central told
	logger                 *slog.Logger
	refusals               httpserver.Recently
	metrics                http.Handler // nil: none
}

// requests is what the socket asks of the agent as a whole.
type requests interface {
	Submit(op power.Op) (api.OpReport, error)
	Cancel(c api.Cancel) (api.OpReport, error)
	// usedOtherwise, isKnown and weigh say what would become of a request.
	usedOtherwise(op power.Op) error
	isKnown(op power.Op) (api.OpReport, bool)
	weigh(op power.Op, held bool) api.OpReport
	desiresChanged(nodes []string)
	ackAlarms(in api.AckAlarm) ([]api.Alarm, error)
	// begin counts a goroutine that the agent waits for until done.
	begin() bool
	done()
}

func newControl(a *Agent) *control {
	return &control{
		name: a.cfg.Name, version: a.cfg.Version, journal: a.log.ID(), agent: a, view: a.view, link: a.link, assigned: a.assigned,
		outbox:  a.outbox,
		monitor: a.monitor, poller: a.poller, permit: &a.permit, alarms: a.alarms, gossip: &a.gossip, clock: &a.clock, tellRack: a.tellRack,
		logger: a.logger,
	}
}

// serve answers the rack's own socket until ctx ends. It speaks the same
// paths as central, of this rack's nodes only.
func (c *control) serve(ctx context.Context, l net.Listener) {
	srv := httpserver.New(c.handler(), maxControlConns)
	srv.ConnContext = httpserver.WithPeer
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
		c.logger.Error("control socket failed", "err", err)
	}
	if !stop() {
		<-down
	}
}

// handler serves the control socket's requests, to those who may ask.
func (c *control) handler() http.Handler {
	routes := c.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := httpserver.SocketUser(r.Context())
		if err == nil && !p.Own && !httpserver.IsAdmin(r.Context()) {
			err = api.Problemf(api.CodeForbidden, "not permitted: %s is not in the group %s, whose members may ask an agent at its rack", p.Name,
				httpserver.AdminGroup)
		}
		if err != nil {
			if c.refusals.Due(p.Name+" "+err.Error(), time.Now(), time.Minute) {
				c.logger.Warn("request refused", "who", p.Name, "method", r.Method, "path", r.URL.Path, "reason", err)
			}
			httpserver.ForgetDeadline(w)
			var problem *api.Problem
			errors.As(err, &problem)
			_ = httpserver.Answer(w, nil, problem)
			return
		}
		routes.ServeHTTP(w, r.WithContext(httpserver.WithPrincipal(r.Context(), p)))
	})
}

func (c *control) routes() http.Handler {
	mux := http.NewServeMux()
	paged(mux, "GET /v1/nodes", c.ctlNodes, func(one api.Node) string { return one.Name })
	handle(mux, "POST /v1/ops", c.ctlAsk)
	handle(mux, "POST /v1/ops/query", c.ctlQuery)
	handle(mux, "POST /v1/ops/{id}/cancel", c.ctlCancel)
	handle(mux, "POST /v1/reads", c.ctlRead)
	paged(mux, "GET /v1/members", c.ctlMembers, func(one api.Member) string { return one.Name })
	paged(mux, "GET /v1/peers", c.ctlPeers, func(one api.PeerNode) string { return one.Node })
	handle(mux, "POST /v1/gossip/ping", c.ctlPing)
	handle(mux, "GET /v1/gossip/who", c.ctlWho)
	handle(mux, "GET /v1/gossip/keys", c.ctlKeys)
	handle(mux, "POST /v1/gossip/keys", c.ctlChangeKeys)
	handle(mux, "GET /v1/info", c.ctlInfo)
	handle(mux, "POST /v1/nodes/hold", c.ctlHold)
	handle(mux, "POST /v1/nodes/retry", c.ctlRetry)
	handle(mux, "GET /v1/nodes/{name}/explain", c.ctlExplain)
	handle(mux, "GET /v1/trust", c.ctlTrust)
	handle(mux, "POST /v1/trust", c.ctlConfirmTrust)
	handle(mux, "GET /v1/brakes", c.ctlBrakes)
	handle(mux, "POST /v1/brakes/release", c.ctlReleaseBrake)
	handle(mux, "GET /v1/racks", c.ctlRacks)
	handle(mux, "GET /v1/alarms", c.ctlAlarms)
	handle(mux, "POST /v1/alarms/ack", c.ctlAckAlarm)
	handle(mux, "GET /v1/domains", c.ctlDomains)
	if c.metrics != nil {
		mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
			httpserver.ForgetDeadline(w)
			c.metrics.ServeHTTP(w, r)
		})
	}
	mux.HandleFunc(httpserver.Profiles, func(w http.ResponseWriter, r *http.Request) {
		httpserver.ForgetDeadline(w)
		httpserver.Profile(w, r)
	})
	return httpserver.SignsOfLife(mux)
}

// Bounds of the control socket: connections at once, bytes of a body.
const (
	maxControlConns = 256
	maxControlBody  = 16 << 20
)

func handle[T any](mux *http.ServeMux, pattern string, fn func(*http.Request) (T, error)) {
	handleBy(mux, pattern, func(_ http.ResponseWriter, r *http.Request) (T, error) { return fn(r) })
}

// paged is handle of a list that is read page by page, see httpserver.Page.
func paged[T any](mux *http.ServeMux, pattern string, fn func(*http.Request) ([]T, error), name func(T) string) {
	handleBy(mux, pattern, func(w http.ResponseWriter, r *http.Request) ([]T, error) {
		all, err := fn(r)
		if err != nil {
			return nil, err
		}
		return httpserver.Page(w, r, all, name)
	})
}

func handleBy[T any](mux *http.ServeMux, pattern string, fn func(http.ResponseWriter, *http.Request) (T, error)) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		httpserver.ForgetDeadline(w)
		r.Body = http.MaxBytesReader(w, r.Body, maxControlBody)
		out, err := fn(w, r)
		var p *api.Problem
		if err != nil && !errors.As(err, &p) {
			p = api.Problemf(api.CodeUnavailable, "%v", err)
		}
		_ = httpserver.Answer(w, out, p)
	})
}

// body reads a body, which names in the end who asks.
func body[T any](r *http.Request) (T, error) {
	in, err := httpserver.Decode[T](r, true)
	if err != nil {
		return in, err
	}
	p := httpserver.Principal(r)
	if err := httpserver.MaySpeak(p, in, "only root and the agent's own user may"); err != nil {
		return in, err
	}
	httpserver.NameAsker(p, &in)
	return in, nil
}

func (c *control) ctlNodes(r *http.Request) ([]api.Node, error) {
	names, err := c.selected(r.URL.Query().Get("select"))
	if err != nil {
		return nil, err
	}
	return c.nodesNamed(names), nil
}

// nodesNamed shows nodes as they are now.
func (c *control) nodesNamed(names []string) []api.Node {
	wanted := setOf(names)
	return slices.DeleteFunc(c.view.nodes(time.Now()), func(n api.Node) bool { return !wanted[n.Name] })
}

// selected are the names that an expression selects, "" being all; none is no error, as at central.
func (c *control) selected(expr string) ([]string, error) {
	if expr == "" || expr == "all" {
		return c.assigned.names(), nil
	}
	var known []noderange.Node
	for _, n := range c.assigned.all() {
		state := c.view.readings.get(n.Name).State
		known = append(known, noderange.Node{Name: n.Name, Rack: c.name, Status: string(n.Status), State: string(state)})
	}
	parsed, err := noderange.Parse(expr)
	if err != nil {
		return nil, selectProblem(err)
	}
	names, err := parsed.Select(known)
	if err != nil {
		return nil, selectProblem(err)
	}
	return names, nil
}

func selectProblem(err error) error {
	var syntax *noderange.SyntaxError
	if errors.As(err, &syntax) {
		return api.Problemf(api.CodeBadRequest, "%v", err)
	}
	var none *noderange.EmptyError
	if errors.As(err, &none) && strings.HasPrefix(none.Expr, "@label:") {
		return api.Problemf(api.CodeNotFound, "%v: an agent knows no labels, only central does", err)
	}
	return api.Problemf(api.CodeNotFound, "%v", err)
}

func (c *control) ctlAsk(r *http.Request) ([]api.Op, error) {
	in, err := body[api.AskOps](r)
	if err != nil {
		return nil, err
	}
	for _, req := range in.Ops { // all are told before any is accepted
		if err := c.agent.usedOtherwise(opFrom(req, time.Now()).WithDefaults(time.Now())); err != nil {
			return nil, err
		}
	}
	return c.askAll(in)
}

// askAll asks for operations: those of one node in their order.
func (c *control) askAll(in api.AskOps) ([]api.Op, error) {
	byNode := map[string][]int{}
	for i, req := range in.Ops {
		byNode[req.Node] = append(byNode[req.Node], i)
	}
	list := make([]api.Op, len(in.Ops))
	err := sideBySide(byNode, func(indices []int) error {
		for _, i := range indices {
			report, err := c.ask(in.Ops[i], in.DryRun)
			if err != nil {
				return err
			}
			list[i] = opOf(report, c.name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func opFrom(req api.OpRequest, now time.Time) power.Op {
	return req.Op(req.AskedBy, power.FromLocal, now)
}

func (c *control) ask(req api.OpRequest, dry bool) (api.OpReport, error) {
	op := opFrom(req, time.Now())
	if dry {
		return c.agent.weigh(op, req.Hold), nil
	}
	submit := c.agent.Submit
	if req.Hold {
		submit = func(op power.Op) (api.OpReport, error) { return c.askHeld(req, op) }
	}
	r, err := submit(op)
	if err == nil && r.Verdict == power.VerdictRefuse {
		c.outbox.put(r) // for central's audit log
	} else if why := c.permit.why(time.Now()); err == nil && why != "" {
		r.Message += "; carried out because it is asked for here, although this agent sends nothing of its own accord: " + why
	}
	return r, err
}

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

func (c *control) ctlQuery(r *http.Request) (api.FoundOps, error) {
	in, err := body[api.QueryOps](r)
	if err != nil {
		return api.FoundOps{}, err
	}
	seq, id, err := api.ReadOpPlace(in.Before)
	if err != nil {
		return api.FoundOps{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(in.Wait, time.Minute))
	defer cancel()
	wanted := wantedBy(in)
	for {
		reports, rev, news := c.outbox.after(in.AfterRev)
		found := api.FoundOps{Ops: []api.Op{}, Rev: rev}
		for _, report := range reports {
			o := report.Op
			older := in.Before == "" || o.Seq < seq || o.Seq == seq && o.ID < id
			if older && wanted(report) {
				found.Ops = append(found.Ops, opOf(report, c.name))
			}
		}
		if len(found.Ops) > 0 || ctx.Err() != nil {
			if in.Limit > 0 && len(found.Ops) > in.Limit {
				found.Ops = found.Ops[len(found.Ops)-in.Limit:]
				found.Next = api.OpPlace(found.Ops[0])
			}
			return found, nil
		}
		select {
		case <-news:
			_ = backoff.Sleep(ctx, time.Duration(len(in.IDs))*onePause)
		case <-ctx.Done():
		}
	}
}

// onePause, times the operations that somebody waits for, is how long more news of them may come
// before they are looked at.
const onePause = 20 * time.Microsecond

// wantedBy returns whether a report is what a query asks for.
func wantedBy(in api.QueryOps) func(api.OpReport) bool {
	ids, nodes := setOf(in.IDs), setOf(in.Nodes)
	return func(r api.OpReport) bool {
		return (len(ids) == 0 || ids[r.Op.ID]) && (len(nodes) == 0 || nodes[r.Op.Node]) &&
			(!in.Outstanding || r.End == nil) && !r.Op.AskedAt.Before(in.Since)
	}
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

func (c *control) ctlCancel(r *http.Request) (api.Op, error) {
	in, err := body[api.CancelOp](r)
	if err != nil {
		return api.Op{}, err
	}
	report, err := c.agent.Cancel(api.Cancel{ID: r.PathValue("id"), By: in.AskedBy, Reason: in.Reason})
	if err != nil {
		return api.Op{}, err
	}
	op := opOf(report, c.name)
	op.CancelBy = in.AskedBy
	return op, nil
}

// defaultReadWait is how long an asker waits for readings who does not say.
const defaultReadWait = 15 * time.Second

// ctlRead reads nodes now, whatever the monitor's schedule.
func (c *control) ctlRead(r *http.Request) ([]api.Node, error) {
	in, err := body[api.ReadNodes](r)
	if err != nil {
		return nil, err
	}
	for _, name := range in.Names {
		if _, ok := c.assigned.get(name); !ok {
			return nil, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", name, c.name)
		}
	}
	if in.Select != "" {
		if in.Names, err = c.selected(in.Select); err != nil {
			return nil, err
		}
	}
	if in.Wait <= 0 {
		in.Wait = defaultReadWait
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), min(in.Wait, time.Minute))
	defer cancel()
	if !c.agent.begin() {
		return nil, errStopping
	}
	done := make(chan struct{})
	go func() { // an exchange under way goes on after the answer
		defer c.agent.done()
		defer close(done)
		c.poller.readNow(ctx, in.Names)
		c.monitor.Poke()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	nodes := c.nodesNamed(in.Names)
	for i := range nodes {
		nodes[i].Unread = nodes[i].TriedAt == nil || nodes[i].TriedAt.Before(began)
	}
	return nodes, nil
}

func (c *control) ctlMembers(*http.Request) ([]api.Member, error) {
	return api.AnswerMembers(c.gossip.asked())
}

func (c *control) ctlPeers(*http.Request) ([]api.PeerNode, error) {
	peers, err := api.AnswerPeers(c.gossip.asked(), c.owns)
	slices.SortFunc(peers, func(a, b api.PeerNode) int { return compareNames(a.Node, b.Node) })
	return peers, err
}

// owns is this agent's name for its own nodes, "" for others: whose those are is known by
// gossip only.
func (c *control) owns(node string) string {
	if _, ok := c.assigned.get(node); ok {
		return c.name
	}
	return ""
}

func (c *control) ctlPing(r *http.Request) (api.Pong, error) {
	in, err := body[api.Ping](r)
	if err != nil {
		return api.Pong{}, err
	}
	return api.AnswerPing(r.Context(), c.gossip.asked(), in)
}

func (c *control) ctlWho(r *http.Request) (api.Who, error) {
	node, bmc := r.URL.Query().Get("node"), ""
	if ep, err := c.assigned.endpoint(node); err == nil && ep.Scheme != power.SchemeExec {
		bmc = net.JoinHostPort(ep.Host, strconv.Itoa(ep.Port))
	}
	return api.AnswerWho(r.Context(), c.gossip.asked(), node, bmc, c.owns(node))
}

func (c *control) ctlKeys(r *http.Request) (api.GossipKeys, error) {
	return api.AnswerKeys(r.Context(), c.gossip.asked())
}

func (c *control) ctlChangeKeys(r *http.Request) (api.GossipKeys, error) {
	in, err := body[api.ChangeKeys](r)
	if err != nil {
		return api.GossipKeys{}, err
	}
	return api.AnswerChangeKeys(r.Context(), c.gossip.asked(), in)
}

func (c *control) ctlInfo(*http.Request) (api.Info, error) {
	return api.Info{ID: c.journal, Version: c.version, Nodes: len(c.assigned.all()), Agents: 1, Gossip: c.gossip.addr()}, nil
}

func (c *control) ctlExplain(r *http.Request) (api.Explanation, error) {
	e, ok := c.view.explain(r.PathValue("name"), time.Now())
	if !ok {
		return e, api.Problemf(api.CodeNotFound, "node %s is not assigned to agent %s", r.PathValue("name"), c.name)
	}
	return e, nil
}

func (c *control) ctlAckAlarm(r *http.Request) ([]api.Alarm, error) {
	in, err := body[api.AckAlarm](r)
	if err != nil {
		return nil, err
	}
	return c.agent.ackAlarms(in)
}

func (c *control) ctlAlarms(*http.Request) ([]api.Alarm, error) { return c.alarms.list(), nil }

func (c *control) ctlTrust(*http.Request) (api.Trust, error) { return c.link.trustState(), nil }

func (c *control) ctlConfirmTrust(r *http.Request) (api.Trust, error) {
	in, err := body[api.ConfirmTrust](r)
	if err != nil {
		return api.Trust{}, err
	}
	return c.link.confirmTrust(in)
}
