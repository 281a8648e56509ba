package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Kinds of events of GET /v1/watch. The names are those of the stream.
const (
	// EventReady comes first: what happens from then on follows. Who keeps a copy of the lists
	// reads them after it.
	EventReady = "ready"
	// EventAudit has an entry of the audit log.
	EventAudit = "audit"
	// EventNode has a node as it is now, in place of what was known of it. Changes that
	// follow one another quickly come as one.
	EventNode = "node"
	// EventRemoved has the name of a node that is no more, or is not selected any more.
	EventRemoved = "removed"
	// EventResync says that changes of nodes were missed: read the nodes again. The audit log
	// goes on without a gap.
	EventResync = "resync"
	// EventReset says that the stream does not go on from where it was to: read all again.
	EventReset = "reset"
)

// Event is an event of GET /v1/watch.
type Event struct {
	ID    string // to go on behind it; opaque
	Kind  string
	Entry AuditEntry // of EventAudit
	Node  Node       // of EventNode
	Gone  string     // of EventRemoved: the name
	Why   string     // of EventResync and EventReset
}

// Notice is the data of the events that are no entry and no node.
type Notice struct {
	Name string `json:"name,omitempty"` // of EventRemoved
	Why  string `json:"why,omitempty"`  // of EventResync and EventReset
}

// Watch says what to watch.
type Watch struct {
	Nodes string   // NODES; "" for all, and what concerns no node
	Kinds []string // EventAudit, EventNode; none: both
	After string   // the ID of the last event that was read; "": from now on
}

// How a stream of events is kept alive.
const (
	// WatchBeat is how often central sends something at least.
	WatchBeat = 5 * time.Second
	// WatchLife is when central ends a stream at the latest. The client goes on with another:
	// who asks is looked at again.
	WatchLife = 10 * time.Minute
)

// Watch calls f for each event until f or ctx ends it, or the stream ends: nil is an end by
// central, as happens to each after a while. To go on, set After to the ID of the last event.
func (c *Client) Watch(ctx context.Context, in Watch, f func(Event) error) error {
	q := url.Values{}
	for key, value := range map[string]string{"nodes": in.Nodes, "after": in.After, "kinds": strings.Join(in.Kinds, ",")} {
		if value != "" {
			q.Set(key, value)
		}
	}
	watched, watch := c.watch(ctx, WatchLife+WatchBeat, max(c.patience.Say, 2*WatchBeat))
	defer watch.stop()
	resp, err := c.send(watched, http.MethodGet, "/v1/watch?"+q.Encode(), nil)
	if err != nil {
		return c.unreachable(watched, ctx, err)
	}
	watch.life.Store(true)
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return problemOf(resp, watch)
	}
	c.silent.Store(false)
	err = readEvents(watch.body(resp.Body), f)
	var cut *cutOff
	if errors.As(err, &cut) {
		return c.unreachable(watched, ctx, cut.err)
	}
	return err
}

// cutOff is the error of a stream that ended without its end.
type cutOff struct{ err error }

// Error is error's.
func (c *cutOff) Error() string { return c.err.Error() }

// maxEvent bounds an event, in bytes.
const maxEvent = 1 << 20

// readEvents reads a stream of server-sent events.
func readEvents(r io.Reader, f func(Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	id, kind, data := "", "", ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			if data != "" {
				ev, err := eventOf(id, kind, data)
				if err == nil {
					err = f(ev)
				}
				if err != nil {
					return err
				}
			}
			kind, data = "", ""
		case field == "id":
			id = value
		case field == "event":
			kind = value
		case field == "data":
			data += value
		}
	}
	if err := lines.Err(); err != nil {
		return &cutOff{err}
	}
	return nil
}

func eventOf(id, kind, data string) (ev Event, err error) {
	ev = Event{ID: id, Kind: kind}
	var n Notice
	switch kind {
	case EventAudit:
		err = json.Unmarshal([]byte(data), &ev.Entry)
	case EventNode:
		err = json.Unmarshal([]byte(data), &ev.Node)
	default: // kinds to come are told as well
		err = json.Unmarshal([]byte(data), &n)
		ev.Gone, ev.Why = n.Name, n.Why
	}
	if err != nil {
		return ev, fmt.Errorf("cannot read event %s: %w", kind, err)
	}
	return ev, nil
}
