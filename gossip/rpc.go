package gossip

import (
	"bufio"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/serf/serf"
)

// The endpoint for Serf's own tools: version 1 of Serf's RPC protocol, which is a
// stream of msgpack values. Each request is a header and, for most commands, a
// body; so is each response. Serf's own server cannot be used: it makes its member
// itself, with a logger and an event loop of its own, and it obeys commands that an
// agent's cluster must not obey from every user of the machine (leave, event, tags).

const (
	maxRPCClients = 32
	maxRPCRequest = 64 << 10 // bytes
	rpcIdle       = 5 * time.Minute
	rpcWrite      = 10 * time.Second
	maxRPCQuery   = time.Minute
	maxRPCWrong   = 3 // tokens
)

// The errors of the protocol that Serf's tools know.
const (
	rpcUnsupported   = "Unsupported command"
	rpcBadVersion    = "Unsupported IPC version"
	rpcTwice         = "Handshake already performed"
	rpcNoHandshake   = "Handshake required"
	rpcAuthRequired  = "Authentication required"
	rpcInvalidToken  = "Invalid authentication token"
	rpcTokenRequired = "refused: this changes the cluster, and the agent has no RPC token configured"
)

// Token is a secret that RPC clients give. It never shows itself.
type Token string

// String hides the token.
func (Token) String() string { return "redacted" }

// GoString hides the token.
func (Token) GoString() string { return "redacted" }

// LogValue hides the token.
func (Token) LogValue() slog.Value { return slog.StringValue("redacted") }

// MarshalText hides the token.
func (Token) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// rpcServer is the endpoint.
type rpcServer struct {
	c        *Cluster
	listener net.Listener
	mu       sync.Mutex
	clients  map[net.Conn]bool // nil after close
}

// validRPC refuses addresses that others could reach.
func validRPC(addr string) error {
	if addr == "" {
		return nil
	}
	ip, _, err := splitIP(addr)
	if err != nil {
		return err
	}
	if !ip.IsLoopback() {
		return fmt.Errorf("cannot offer RPC at %s: it is not encrypted and stays on the loopback (127.0.0.1)", addr)
	}
	return nil
}

func listenRPC(c *Cluster) (*rpcServer, error) {
	listener, err := net.Listen("tcp", c.cfg.RPC)
	if err != nil {
		return nil, fmt.Errorf("cannot offer RPC: %w", err)
	}
	return &rpcServer{c: c, listener: listener, clients: map[net.Conn]bool{}}, nil
}

// run serves clients until close, or the cluster's, and returns when the last one is gone.
func (s *rpcServer) run() {
	defer context.AfterFunc(s.c.ctx, s.close)()
	var parts sync.WaitGroup
	defer parts.Wait()
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.c.log.Warn("cannot accept an RPC client", "err", err)
			select {
			case <-s.c.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // out of descriptors
			}
			continue
		}
		if !s.admit(conn) {
			conn.Close()
			continue
		}
		parts.Go(func() {
			defer s.dismiss(conn)
			newRPCClient(s.c, conn).run()
		})
	}
}

func (s *rpcServer) admit(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == nil || len(s.clients) >= maxRPCClients {
		return false
	}
	s.clients[conn] = true
	return true
}

func (s *rpcServer) dismiss(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, conn)
}

// close may be called twice, and on nil.
func (s *rpcServer) close() {
	if s == nil {
		return
	}
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.clients {
		conn.Close()
	}
	s.clients = nil
}

// rpcClient is one connection. One goroutine uses it.
type rpcClient struct {
	c         *Cluster
	conn      net.Conn
	limit     *io.LimitedReader
	dec       *codec.Decoder
	out       *bufio.Writer
	enc       *codec.Encoder
	greeted   bool
	authentic bool
	wrong     int // tokens given
}

func newRPCClient(c *Cluster, conn net.Conn) *rpcClient {
	limit := &io.LimitedReader{R: conn}
	out := bufio.NewWriter(conn)
	return &rpcClient{
		c: c, conn: conn, limit: limit, out: out,
		dec: codec.NewDecoder(bufio.NewReader(limit), rpcHandle()), enc: codec.NewEncoder(out, rpcHandle()),
	}
}

func rpcHandle() *codec.MsgpackHandle {
	h := &codec.MsgpackHandle{WriteExt: true}
	h.TimeNotBuiltin = true
	return h
}

type rpcHeader struct {
	Command string
	Seq     uint64
}

type rpcResponse struct {
	Seq   uint64
	Error string
}

// run answers requests until the client goes, or breaks the protocol.
func (r *rpcClient) run() {
	for {
		r.limit.N = maxRPCRequest
		r.conn.SetReadDeadline(time.Now().Add(rpcIdle))
		var h rpcHeader
		if err := r.dec.Decode(&h); err != nil {
			return
		}
		if err := r.handle(h); err != nil {
			r.c.log.Debug("rpc", "command", h.Command, "err", err)
			return
		}
	}
}

// rpcCommand is one command.
type rpcCommand struct {
	need    rpcNeed // what a client must have done before
	handle  func(*rpcClient, uint64) error
	refused string // why the command is not obeyed; then there is no handle
	bare    bool   // the request has no body
	answers bool   // the response has one, even when it says no
}

type rpcNeed int

const (
	needNothing rpcNeed = iota
	needHandshake
	needAuth  // where a token is configured
	needToken // a token must be configured
)

var rpcCommands map[string]rpcCommand

func init() { // the handlers refer to the table
	rpcCommands = map[string]rpcCommand{
		"handshake":        {need: needNothing, handle: (*rpcClient).handshake},
		"auth":             {need: needHandshake, handle: (*rpcClient).auth},
		"members":          {need: needAuth, handle: (*rpcClient).members, bare: true, answers: true},
		"members-filtered": {need: needAuth, handle: (*rpcClient).membersFiltered, answers: true},
		"stats":            {need: needAuth, handle: (*rpcClient).stats, bare: true, answers: true},
		"query":            {need: needAuth, handle: (*rpcClient).query},
		"get-coordinate":   {need: needAuth, handle: (*rpcClient).coordinate, answers: true},
		"join":             {need: needToken, handle: (*rpcClient).join, answers: true},
		"force-leave":      {need: needToken, handle: (*rpcClient).forceLeave},
		"list-keys":        {need: needToken, handle: (*rpcClient).listKeys, bare: true, answers: true},
		"install-key":      {need: needToken, handle: keyCommand((*Cluster).InstallKey), answers: true},
		"use-key":          {need: needToken, handle: keyCommand((*Cluster).UseKey), answers: true},
		"remove-key":       {need: needToken, handle: keyCommand((*Cluster).RemoveKey), answers: true},
		"leave":            {bare: true, refused: "refused: the agent leaves when its service is stopped"},
		"event":            {refused: "refused: the agent's events are its own"},
		"tags":             {refused: "refused: the agent's tags are its own"},
		"stream":           {refused: "refused: there is no stream of events; see rackpower members --watch"},
		"monitor":          {refused: "refused: the agent's log is in the journal of its service"},
		"stop":             {refused: "refused: there is nothing to stop"},
		"respond":          {refused: "refused: the agent answers queries itself"},
	}
}

func (r *rpcClient) handle(h rpcHeader) error {
	cmd, ok := rpcCommands[h.Command]
	why := ""
	switch {
	case h.Command != "handshake" && !r.greeted:
		why = rpcNoHandshake
	case !ok:
		why = rpcUnsupported
	case cmd.need >= needAuth && r.c.cfg.RPCToken != "" && !r.authentic:
		why = rpcAuthRequired
	case cmd.need == needToken && r.c.cfg.RPCToken == "":
		why = rpcTokenRequired
	case cmd.handle == nil:
		why = cmd.refused
	default:
		return cmd.handle(r, h.Seq)
	}
	if !ok { // whether a body comes is not known
		return errors.Join(errors.New(why), r.send(rpcResponse{h.Seq, why}, nil))
	}
	if !cmd.bare {
		var ignored any
		if err := r.dec.Decode(&ignored); err != nil {
			return err
		}
	}
	return r.fail(h.Seq, why, cmd.answers)
}

// fail says no to a request that was read. Serf's tools wait for a body even then.
func (r *rpcClient) fail(seq uint64, why string, body bool) error {
	if body {
		return r.send(rpcResponse{seq, why}, map[string]any{})
	}
	return r.send(rpcResponse{seq, why}, nil)
}

// send writes a response and its body, if any.
func (r *rpcClient) send(h rpcResponse, body any) error {
	r.conn.SetWriteDeadline(time.Now().Add(rpcWrite))
	if err := r.enc.Encode(h); err != nil {
		return err
	}
	if body != nil {
		if err := r.enc.Encode(body); err != nil {
			return err
		}
	}
	return r.out.Flush()
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (r *rpcClient) handshake(seq uint64) error {
	var req struct{ Version int32 }
	if err := r.dec.Decode(&req); err != nil {
		return err
	}
	switch {
	case req.Version != 1:
		return r.fail(seq, rpcBadVersion, false)
	case r.greeted:
		return r.fail(seq, rpcTwice, false)
	}
	r.greeted = true
	return r.send(rpcResponse{Seq: seq}, nil)
}

func (r *rpcClient) auth(seq uint64) error {
	var req struct{ AuthKey string }
	if err := r.dec.Decode(&req); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(req.AuthKey), []byte(r.c.cfg.RPCToken)) != 1 {
		if r.wrong++; r.wrong >= maxRPCWrong {
			return errors.New("too many wrong tokens")
		}
		return r.fail(seq, rpcInvalidToken, false)
	}
	r.authentic = true
	return r.send(rpcResponse{Seq: seq}, nil)
}

type rpcMember struct {
	Name        string
	Addr        net.IP
	Port        uint16
	Tags        map[string]string
	Status      string
	ProtocolMin uint8
	ProtocolMax uint8
	ProtocolCur uint8
	DelegateMin uint8
	DelegateMax uint8
	DelegateCur uint8
}

type rpcFilter struct {
	Tags   map[string]string
	Status string
	Name   string
}

func (r *rpcClient) members(seq uint64) error { return r.sendMembers(seq, rpcFilter{}) }

func (r *rpcClient) membersFiltered(seq uint64) error {
	var req rpcFilter
	if err := r.dec.Decode(&req); err != nil {
		return err
	}
	return r.sendMembers(seq, req)
}

func (r *rpcClient) sendMembers(seq uint64, f rpcFilter) error {
	match, err := f.matcher()
	if err != nil {
		return r.fail(seq, err.Error(), true)
	}
	body := struct{ Members []rpcMember }{[]rpcMember{}}
	for _, m := range r.c.serf.Members() {
		if match(m) {
			body.Members = append(body.Members, rpcMember{
				m.Name, m.Addr, m.Port, m.Tags, m.Status.String(),
				m.ProtocolMin, m.ProtocolMax, m.ProtocolCur, m.DelegateMin, m.DelegateMax, m.DelegateCur,
			})
		}
	}
	return r.send(rpcResponse{Seq: seq}, body)
}

// matcher makes the test of a filter: regular expressions for whole values, empty
// ones match all.
func (f rpcFilter) matcher() (func(serf.Member) bool, error) {
	var tests []func(serf.Member) bool
	add := func(expr string, value func(serf.Member) string) error {
		re, err := regexp.Compile("^(?:" + expr + ")$")
		if err != nil {
			return fmt.Errorf("Failed to compile regex: %w", err) //nolint:staticcheck // as Serf says it
		}
		tests = append(tests, func(m serf.Member) bool { return re.MatchString(value(m)) })
		return nil
	}
	var errs []error
	for tag, expr := range f.Tags {
		errs = append(errs, add(expr, func(m serf.Member) string { return m.Tags[tag] }))
	}
	if f.Status != "" {
		errs = append(errs, add(f.Status, func(m serf.Member) string { return m.Status.String() }))
	}
	if f.Name != "" {
		errs = append(errs, add(f.Name, func(m serf.Member) string { return m.Name }))
	}
	return func(m serf.Member) bool {
		for _, test := range tests {
			if !test(m) {
				return false
			}
		}
		return true
	}, errors.Join(errs...)
}

// stats answers `serf info`.
func (r *rpcClient) stats(seq uint64) error {
	s, local := r.c.Stats(), r.c.serf.LocalMember()
	count := func(x uint64) string { return strconv.FormatUint(x, 10) }
	return r.send(rpcResponse{Seq: seq}, map[string]map[string]string{
		"agent": {"name": local.Name},
		"tags":  local.Tags,
		"serf":  r.c.serf.Stats(),
		"rackpower": {
			"announced": count(s.Announced), "received": count(s.Received), "news": count(s.News),
			"malformed": count(s.Malformed), "oversized": count(s.Oversized), "absurd": count(s.Absurd),
			"no_room": count(s.NoRoom), "exchanges": count(s.Exchanges), "exchanges_failed": count(s.ExchangesFailed),
			"exchange_bytes": count(s.ExchangeBytes), "mends": count(s.Mends), "behind": strconv.FormatBool(s.Behind),
			"foreign_key": count(s.ForeignKey), "plain": count(s.Plain), "dropped": count(s.Dropped),
		},
	})
}

// coordinate says that there are none.
func (r *rpcClient) coordinate(seq uint64) error {
	var req struct{ Node string }
	if err := r.dec.Decode(&req); err != nil {
		return err
	}
	return r.send(rpcResponse{Seq: seq}, struct{ Ok bool }{})
}

func (r *rpcClient) join(seq uint64) error {
	var req struct {
		Existing []string
		Replay   bool
	}
	if err := r.dec.Decode(&req); err != nil {
		return err
	}
	joined, failed := 0, error(nil)
	for _, addr := range req.Existing {
		if err := r.c.Join(addr); err != nil {
			failed = err
		} else {
			joined++
		}
	}
	if joined > 0 {
		failed = nil
	}
	return r.send(rpcResponse{seq, textOf(failed)}, struct{ Num int32 }{int32(joined)})
}

func (r *rpcClient) forceLeave(seq uint64) error {
	var req struct {
		Node  string
		Prune bool
	}
	if err := r.dec.Decode(&req); err != nil {
		return err
	}
	remove := r.c.serf.RemoveFailedNode
	if req.Prune {
		remove = r.c.serf.RemoveFailedNodePrune
	}
	return r.send(rpcResponse{seq, textOf(remove(req.Node))}, nil)
}

type rpcKeys struct {
	Messages map[string]string
	Keys     map[string]int
	NumNodes int
	NumErr   int
	NumResp  int
}

func (r *rpcClient) listKeys(seq uint64) error {
	report, err := r.c.Keys(r.c.ctx)
	return r.send(rpcResponse{seq, textOf(err)}, report.rpc())
}

func (k KeyReport) rpc() rpcKeys {
	keys := rpcKeys{Messages: k.Problems, Keys: map[string]int{}, NumNodes: k.Members, NumErr: len(k.Problems), NumResp: k.Answered}
	for _, info := range k.Keys {
		keys.Keys[info.Key.Reveal()] = info.Members
	}
	return keys
}

// keyCommand makes the handler of a command that changes keys, with the same
// guards as everywhere.
func keyCommand(change func(*Cluster, context.Context, Key) error) func(*rpcClient, uint64) error {
	return func(r *rpcClient, seq uint64) error {
		var req struct{ Key string }
		if err := r.dec.Decode(&req); err != nil {
			return err
		}
		key, err := ParseKey(req.Key)
		if err == nil {
			err = change(r.c, r.c.ctx, key)
		}
		return r.send(rpcResponse{seq, textOf(err)}, rpcKeys{Messages: map[string]string{}})
	}
}

type rpcQuery struct {
	FilterNodes []string
	FilterTags  map[string]string
	RequestAck  bool
	RelayFactor uint8
	Timeout     time.Duration
	Name        string
	Payload     []byte
}

type rpcRecord struct {
	Type    string
	From    string
	Payload []byte
}

// query sends a query and its answers. Serf's internal queries change keys and are
// refused, but for the ping that `serf reachability` sends; others need the token.
func (r *rpcClient) query(seq uint64) error {
	var req rpcQuery
	if err := r.dec.Decode(&req); err != nil {
		return err
	}
	switch {
	case req.Name == pingQuery:
	case strings.HasPrefix(req.Name, serf.InternalQueryPrefix):
		return r.fail(seq, "refused: this query is internal", false)
	case r.c.cfg.RPCToken == "":
		return r.fail(seq, rpcTokenRequired, false)
	}
	resp, err := r.c.serf.Query(req.Name, req.Payload, &serf.QueryParam{
		FilterNodes: req.FilterNodes, FilterTags: req.FilterTags, RequestAck: req.RequestAck,
		RelayFactor: min(req.RelayFactor, 5), Timeout: min(max(req.Timeout, 0), maxRPCQuery),
	})
	if err != nil {
		return r.send(rpcResponse{seq, err.Error()}, nil)
	}
	defer resp.Close()
	if err := r.send(rpcResponse{Seq: seq}, nil); err != nil {
		return err
	}
	return r.answers(seq, resp)
}

// answers sends what comes until the query has run out.
func (r *rpcClient) answers(seq uint64, resp *serf.QueryResponse) error {
	acks, responses := resp.AckCh(), resp.ResponseCh()
	end := time.NewTimer(time.Until(resp.Deadline()))
	defer end.Stop()
	for {
		var record rpcRecord
		select {
		case from, open := <-acks:
			if record = (rpcRecord{Type: "ack", From: from}); !open {
				acks = nil
				continue
			}
		case a, open := <-responses:
			if record = (rpcRecord{Type: "response", From: a.From, Payload: a.Payload}); !open {
				responses = nil
				continue
			}
		case <-end.C:
			return r.send(rpcResponse{Seq: seq}, rpcRecord{Type: "done"})
		case <-r.c.ctx.Done():
			return errors.New("gossip has ended")
		}
		if err := r.send(rpcResponse{Seq: seq}, record); err != nil {
			return err
		}
	}
}
