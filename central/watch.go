package central

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/store"
	"rackpower/power/noderange"
)

// Bounds of a stream of events.
const (
	watchPage  = 500 // entries, and nodes, at a time
	watchWrite = 30 * time.Second
	// watchRetry is what a client is told to wait before it comes back.
	watchRetry = 2 * time.Second
	// A stream for some of the nodes looks through all of them each time: it rests at least for
	// watchRest, and for restFactor times as long as it was at work.
	watchRest  = 200 * time.Millisecond
	restFactor = 10
)

// position is how far a stream has come. Its text is the id of an event.
type position struct {
	database string // that the entry is of
	run      string // of the process that counted node
	node     int64  // number of a change in the feed
	audit    int64  // id of an entry
}

func (p position) String() string {
	return fmt.Sprintf("%s.%s.%d.%d", p.database, p.run, p.node, p.audit)
}

func readPosition(text string) (p position, err error) {
	part := strings.Split(text, ".")
	if len(part) == 4 {
		p.database, p.run = part[0], part[1]
		if p.node, err = strconv.ParseInt(part[2], 10, 64); err == nil {
			p.audit, err = strconv.ParseInt(part[3], 10, 64)
		}
	}
	if len(part) != 4 || err != nil || p.node < 0 || p.audit < 0 {
		return p, api.Problemf(api.CodeBadRequest, "%.100q is no id of an event", text)
	}
	return p, nil
}

// here is where a stream that begins now begins. The entries are looked at last: a node may
// come once more than it must.
func (c *Central) here(tx *store.Tx) (p position, err error) {
	db := c.store.Database()
	p.database = db.CentralID[strings.LastIndex(db.CentralID, "-")+1:] + strconv.FormatInt(db.Incarnation, 36)
	p.run = c.feed.run
	p.node, _ = c.feed.now()
	p.audit, err = tx.LastAudit()
	return p, err
}

// stream is one watch.
type stream struct {
	c     *Central
	expr  string
	audit bool
	nodes bool
	at    position
	// selected are the nodes that were selected when they were looked at last; nil: all, or
	// they have not been. resumed says that a stream before this one may have had others.
	selected map[string]bool
	resumed  bool
	out      bytes.Buffer
}

func readWatch(c *Central, r *http.Request) (s *stream, err error) {
	q := r.URL.Query()
	s = &stream{c: c, expr: cmp.Or(q.Get("nodes"), "all")}
	for kind := range strings.SplitSeq(cmp.Or(q.Get("kinds"), "audit,node"), ",") {
		switch kind {
		case api.EventAudit:
			s.audit = true
		case api.EventNode:
			s.nodes = true
		default:
			return nil, api.Problemf(api.CodeBadRequest, "kinds %.100q: want %s or %s", kind, api.EventAudit, api.EventNode)
		}
	}
	if after := cmp.Or(r.Header.Get("Last-Event-ID"), q.Get("after")); after != "" {
		s.at, err = readPosition(after)
		s.resumed = err == nil
	}
	return s, err
}

// watch answers with a stream of server-sent events. Each round reads what is new behind the
// position and sends it; nothing is queued for who is slow.
func (c *Central) watch(w http.ResponseWriter, r *http.Request) {
	s, err := readWatch(c, r)
	if err == nil {
		err = s.begin(r.Context())
	}
	var resume func() error
	if err == nil {
		resume, err = idle(r.Context()) // while there is an answer to refuse with
	}
	if err != nil {
		c.answerTo(w, r, nil, ended(r, err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy in between must not collect them
	w.WriteHeader(http.StatusOK)
	if err := s.run(w, r, resume); err != nil {
		c.log.Debug("watch ended", "who", httpserver.Principal(r).Name, "err", err)
	}
}

// begin checks what is asked for, and where to go on.
func (s *stream) begin(ctx context.Context) error {
	fmt.Fprintf(&s.out, "retry: %d\n\n", watchRetry.Milliseconds())
	return s.c.store.View(ctx, func(tx *store.Tx) error {
		if _, err := auditNames(tx, s.expr); err != nil {
			return err // of names that there never were; later on they may go
		}
		now, err := s.c.here(tx)
		if err != nil {
			return err
		}
		if !s.resumed {
			s.at = now
			s.event(api.EventReady, api.Notice{})
		} else if err := s.check(tx, now); err != nil {
			return err
		}
		if !s.resumed {
			s.selected, err = s.choose(tx, nil)
		}
		return err
	})
}

// check looks whether what follows the position is there, and goes on from now where it is not.
func (s *stream) check(tx *store.Tx, now position) error {
	first, err := tx.FirstAudit()
	if err != nil {
		return err
	}
	why := ""
	switch {
	case s.at.database != now.database:
		why = "the database is another, or was restored"
	case s.at.audit > now.audit:
		why = "the audit log does not go so far"
	case s.audit && s.at.audit < first-1:
		why = "what followed in the audit log was deleted since"
	}
	if why != "" {
		s.at, s.resumed = now, false
		s.event(api.EventReady, api.Notice{})
		s.event(api.EventReset, api.Notice{Why: why})
		return nil
	}
	again := s.at.run != now.run
	if again {
		s.at.run, s.at.node = now.run, now.node
	}
	s.event(api.EventReady, api.Notice{})
	if again {
		s.resync("central was started anew")
	}
	return nil
}

// resync says that changes of nodes were missed.
func (s *stream) resync(why string) {
	s.resumed = false
	if s.nodes {
		s.event(api.EventResync, api.Notice{Why: why})
	}
}

// run sends until the stream ends, which central says by ending it well.
func (s *stream) run(w http.ResponseWriter, r *http.Request, resume func() error) error {
	ctx, until := r.Context(), httpserver.Principal(r).Until
	life, beat := time.NewTimer(api.WatchLife), time.NewTicker(api.WatchBeat)
	defer life.Stop()
	defer beat.Stop()
	for {
		if err := s.send(w); err != nil {
			return err
		}
		if !until.IsZero() && !s.c.cfg.Now().Before(until) {
			return nil // it comes back, and is told why not
		}
		_, changes := s.c.feed.now()
		_, entries := s.c.audited.look()
		if err := resume(); err != nil {
			return err
		}
		began := time.Now()
		more, err := s.round(ctx)
		if err != nil {
			return err
		}
		pause := s.rest(time.Since(began))
		if resume, err = idle(ctx); err != nil {
			return err
		}
		if s.out.Len() > 0 || more {
			changes = closed // nothing is waited for but the others' turn
			if err := s.send(w); err != nil {
				return err
			}
		}
		select {
		case <-changes:
		case <-entries:
		case <-beat.C:
			s.event("", nil) // the position moves on where nothing is selected
			continue
		case <-life.C:
			return nil
		case <-s.c.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(pause):
		case <-s.c.stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// closed is a channel that is closed.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// rest is how long a stream rests after a round that took so long.
func (s *stream) rest(took time.Duration) time.Duration {
	if s.selected == nil {
		return queryPause
	}
	return max(watchRest, restFactor*took)
}

// send sends what there is. Who does not take it in time is cut off, and comes back.
func (s *stream) send(w http.ResponseWriter) error {
	if s.out.Len() == 0 {
		return nil
	}
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(watchWrite)) // not every writer has deadlines
	_, err := w.Write(s.out.Bytes())
	s.out.Reset()
	return errors.Join(err, rc.Flush())
}

// round reads what is new behind the position, a page of it; more says that there is more.
func (s *stream) round(ctx context.Context) (more bool, err error) {
	var moved []nodeChange
	upTo := s.at.node
	if s.nodes { // before the snapshot, which has all of them then
		var known bool
		if moved, upTo, known = s.c.feed.since(s.at.node, watchPage); !known {
			s.at.node = upTo
			s.resync("more nodes changed than are remembered")
		}
	}
	err = s.c.store.View(ctx, func(tx *store.Tx) error {
		var entries []api.AuditEntry
		if s.audit {
			if entries, err = tx.AuditAfter(store.AuditFilter{}, s.at.audit, watchPage); err != nil {
				return err
			}
		}
		more = len(entries) == watchPage || len(moved) == watchPage
		if len(entries)+len(moved) == 0 {
			return nil
		}
		in, err := s.choose(tx, entries)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if s.at.audit = e.ID; in == nil || in[e.Node] {
				s.event(api.EventAudit, e)
			}
		}
		if err := s.moved(tx, in, moved); err != nil {
			return err
		}
		s.selected, s.at.node = in, upTo
		return nil
	})
	return more, err
}

// choose finds the nodes that are selected now, among them those that the entries speak of and
// that are no more; nil: all.
func (s *stream) choose(tx *store.Tx, entries []api.AuditEntry) (map[string]bool, error) {
	scope := tx.Asker().Scope
	if s.expr == "all" && scope == "" {
		return nil, nil
	}
	from := tx.Selection()
	if scope != "" {
		in, err := scopeOf(scope, from)
		if err != nil {
			return nil, err
		}
		from = noderange.Within(from, in)
	} else {
		var gone []string
		for _, e := range entries {
			if e.Node != "" {
				gone = append(gone, e.Node)
			}
		}
		from = noderange.Also(from, gone)
	}
	return scopeOf(s.expr, from)
}

// moved tells of nodes that changed. Of one that was selected and is not any more it has the
// name only; what another stream had before is not known.
func (s *stream) moved(tx *store.Tx, in map[string]bool, moved []nodeChange) error {
	var names []string
	for _, m := range moved {
		if in == nil || in[m.node] {
			names = append(names, m.node)
		} else if s.resumed && s.selected == nil {
			s.resync("nodes may have left the selection")
		}
	}
	nodes, err := tx.NodesNamed(names)
	if err != nil {
		return err
	}
	open, err := tx.OpenOpsOn(names)
	if err != nil {
		return err
	}
	shown := make(map[string]api.Node, len(nodes))
	for _, n := range s.c.showNodes(nodes, open) {
		shown[n.Name] = n
	}
	for _, m := range moved {
		s.at.node = m.n
		if n, there := shown[m.node]; there {
			s.event(api.EventNode, n)
		} else if in == nil || in[m.node] || s.selected[m.node] {
			s.event(api.EventRemoved, api.Notice{Name: m.node})
		}
	}
	return nil
}

// event adds an event; without a kind only the position, in a comment.
func (s *stream) event(kind string, data any) {
	fmt.Fprintf(&s.out, "id: %s\n", s.at)
	if kind == "" {
		s.out.WriteString(": beat\n\n")
		return
	}
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // plain fields, no cycles
	}
	fmt.Fprintf(&s.out, "event: %s\ndata: %s\n\n", kind, text)
}
