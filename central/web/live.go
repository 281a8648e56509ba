package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// How a page is kept up to date.
const (
	liveGather = 200 * time.Millisecond // changes of so long are sent together
	liveBeat   = time.Second            // something is sent so often at least
	liveWrite  = 15 * time.Second       // that a browser may take to take it
)

// Kinds of events of GET /ui/live.
const (
	liveCells  = "cells"  // squares of nodes that changed: class, mark and words by the name
	liveNews   = "news"   // something changed that the page shows: it is read again
	liveCounts = "counts" // the numbers of the menu
	liveReload = "reload" // changes were missed: all is read again
	liveBeats  = "beat"
)

// stream is a page that is open and live. It follows GET /v1/watch with the rights of its
// session, and resumes with the id of the last event that the browser had.
type stream struct {
	v          *visit
	cells      bool   // send squares
	rack, node string // what the page shows; both "": the site
	id         string // of the last event of the watch
	pending    map[string]*cell
	news       bool

	dirty     bool // something happened since counted was sent
	countNext time.Time
	counted   *counts // nil: none were sent yet
}

// live sends what changes until the browser goes, the session ends, or central ends the watch:
// the browser comes back by itself.
func (p *Page) live(v *visit) error {
	q := v.r.URL.Query()
	s := &stream{
		v: v, cells: q.Get("kind") == "cells", rack: q.Get("rack"), node: q.Get("node"), id: v.r.Header.Get("Last-Event-ID"),
		pending: map[string]*cell{},
	}
	ctx, cancel := context.WithCancel(v.r.Context())
	defer cancel()
	events, ended := make(chan api.Event), make(chan error, 1)
	go func() {
		ended <- v.api.Watch(ctx, api.Watch{After: s.id}, func(e api.Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	begun, over := false, false
	gather, beat := time.NewTicker(liveGather), time.NewTicker(liveBeat)
	defer gather.Stop()
	defer beat.Stop()
	for !over {
		var err error
		select {
		case e := <-events:
			if !begun {
				begun = true
				s.begin()
			}
			err = s.take(ctx, e)
		case <-gather.C:
			err = s.flush()
		case <-beat.C:
			if begun {
				err = errors.Join(s.beat(), s.count())
			}
		case err = <-ended:
			if over = true; !begun {
				return err // in words: nothing was sent yet
			}
		}
		if err != nil {
			break
		}
	}
	if !over {
		cancel()
		<-ended
	}
	return nil
}

var errSessionOver = errors.New("the session is over")

func (s *stream) begin() {
	h := s.v.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy in between must not collect them
	s.v.w.WriteHeader(http.StatusOK)
}

// take notes what an event of the watch means for the page.
func (s *stream) take(ctx context.Context, e api.Event) error {
	resumed := s.id != ""
	s.id, s.dirty = e.ID, true
	switch e.Kind {
	case api.EventReady:
		if resumed {
			return nil
		}
		// What changed between the page and now is in neither.
		s.news = true
		if s.cells {
			return s.all(ctx)
		}
	case api.EventResync, api.EventReset:
		return s.send(liveReload, struct{}{})
	case api.EventNode:
		n := e.Node
		if s.cells {
			c := cellOf(n)
			s.pending[n.Name] = &c
		} else if s.node == "" || s.node == n.Name {
			s.news = s.news || s.rack == "" || s.rack == n.Agent || s.rack == n.Rack
		}
	case api.EventRemoved:
		if s.cells {
			s.pending[e.Gone] = nil
		} else {
			s.news = true
		}
	case api.EventAudit:
		s.news = s.news || e.Entry.Node == "" || s.node == e.Entry.Node || s.node == "" && s.rack == ""
	}
	return nil
}

// all has the squares of all nodes sent.
func (s *stream) all(ctx context.Context) error {
	nodes, err := s.v.api.Nodes(ctx, "all")
	if err != nil && api.CodeOf(err) != api.CodeNotFound {
		return err
	}
	for i := range nodes {
		c := cellOf(nodes[i])
		s.pending[nodes[i].Name] = &c
	}
	return nil
}

func (s *stream) flush() error {
	if len(s.pending) > 0 {
		out := make(map[string][]string, len(s.pending))
		for name, c := range s.pending {
			out[name] = nil // it is gone
			if c != nil {
				out[name] = []string{c.class, c.mark, c.words}
			}
		}
		clear(s.pending)
		if err := s.send(liveCells, out); err != nil {
			return err
		}
	}
	if !s.news {
		return nil
	}
	s.news = false
	return s.send(liveNews, struct{}{})
}

func (s *stream) beat() error {
	if !s.v.p.sessions.inUse(s.v.s) {
		_ = s.send(liveReload, struct{}{}) // to the log-in
		return errSessionOver
	}
	return s.send(liveBeats, map[string]string{"at": power.At(s.v.p.cfg.Now())})
}

// send sends an event. Its id is that of the last event of the watch that went into it, so one
// that is sent while others are gathered has none.
func (s *stream) send(kind string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	rc := http.NewResponseController(s.v.w)
	_ = rc.SetWriteDeadline(time.Now().Add(liveWrite))
	id := ""
	if len(s.pending) == 0 && !s.news && s.id != "" {
		id = "id: " + s.id + "\n"
	}
	if _, err := fmt.Fprintf(s.v.w, "%sevent: %s\ndata: %s\n\n", id, kind, text); err != nil {
		return err
	}
	return rc.Flush()
}
