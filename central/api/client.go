package api

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"rackpower/internal/backoff"
)

// ErrUnreachable is what errors.Is finds when no answer came: nothing is known
// of what the request did, and it may be sent again.
var ErrUnreachable = errors.New("not reachable")

// Client talks to central, or to an agent's control socket. It is safe for many
// goroutines.
type Client struct {
	target   string       // as the user wrote it, for errors
	bases    []string     // several: names of one central
	at       atomic.Int32 // of bases: the one that answered last
	http     *http.Client
	token    string
	serves   func(uid uint32) error // what is wrong with the user who serves a socket; nil: any will do
	patience Patience
	silent   atomic.Bool   // its user has been told of a silence
	run      string        // names this client to central
	said     atomic.Uint64 // hellos and reports so far
	unknown  atomic.Bool   // central did not know who asks on a connection that is there
}

// How long one of several names may take to connect, and to give a sign of life, before another one is asked.
const (
	changeAfter = 3 * time.Second
	silentAfter = 6 * time.Second
)

// NewClient makes a client for unix:///path/to.sock, http://host:port or
// https://host:port. Several https addresses, separated by commas, are names of one
// central: the next one is tried where one does not answer.
func NewClient(target string) (*Client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second}
	c := &Client{
		target: target, patience: DefaultPatience(), run: crand.Text(),
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	names := []string{target}
	if strings.HasPrefix(target, "https://") {
		names = strings.Split(target, ",")
	}
	if len(names) > 1 { // there is another one to ask soon
		transport.DialContext = (&net.Dialer{Timeout: changeAfter}).DialContext
		transport.TLSHandshakeTimeout = changeAfter
	}
	for _, one := range names {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil:
			return nil, fmt.Errorf("cannot read address %q: want unix:///path or https://host:port", one)
		case u.Scheme == "unix" && u.Host == "" && u.Path != "" && one == target: // a host would be the beginning of a relative path
			c.bases = append(c.bases, "http://unix")
			transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return c.dial(ctx, u.Path)
			}
		case (u.Scheme == "https" || u.Scheme == "http" && one == target) && u.Host != "" && u.User == nil && strings.Trim(u.Path, "/") == "":
			c.bases = append(c.bases, u.Scheme+"://"+u.Host)
		default:
			return nil, fmt.Errorf("cannot read address %q: want unix:///path or https://host:port", one)
		}
	}
	return c, nil
}

// Inside makes a client that asks through a transport of this process, and is told of each
// refusal at once.
func Inside(transport http.RoundTripper) *Client {
	patience := DefaultPatience()
	patience.TooMany = 0
	return &Client{
		target: "central", bases: []string{"http://central"}, patience: patience, run: crand.Text(), http: &http.Client{Transport: transport},
	}
}

// Secure sets how the client asks over TLS, and the bearer token that it sends; "": none.
// It is called before the client is used. A token goes to https only.
func (c *Client) Secure(cfg *tls.Config, token string) {
	c.http.Transport.(*http.Transport).TLSClientConfig = cfg //nolint:errcheck,forcetypeassert // NewClient made it
	c.token = token
}

// ServedBy has the client talk to a unix socket only if wrong finds nothing wrong with
// the user who listens there. It is called before the client is used.
func (c *Client) ServedBy(wrong func(uid uint32) error) { c.serves = wrong }

func (c *Client) dial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil || c.serves == nil {
		return conn, err
	}
	uid, err := PeerOf(conn)
	if err == nil {
		err = c.serves(uid)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// Target is the address as it was given.
func (c *Client) Target() string { return c.target }

// Remote reports whether the client asks over a network rather than a unix socket.
func (c *Client) Remote() bool { return c.bases[0] != "http://unix" }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil: the
// body is dropped). A *Problem comes back as such; no answer is ErrUnreachable,
// unless ctx ended; ErrSilent when somebody was there who did not answer.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	_, err := c.do(ctx, method, path, in, out, 0)
	return err
}

// do is Do of a request that may take a while, and returns the header of the answer. One that was
// refused because there are too many is sent again: nothing was done.
func (c *Client) do(ctx context.Context, method, path string, in, out any, wait time.Duration) (http.Header, error) {
	var data []byte
	if in != nil {
		var err error
		if data, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("cannot encode request to %s: %w", path, err)
		}
	}
	for began, told := time.Now(), false; ; told = true {
		header, err := c.once(ctx, method, path, data, out, wait)
		var p *Problem
		if !errors.As(err, &p) || p.Code != CodeTooMany {
			return header, err
		}
		pause := max(p.RetryAfter, time.Second)
		pause += rand.N(pause / 4) // others were told the same
		end, bounded := ctx.Deadline()
		if time.Since(began)+pause > c.patience.TooMany || bounded && time.Until(end) < pause {
			return nil, err
		}
		if !told && c.patience.Refused != nil {
			c.patience.Refused(p, pause)
		}
		if ended := backoff.Sleep(ctx, pause); ended != nil {
			return nil, ended
		}
	}
}

// once sends a request once.
func (c *Client) once(ctx context.Context, method, path string, data []byte, out any, wait time.Duration) (http.Header, error) {
	watched, watch := c.watch(ctx, wait, c.patience.Say)
	defer watch.stop()
	resp, err := c.send(watched, method, path, data)
	if err != nil {
		return nil, c.unreachable(watched, ctx, err)
	}
	watch.life.Store(true)
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		c.unknown.Store(resp.StatusCode == http.StatusUnauthorized)
		err := problemOf(resp, watch)
		if watched.Err() != nil {
			return nil, c.unreachable(watched, ctx, err)
		}
		c.silent.Store(false)
		return nil, err
	}
	if out == nil {
		c.silent.Store(false)
		return resp.Header, nil
	}
	if err := json.NewDecoder(watch.body(resp.Body)).Decode(out); err != nil {
		return nil, c.unreachable(watched, ctx, fmt.Errorf("answer to %s broke off: %w", path, err))
	}
	c.silent.Store(false)
	return resp.Header, nil
}

// send tries the names of central, from the one on that answered last. Every request may
// be sent again.
func (c *Client) send(ctx context.Context, method, path string, data []byte) (resp *http.Response, err error) {
	if c.unknown.Swap(false) { // a connection from before there was a certificate never has one
		c.http.CloseIdleConnections()
	}
	first := int(c.at.Load())
	for i := range c.bases {
		at := (first + i) % len(c.bases)
		req, wrong := http.NewRequestWithContext(ctx, method, c.bases[at]+path, bytes.NewReader(data))
		if wrong != nil {
			return nil, fmt.Errorf("cannot make request to %s: %w", path, wrong)
		}
		if data != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		req.Header.Set("Prefer", PreferProcessing)
		if c.token != "" && req.URL.Scheme == "https" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err = c.http.Do(req)
		if ctx.Err() != nil && errors.Is(context.Cause(ctx), ErrSilent) {
			at = (at + 1) % len(c.bases) // the next request is for another one
		}
		if err == nil || ctx.Err() != nil {
			c.at.Store(int32(at)) //nolint:gosec // a handful
			return resp, err
		}
	}
	return nil, err
}

func (c *Client) unreachable(watched, ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", c.target, noAnswer{})
	} else if cause != nil {
		return cause
	}
	if watched.Err() != nil {
		return fmt.Errorf("%s: %w", c.target, context.Cause(watched))
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("%s: %w (%v)", c.target, ErrUnreachable, err) //nolint:errorlint // the cause is for people
}

// noAnswer is context.DeadlineExceeded in words for people.
type noAnswer struct{}

// Error says it.
func (noAnswer) Error() string { return "no answer in the time that it had" }

// Unwrap returns context.DeadlineExceeded.
func (noAnswer) Unwrap() error { return context.DeadlineExceeded }

func problemOf(resp *http.Response, w *watch) error {
	data, _ := io.ReadAll(io.LimitReader(w.body(resp.Body), 1<<20))
	p := new(Problem)
	if json.Unmarshal(data, p) != nil || p.Detail == "" {
		line, _, _ := bytes.Cut(bytes.TrimSpace(data), []byte("\n"))
		return Problemf(CodeInternal, "unexpected answer %s (%s): what answers there is another program, or a part of rackpower that does not "+
			"do this; is the address right?",
			resp.Status, line[:min(len(line), 100)])
	}
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		p.RetryAfter = time.Duration(seconds) * time.Second //nolint:gosec // 31 bits
	}
	return p
}

// CodeOf returns the code of a problem within err, or "".
func CodeOf(err error) Code {
	var p *Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	return waiting[T](ctx, c, 0, method, path, in)
}

// waiting is call of a request that waits for something, for so long at most.
func waiting[T any](ctx context.Context, c *Client, wait time.Duration, method, path string, in any) (T, error) {
	var out T
	_, err := c.do(ctx, method, path, in, &out, wait)
	return out, err
}

// How long central waits for an agent where the request does not say.
const (
	defaultReadWait = 15 * time.Second
	explainWait     = 5 * time.Second
	gossipWait      = 10 * time.Second // members are asked one after the other, for 3 s each time
)

// Nodes returns the nodes that the expression selects, "all" or "" for all.
func (c *Client) Nodes(ctx context.Context, expr string) ([]Node, error) {
	return list[Node](ctx, c, "/v1/nodes?select="+url.QueryEscape(expr))
}

// AddNodes adds or updates nodes, all or none.
func (c *Client) AddNodes(ctx context.Context, in AddNodes) (AddedNodes, error) {
	return call[AddedNodes](ctx, c, http.MethodPost, "/v1/nodes", in)
}

// RemoveNodes removes nodes, all or none.
func (c *Client) RemoveNodes(ctx context.Context, in RemoveNodes) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/nodes/remove", in)
}

// SetStatus gives nodes a status, all or none.
func (c *Client) SetStatus(ctx context.Context, in SetStatus) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/nodes/status", in)
}

// ExportNodes returns all nodes as they can be imported again, without passwords.
func (c *Client) ExportNodes(ctx context.Context) ([]NodeSpec, error) {
	return list[NodeSpec](ctx, c, "/v1/nodes/export")
}

// AskOps asks for operations. When it returns without error each request is
// durable (taken) or carries a refusal. It may be called again with the same ids.
func (c *Client) AskOps(ctx context.Context, in AskOps) ([]Op, error) {
	return call[[]Op](ctx, c, http.MethodPost, "/v1/ops", in)
}

// QueryOps finds operations, waiting for news when in.Wait is set.
func (c *Client) QueryOps(ctx context.Context, in QueryOps) (FoundOps, error) {
	return waiting[FoundOps](ctx, c, in.Wait, http.MethodPost, "/v1/ops/query", in)
}

// CancelOp asks for an operation to be cancelled.
func (c *Client) CancelOp(ctx context.Context, id string, in CancelOp) (Op, error) {
	return call[Op](ctx, c, http.MethodPost, "/v1/ops/"+url.PathEscape(id)+"/cancel", in)
}

// ReadNodes has nodes read now and waits for the readings.
func (c *Client) ReadNodes(ctx context.Context, in ReadNodes) ([]Node, error) {
	return waiting[[]Node](ctx, c, cmp.Or(in.Wait, defaultReadWait), http.MethodPost, "/v1/reads", in)
}

// Agents lists the agents.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	return list[Agent](ctx, c, "/v1/agents")
}

// Members lists the gossip cluster as the answering process sees it.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return list[Member](ctx, c, "/v1/members")
}

// Audit returns the newest entries of the audit log of the nodes (none: all),
// oldest first.
func (c *Client) Audit(ctx context.Context, expr string, limit int) ([]AuditEntry, error) {
	return c.FindAudit(ctx, AuditQuery{Nodes: expr, Limit: limit})
}

// FindAudit returns the newest entries of the audit log that are asked for, oldest first. It
// asks for them page by page.
func (c *Client) FindAudit(ctx context.Context, q AuditQuery) ([]AuditEntry, error) {
	var pages [][]AuditEntry
	for left := q.Limit; ; {
		q.Limit = min(left, MaxAuditPage)
		page, err := call[[]AuditEntry](ctx, c, http.MethodGet, "/v1/audit?"+q.values().Encode(), nil)
		if err != nil {
			return nil, err
		}
		pages = append(pages, page)
		if left -= len(page); left <= 0 || len(page) < q.Limit {
			break
		}
		q.Before = page[0].ID
	}
	slices.Reverse(pages)
	return append([]AuditEntry{}, slices.Concat(pages...)...), nil
}

// AuditAfter returns the entries of the audit log behind an id, of the nodes that
// the expression selects, oldest first; it waits for one for at most wait.
func (c *Client) AuditAfter(ctx context.Context, expr string, after int64, wait time.Duration) ([]AuditEntry, error) {
	return waiting[[]AuditEntry](ctx, c, wait, http.MethodGet, fmt.Sprintf("/v1/audit?select=%s&after=%d&wait=%s", url.QueryEscape(expr),
		after, wait), nil)
}

// verifyWait is how long central may need for its whole audit log.
const verifyWait = 10 * time.Minute

// VerifyAudit checks the hashes of the audit log; head is one to look for, "" for none.
func (c *Client) VerifyAudit(ctx context.Context, head string) (AuditCheck, error) {
	return waiting[AuditCheck](ctx, c, verifyWait, http.MethodGet, "/v1/audit/verify?head="+url.QueryEscape(head), nil)
}

// SetHold sets or releases holds, on all nodes or none.
func (c *Client) SetHold(ctx context.Context, in SetHold) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/nodes/hold", in)
}

// ProtectNodes protects nodes from losing power, or takes that back.
func (c *Client) ProtectNodes(ctx context.Context, in ProtectNodes) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/nodes/protect", in)
}

// RetryNodes has nodes tried again that are left alone.
func (c *Client) RetryNodes(ctx context.Context, in RetryNodes) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/nodes/retry", in)
}

// Explain says why a node is as it is.
func (c *Client) Explain(ctx context.Context, node string) (Explanation, error) {
	return waiting[Explanation](ctx, c, explainWait, http.MethodGet, "/v1/nodes/"+url.PathEscape(node)+"/explain", nil)
}

// Racks lists the racks with their settings and how their monitors stand.
func (c *Client) Racks(ctx context.Context) ([]Rack, error) {
	return list[Rack](ctx, c, "/v1/racks")
}

// RacksOf is Racks of the nodes that the expression selects.
func (c *Client) RacksOf(ctx context.Context, expr string) ([]Rack, error) {
	return list[Rack](ctx, c, "/v1/racks?select="+url.QueryEscape(expr))
}

// SetRack changes settings of a rack.
func (c *Client) SetRack(ctx context.Context, rack string, in SetRack) (Rack, error) {
	return call[Rack](ctx, c, http.MethodPost, "/v1/racks/"+url.PathEscape(rack), in)
}

// SetSitePause has the monitors of all racks rest, or go on.
func (c *Client) SetSitePause(ctx context.Context, in SetPause) ([]Rack, error) {
	return call[[]Rack](ctx, c, http.MethodPost, "/v1/pause", in)
}

// Site says what the monitors wait for since the database was restored.
func (c *Client) Site(ctx context.Context) (Site, error) {
	return call[Site](ctx, c, http.MethodGet, "/v1/site", nil)
}

// ConfirmSite has the monitors go on after a restore.
func (c *Client) ConfirmSite(ctx context.Context, in ConfirmSite) (Site, error) {
	return call[Site](ctx, c, http.MethodPost, "/v1/site/confirm", in)
}

// SetPause has a rack's monitor rest, or go on.
func (c *Client) SetPause(ctx context.Context, rack string, in SetPause) (Rack, error) {
	return call[Rack](ctx, c, http.MethodPost, "/v1/racks/"+url.PathEscape(rack)+"/pause", in)
}

// Brakes lists the brakes that hold.
func (c *Client) Brakes(ctx context.Context) ([]RackBrake, error) {
	return list[RackBrake](ctx, c, "/v1/brakes")
}

// ReleaseBrake releases the brakes of racks and returns those that held.
func (c *Client) ReleaseBrake(ctx context.Context, in ReleaseBrake) ([]RackBrake, error) {
	return call[[]RackBrake](ctx, c, http.MethodPost, "/v1/brakes/release", in)
}

// Trust says which central the agent of a rack follows; asked at the rack's own socket.
func (c *Client) Trust(ctx context.Context) (Trust, error) {
	return call[Trust](ctx, c, http.MethodGet, "/v1/trust", nil)
}

// ConfirmTrust has the agent of a rack follow another central, or let nodes go.
func (c *Client) ConfirmTrust(ctx context.Context, in ConfirmTrust) (Trust, error) {
	return call[Trust](ctx, c, http.MethodPost, "/v1/trust", in)
}

// Domains lists the power domains.
func (c *Client) Domains(ctx context.Context) ([]Domain, error) {
	return list[Domain](ctx, c, "/v1/domains")
}

// SetDomain sets or removes the limits of a power domain.
func (c *Client) SetDomain(ctx context.Context, in SetDomain) (Domain, error) {
	return call[Domain](ctx, c, http.MethodPost, "/v1/domains", in)
}

// Schedules lists the schedules.
func (c *Client) Schedules(ctx context.Context) ([]Schedule, error) {
	return list[Schedule](ctx, c, "/v1/schedules")
}

// PutSchedule adds a schedule, or replaces one.
func (c *Client) PutSchedule(ctx context.Context, in PutSchedule) (Schedule, error) {
	return call[Schedule](ctx, c, http.MethodPost, "/v1/schedules", in)
}

// RemoveSchedule removes a schedule.
func (c *Client) RemoveSchedule(ctx context.Context, in RemoveSchedule) (Changed, error) {
	return call[Changed](ctx, c, http.MethodPost, "/v1/schedules/remove", in)
}

// NextRuns lists the next runs of a schedule ("": of all), count of each.
func (c *Client) NextRuns(ctx context.Context, name string, count int) ([]ScheduledRun, error) {
	return list[ScheduledRun](ctx, c, fmt.Sprintf("/v1/schedules/next?name=%s&count=%d", url.QueryEscape(name), count))
}

// AckAlarm acknowledges alarms of an agent, at central.
func (c *Client) AckAlarm(ctx context.Context, agent string, in AckAlarm) ([]Alarm, error) {
	return call[[]Alarm](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/ack", in)
}

// DrainAgent has an agent without nodes that others can reach, or given nodes again.
func (c *Client) DrainAgent(ctx context.Context, agent string, in DrainAgent) (DrainedAgent, error) {
	return call[DrainedAgent](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/drain", in)
}

// ForgetAgent ends what was with an agent that is gone, and frees its nodes.
func (c *Client) ForgetAgent(ctx context.Context, agent string, in ForgetAgent) (ForgottenAgent, error) {
	return call[ForgottenAgent](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/forget", in)
}

// AckOwnAlarm acknowledges alarms of the agent whose own socket is asked.
func (c *Client) AckOwnAlarm(ctx context.Context, in AckAlarm) ([]Alarm, error) {
	return call[[]Alarm](ctx, c, http.MethodPost, "/v1/alarms/ack", in)
}

// Info describes the answering central.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return call[Info](ctx, c, http.MethodGet, "/v1/info", nil)
}

// Hello introduces an agent.
func (c *Client) Hello(ctx context.Context, agent string, in Hello) (Welcome, error) {
	if in.SentAt.IsZero() {
		in.SentAt = time.Now()
	}
	if in.Run == "" {
		in.Run, in.Nth = c.run, c.said.Add(1)
	}
	in.Protocol = Protocol
	return call[Welcome](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/hello", in)
}

// Goodbye ends the session of an agent that stops.
func (c *Client) Goodbye(ctx context.Context, agent string, in Goodbye) error {
	return c.Do(ctx, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/goodbye", in, nil)
}

// Poll waits for what changed for an agent.
func (c *Client) Poll(ctx context.Context, agent string, in Poll) (Assignment, error) {
	return waiting[Assignment](ctx, c, in.Wait, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/poll", in)
}

// Report tells central what happened; nil means that all of it is durable there.
func (c *Client) Report(ctx context.Context, agent string, in Report) (Reported, error) {
	if in.SentAt.IsZero() {
		in.SentAt = time.Now()
	}
	if in.Run == "" {
		in.Run, in.Nth = c.run, c.said.Add(1)
	}
	return call[Reported](ctx, c, http.MethodPost, "/v1/agents/"+url.PathEscape(agent)+"/report", in)
}
