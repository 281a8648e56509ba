package central

import (
	"mime"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
)

// Bounds of bodies, in bytes, and of the time that a long poll waits.
const (
	maxAdminBody = 32 << 20
	maxAgentBody = 64 << 20
	maxWait      = 60 * time.Second
)

// Handler serves the API. It works from New until Close.
func (c *Central) Handler() http.Handler {
	return httpserver.TimelyBodies(httpserver.SignsOfLife(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpserver.ForgetDeadline(w)
		if p := foreign(r); p != nil {
			p.Write(w)
			return
		}
		c.mux.ServeHTTP(w, r)
	})))
}

// foreign refuses a body that is not declared as JSON: a form of a web page, that came
// through something between a browser and the socket.
func foreign(r *http.Request) *api.Problem {
	if r.Method == http.MethodPost {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return api.Problemf(api.CodeBadRequest, "content type %q: want application/json", r.Header.Get("Content-Type"))
		}
	}
	return nil
}

func (c *Central) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/nodes", query(c, c.listNodes))
	mux.HandleFunc("POST /v1/nodes", body(c, maxAdminBody, true, c.addNodes))
	mux.HandleFunc("POST /v1/nodes/remove", body(c, maxAdminBody, true, c.removeNodes))
	mux.HandleFunc("POST /v1/nodes/status", body(c, maxAdminBody, true, c.setStatus))
	mux.HandleFunc("POST /v1/nodes/hold", body(c, maxAdminBody, true, c.setHold))
	mux.HandleFunc("POST /v1/nodes/retry", body(c, maxAdminBody, true, c.retryNodes))
	mux.HandleFunc("GET /v1/nodes/{name}/explain", query(c, c.explain))
	mux.HandleFunc("GET /v1/nodes/export", query(c, c.exportNodes))
	mux.HandleFunc("POST /v1/ops", body(c, maxAdminBody, true, c.askOps))
	mux.HandleFunc("POST /v1/ops/query", body(c, maxAdminBody, true, c.queryOps))
	mux.HandleFunc("POST /v1/ops/{id}/cancel", body(c, maxAdminBody, true, c.cancelOp))
	mux.HandleFunc("POST /v1/reads", body(c, maxAdminBody, true, c.readNodes))
	mux.HandleFunc("GET /v1/racks", query(c, c.listRacks))
	mux.HandleFunc("POST /v1/racks/{name}", body(c, maxAdminBody, true, c.setRack))
	mux.HandleFunc("POST /v1/racks/{name}/pause", body(c, maxAdminBody, true, c.setPause))
	mux.HandleFunc("GET /v1/brakes", query(c, c.listBrakes))
	mux.HandleFunc("POST /v1/brakes/release", body(c, maxAdminBody, true, c.releaseBrakes))
	mux.HandleFunc("GET /v1/domains", query(c, c.listDomains))
	mux.HandleFunc("POST /v1/domains", body(c, maxAdminBody, true, c.setDomain))
	mux.HandleFunc("GET /v1/schedules", query(c, c.listSchedules))
	mux.HandleFunc("POST /v1/schedules", body(c, maxAdminBody, true, c.putSchedule))
	mux.HandleFunc("POST /v1/schedules/remove", body(c, maxAdminBody, true, c.removeSchedule))
	mux.HandleFunc("GET /v1/schedules/next", query(c, c.nextRuns))
	mux.HandleFunc("GET /v1/agents", query(c, c.listAgents))
	mux.HandleFunc("POST /v1/agents/{name}/forget", body(c, maxAdminBody, true, c.forgetAgent))
	mux.HandleFunc("POST /v1/agents/{name}/ack", body(c, maxAdminBody, true, c.ackAlarm))
	mux.HandleFunc("GET /v1/members", query(c, c.listMembers))
	mux.HandleFunc("GET /v1/peers", query(c, c.listPeers))
	mux.HandleFunc("POST /v1/gossip/ping", body(c, maxAdminBody, true, c.ping))
	mux.HandleFunc("GET /v1/gossip/who", query(c, c.who))
	mux.HandleFunc("GET /v1/gossip/keys", query(c, c.listKeys))
	mux.HandleFunc("POST /v1/gossip/keys", body(c, maxAdminBody, true, c.changeKeys))
	mux.HandleFunc("GET /v1/audit", query(c, c.listAudit))
	mux.HandleFunc("GET /v1/info", query(c, c.info))
	// Agents of another version may know more fields than this central.
	mux.HandleFunc("POST /v1/agents/{name}/enrol", agentsOnly(body(c, maxAgentBody, false, c.enrol)))
	mux.HandleFunc("POST /v1/agents/{name}/hello", agentsOnly(body(c, maxAgentBody, false, c.hello)))
	mux.HandleFunc("POST /v1/agents/{name}/poll", agentsOnly(body(c, maxAgentBody, false, c.poll)))
	mux.HandleFunc("POST /v1/agents/{name}/report", agentsOnly(body(c, maxAgentBody, false, c.report)))
	mux.HandleFunc("POST /v1/agents/{name}/goodbye", agentsOnly(body(c, maxAgentBody, false, c.goodbye)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		api.Problemf(api.CodeNotFound, "no such resource: %s %s", r.Method, r.URL.Path).Write(w)
	})
	return mux
}

// query makes a handler of a function without a body.
func query[Out any](c *Central, f func(*http.Request) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r)
		c.answer(w, out, err)
	}
}

// body makes a handler of a function that takes a JSON body, see httpserver.Decode.
func body[In, Out any](c *Central, limit int64, strict bool, f func(*http.Request, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		in, err := httpserver.Decode[In](r, strict)
		if err != nil {
			c.answer(w, nil, err)
			return
		}
		out, err := f(r, in)
		c.answer(w, out, err)
	}
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

// askedBy is who asks: whom the body names, else the user at the other end of
// the unix socket.
func askedBy(r *http.Request, named string) string {
	if named != "" {
		return named
	}
	if p := peer(r); p != "" {
		return p
	}
	return "unknown"
}
