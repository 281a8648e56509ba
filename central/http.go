package central

import (
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/web"
)

// Bounds of bodies, in bytes, and of the time that a long poll waits.
const (
	maxAdminBody = 32 << 20
	maxAgentBody = 64 << 20
	maxJoinBody  = 64 << 10
	maxWait      = 60 * time.Second
)

// Handler serves the API, and the page that uses it. It works from New until Close.
func (c *Central) Handler() http.Handler {
	return httpserver.TimelyBodies(httpserver.SignsOfLife(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpserver.ForgetDeadline(w)
		switch {
		case strings.HasPrefix(r.URL.Path, web.Prefix):
			c.page.ServeHTTP(w, r)
			return
		case r.URL.Path == "/" && r.Method == http.MethodGet, r.URL.Path+"/" == web.Prefix:
			http.Redirect(w, r, web.Prefix, http.StatusSeeOther)
			return
		}
		if p := foreign(r); p != nil {
			p.Write(w)
			return
		}
		c.numbers.serve(c.mux, w, r)
	})))
}

// foreign refuses a body that is not declared as JSON: a form of a web page, that came
// through something between a browser and the socket.
func foreign(r *http.Request) *api.Problem {
	if r.Method == http.MethodPost {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return api.Problemf(api.CodeMediaType, "content type %q: want application/json", r.Header.Get("Content-Type"))
		}
	}
	return nil
}

// endpoint is a handler, with the types of its body and its answer, for the description.
type endpoint struct {
	handler http.HandlerFunc
	in, out reflect.Type // nil: none
	media   string       // of the answer, where it is not JSON
	query   []string     // parameters beside those that are described with the route
}

// route is a row of the table that access, the description and the mux are made of.
type route struct {
	pattern string
	to      access
	endpoint
}

func (c *Central) routes() *http.ServeMux {
	mux := http.NewServeMux()
	c.table = nil
	serve := func(pattern string, to access, e endpoint) {
		c.table = append(c.table, route{pattern, to, e})
		if strings.HasPrefix(pattern, http.MethodPost) && to.changes() {
			e.handler = c.once(e)
		}
		mux.HandleFunc(pattern, c.guarded(to, onlyKnown(slices.Concat(described[pattern].query, e.query), e.handler)))
	}
	serve("GET /v1/nodes", sees, c.nodesEndpoint())
	serve("GET /v1/nodes/alike", sees, paged(c, c.listAlike, func(one api.NodesAlike) string { return one.First }))
	serve("POST /v1/nodes", manages, body(c, maxAdminBody, true, c.addNodes))
	serve("POST /v1/nodes/remove", manages, body(c, maxAdminBody, true, c.removeNodes))
	serve("POST /v1/nodes/status", acts, body(c, maxAdminBody, true, c.setStatus))
	serve("POST /v1/nodes/hold", acts, body(c, maxAdminBody, true, c.setHold))
	serve("POST /v1/nodes/protect", manages, body(c, maxAdminBody, true, c.protectNodes))
	serve("POST /v1/nodes/retry", acts, body(c, maxAdminBody, true, c.retryNodes))
	serve("GET /v1/nodes/{name}/explain", sees, query(c, c.explain))
	serve("GET /v1/nodes/export", manages, paged(c, c.exportNodes, func(one api.NodeSpec) string { return one.Name }))
	serve("POST /v1/ops", acts, body(c, maxAdminBody, true, c.askOps))
	serve("POST /v1/ops/query", sees, body(c, maxAdminBody, true, c.queryOps))
	serve("POST /v1/ops/{id}/cancel", acts, body(c, maxAdminBody, true, c.cancelOp))
	serve("POST /v1/plans", acts, body(c, maxPlanBody, true, c.makePlan))
	serve("GET /v1/plans/{id}", sees, query(c, c.getPlan))
	serve("POST /v1/plans/{id}/apply", acts, body(c, maxAdminBody, true, c.applyPlan))
	serve("GET /v1/approvals", sees, paged(c, c.listApprovals, func(one api.Plan) string { return timeName(one.AskedAt) + " " + one.ID }))
	serve("POST /v1/approvals/{id}", acts, body(c, maxAdminBody, true, c.decidePlan))
	serve("GET /v1/policy", seesSite, query(c, c.getPolicy))
	serve("POST /v1/policy", managesSite, body(c, maxAdminBody, true, c.setPolicy))
	serve("POST /v1/reads", sees, body(c, maxAdminBody, true, c.readNodes))
	serve("POST /v1/power", sees, body(c, maxAdminBody, true, c.readConsumption))
	serve("POST /v1/tests", acts, body(c, maxAdminBody, true, c.testNodes))
	serve("GET /v1/racks", sees, paged(c, c.listRacks, func(one api.Rack) string { return one.Name }))
	serve("POST /v1/racks/{name}", managesSite, body(c, maxAdminBody, true, c.setRack))
	serve("POST /v1/racks/{name}/pause", actsOnSite, body(c, maxAdminBody, true, c.setPause))
	serve("POST /v1/pause", actsOnSite, body(c, maxAdminBody, true, c.setSitePause))
	serve("GET /v1/site", seesSite, query(c, c.getSite))
	serve("POST /v1/site/confirm", managesSite, body(c, maxAdminBody, true, c.confirmSite))
	serve("GET /v1/brakes", sees, paged(c, c.listBrakes, func(one api.RackBrake) string { return one.Rack }))
	serve("POST /v1/brakes/release", actsOnSite, body(c, maxAdminBody, true, c.releaseBrakes))
	serve("GET /v1/domains", sees, paged(c, c.listDomains, func(one api.Domain) string { return one.Name }))
	serve("POST /v1/domains", managesSite, body(c, maxAdminBody, true, c.setDomain))
	serve("GET /v1/schedules", sees, paged(c, c.listSchedules, func(one api.Schedule) string { return one.Name }))
	serve("POST /v1/schedules", actsOnSite, body(c, maxAdminBody, true, c.putSchedule))
	serve("GET /v1/schedules/next", sees, paged(c, c.nextRuns, runName))
	serve("POST /v1/schedules/remove", actsOnSite, body(c, maxAdminBody, true, c.removeSchedule))
	serve("GET /v1/attention", sees, paged(c, c.listAttention, attentionName))
	serve("GET /v1/agents", sees, paged(c, c.listAgents, func(one api.Agent) string { return one.Name }))
	serve("POST /v1/agents/{name}/forget", managesSite, body(c, maxAdminBody, true, c.forgetAgent))
	serve("POST /v1/agents/{name}/drain", managesSite, body(c, maxAdminBody, true, c.drainAgent))
	serve("POST /v1/agents/{name}/ack", actsOnSite, body(c, maxAdminBody, true, c.ackAlarm))
	serve("GET /v1/members", sees, paged(c, c.listMembers, func(one api.Member) string { return one.Name }))
	serve("GET /v1/peers", sees, paged(c, c.listPeers, func(one api.PeerNode) string { return one.Node }))
	serve("POST /v1/gossip/ping", actsOnSite, body(c, maxAdminBody, true, c.ping))
	serve("GET /v1/gossip/who", sees, query(c, c.who))
	serve("GET /v1/gossip/keys", managesSite, query(c, c.listKeys))
	serve("POST /v1/gossip/keys", managesSite, body(c, maxAdminBody, true, c.changeKeys))
	serve("GET /v1/audit", sees, c.auditEndpoint())
	serve("GET /v1/audit/verify", seesSite, query(c, c.verifyAudit))
	serve("GET /v1/watch", sees, endpoint{handler: c.watch, media: "text/event-stream"})
	serve("GET /v1/info", sees, query(c, c.info))
	serve("GET /metrics", seesSite, endpoint{handler: c.metricsHandler(), media: "text/plain"})
	serve(httpserver.Profiles, managesSite, endpoint{handler: httpserver.Profile, media: "application/octet-stream"})
	serve("GET /v1/whoami", sees, query(c, c.whoAmI))
	serve("GET /v1/users", managesSite, paged(c, c.listUsers, func(one api.User) string { return one.Name }))
	serve("POST /v1/users", managesSite, body(c, maxAdminBody, true, c.addUser))
	serve("POST /v1/users/{name}/rotate", managesSite, body(c, maxAdminBody, true, c.rotateToken))
	serve("POST /v1/users/{name}/certificate", ownOrManagesSite, body(c, maxJoinBody, true, c.certifyUser))
	serve("POST /v1/users/{name}/remove", managesSite, body(c, maxAdminBody, true, c.removeUser))
	serve("GET /v1/credentials", managesSite, paged(c, c.listCredentials, func(one api.Credentials) string { return one.Name }))
	serve("POST /v1/credentials/{name}", managesSite, body(c, maxAdminBody, true, c.setCredentials))
	serve("POST /v1/credentials/{name}/rotate", managesSite, body(c, maxAdminBody, true, c.rotateCredentials))
	serve("POST /v1/credentials/{name}/remove", managesSite, body(c, maxAdminBody, true, c.removeCredentials))
	serve("POST /v1/agents/{name}/token", managesSite, body(c, maxAdminBody, true, c.agentToken))
	serve("POST /v1/agents/{name}/revoke", managesSite, body(c, maxAdminBody, true, c.revokeAgent))
	serve("POST /v1/seal/rotate", managesSite, body(c, maxAdminBody, true, c.rotateSealKey))
	serve("GET /v1/ca", isAnybody, query(c, c.siteCA))
	serve("POST /v1/join", isAnybody, body(c, maxJoinBody, true, c.join))
	serve("POST /v1/agents/{name}/renew", isAgent, body(c, maxJoinBody, false, c.renew))
	// Agents of another version may know more fields than this central.
	serve("POST /v1/agents/{name}/enrol", isAgent, body(c, maxAgentBody, false, c.enrol))
	serve("POST /v1/agents/{name}/hello", isAgent, body(c, maxAgentBody, false, c.hello))
	serve("POST /v1/agents/{name}/poll", isAgent, body(c, maxAgentBody, false, c.poll))
	serve("POST /v1/agents/{name}/report", isAgent, body(c, maxAgentBody, false, c.report))
	serve("POST /v1/agents/{name}/goodbye", isAgent, body(c, maxAgentBody, false, c.goodbye))
	serve("GET /v1/openapi.json", isAnybody, query(c, c.openAPI))
	serve("GET /docs", isAnybody, endpoint{handler: c.docsPage, media: "text/html"})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if methods := allowed(mux, r); len(methods) > 0 {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			api.Problemf(api.CodeMethod, "%s is not for %s: want %s", r.Method, r.URL.Path, strings.Join(methods, " or ")).Write(w)
			return
		}
		api.Problemf(api.CodeNotFound, "no such resource: %s %s", r.Method, r.URL.Path).Write(w)
	})
	return mux
}

// allowed are the methods that the path of a request has.
func allowed(mux *http.ServeMux, r *http.Request) (methods []string) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := *r
		other.Method = method
		if _, pattern := mux.Handler(&other); pattern != "/" {
			methods = append(methods, method)
		}
	}
	return methods
}

// query makes a handler of a function without a body.
func query[Out any](c *Central, f func(*http.Request) (Out, error)) endpoint {
	return endpoint{out: reflect.TypeFor[Out](), handler: func(w http.ResponseWriter, r *http.Request) {
		out, err := caught(c, func() (Out, error) { return f(r) })
		c.answerTo(w, r, out, ended(r, err))
	}}
}

// caught makes an error of a panic, so that who asks is answered.
func caught[Out any](c *Central, f func() (Out, error)) (out Out, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("a request panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// answerTo answers, and has the audit log say what was refused for who asked: a route may ask
// for more than to be let in.
func (c *Central) answerTo(w http.ResponseWriter, r *http.Request, out any, err error) {
	if api.CodeOf(err) == api.CodeForbidden {
		c.refused(r, httpserver.Principal(r), err)
	}
	c.answer(w, out, err)
}

// body makes a handler of a function that takes a JSON body, see httpserver.Decode.
func body[In, Out any](c *Central, limit int64, strict bool, f func(*http.Request, In) (Out, error)) endpoint {
	return endpoint{in: reflect.TypeFor[In](), out: reflect.TypeFor[Out](), handler: func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		in, err := httpserver.Decode[In](r, strict)
		if err != nil {
			c.answer(w, nil, err)
			return
		}
		if err := httpserver.MaySpeak(httpserver.Principal(r), in, "rackpower user add --speaks-for-others"); err != nil {
			c.answerTo(w, r, nil, err)
			return
		}
		out, err := caught(c, func() (Out, error) { return f(r, in) })
		c.answerTo(w, r, out, ended(r, err))
	}}
}

func (c *Central) answer(w http.ResponseWriter, out any, err error) {
	var p *api.Problem
	if err != nil {
		p = c.problem(err)
	}
	if err := httpserver.Answer(w, out, p); err != nil {
		c.log.Debug("answer not taken", "err", err)
	}
}
