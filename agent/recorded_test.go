package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/powertest"
)

// olderCentral answers from what a central of protocol 0 once answered, see
// central/api/testdata.
type olderCentral struct {
	hello string

	mu    sync.Mutex
	polls []recordedPoll
	ended map[string]power.Outcome // operations, by what was reported now
	news  chan struct{}            // closed when ended grows
	asked map[string]bool          // fields of requests of then that are missing now, "report.ops.end"
}

// recordedPoll is an answer, and the operations of central that had ended before.
type recordedPoll struct {
	answer string
	after  []string
}

var recordedTime = regexp.MustCompile(`"20\d\d-\d\d-\d\dT[0-9:.]+Z"`)

// fieldsOf names all fields of a value: "report.ops.end".
func fieldsOf(v any, at string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			into[at+"."+key] = true
			fieldsOf(value, at+"."+key, into)
		}
	case []any:
		for _, value := range v {
			fieldsOf(value, at, into)
		}
	}
}

// newOlderCentral reads the recording. What it says of times is as far from now as it was then.
func newOlderCentral(t *testing.T, file string) *olderCentral {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var began time.Time
	now := time.Now()
	shift := func(text string) string {
		return recordedTime.ReplaceAllStringFunc(text, func(quoted string) string {
			at, err := time.Parse(time.RFC3339Nano, strings.Trim(quoted, `"`))
			if err != nil {
				return quoted
			}
			return fmt.Sprintf("%q", at.Add(now.Sub(began)).UTC().Format(time.RFC3339Nano))
		})
	}
	c := &olderCentral{ended: map[string]power.Outcome{}, news: make(chan struct{}), asked: map[string]bool{}}
	var ended []string
	for line := range bytes.Lines(text) {
		var e struct {
			Path     string          `json:"path"`
			Request  json.RawMessage `json:"request"`
			Response json.RawMessage `json:"response"`
		}
		var request any
		if json.Unmarshal(line, &e) != nil || json.Unmarshal(e.Request, &request) != nil {
			t.Fatalf("%s", line)
		}
		verb := e.Path[strings.LastIndex(e.Path, "/")+1:]
		fieldsOf(request, verb, c.asked)
		switch verb {
		case "hello":
			var in api.Hello
			if err := json.Unmarshal(e.Request, &in); err != nil {
				t.Fatal(err)
			}
			began, c.hello = in.SentAt, string(e.Response)
		case "poll":
			c.polls = append(c.polls, recordedPoll{shift(string(e.Response)), ended})
		case "report":
			var in api.Report
			if err := json.Unmarshal(e.Request, &in); err != nil {
				t.Fatal(err)
			}
			for _, o := range in.Ops {
				if o.End != nil && o.Op.Origin == power.FromCentral {
					ended = append(ended[:len(ended):len(ended)], o.Op.ID)
				}
			}
		}
	}
	return c
}

// serve answers an agent at a socket.
func (c *olderCentral) serve(t *testing.T) *api.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := &httptest.Server{Listener: l, Config: &http.Server{
		Handler: c, BaseContext: func(net.Listener) context.Context { return ctx },
	}}
	server.Start()
	client, err := api.NewClient("unix://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); cancel(); server.Close() })
	return client
}

func (c *olderCentral) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	verb := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	var raw json.RawMessage
	var request any
	if json.NewDecoder(r.Body).Decode(&raw) != nil || json.Unmarshal(raw, &request) != nil {
		http.Error(w, "no JSON", http.StatusBadRequest)
		return
	}
	answer := "{}"
	switch c.heard(verb, request); verb {
	case "hello":
		answer = c.hello
	case "poll":
		answer = c.poll(r.Context())
	case "report":
		var in api.Report
		if json.Unmarshal(raw, &in) == nil {
			c.reported(in)
		}
		answer = `{"seq":"0"}`
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, answer)
}

// heard crosses off the fields that a request of now has as well.
func (c *olderCentral) heard(verb string, request any) {
	has := map[string]bool{}
	fieldsOf(request, verb, has)
	c.mu.Lock()
	defer c.mu.Unlock()
	for field := range has {
		delete(c.asked, field)
	}
}

// poll answers with the next answer once what had ended before it then has ended now.
func (c *olderCentral) poll(ctx context.Context) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		waits := len(c.polls) == 0
		for i := 0; !waits && i < len(c.polls[0].after); i++ {
			waits = c.ended[c.polls[0].after[i]] == ""
		}
		if !waits {
			next := c.polls[0]
			c.polls = c.polls[1:]
			return next.answer
		}
		news := c.news
		c.mu.Unlock()
		select {
		case <-news:
			c.mu.Lock()
		case <-ctx.Done():
			c.mu.Lock()
			return "{}"
		}
	}
}

func (c *olderCentral) reported(in api.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range in.Ops {
		if o.End != nil {
			c.ended[o.Op.ID] = o.End.Outcome
		}
	}
	close(c.news)
	c.news = make(chan struct{})
}

// TestAnOlderCentralFromItsRecording has this agent work for a central of protocol 0, by what
// that once answered: it carries all out, and tells in the words of then.
func TestAnOlderCentralFromItsRecording(t *testing.T) {
	c := newOlderCentral(t, "../central/api/testdata/exchanges-80a960f.jsonl")
	fake := powertest.NewFake()
	a, err := New(Config{
		Name: "r1", Dir: t.TempDir(), Dial: fake.Dial, Central: c.serve(t), Monitor: "@every 1h", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, nil) }()
	defer func() {
		if c.mu.Lock(); t.Failed() {
			t.Logf("ended: %v; an agent of then told of %v, which this one does not; %d polls to answer", c.ended, c.asked, len(c.polls))
		}
		c.mu.Unlock()
	}()
	eventually(t, "all is carried out and reported, and nothing is missing", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.polls) == 0 && len(c.ended) == 3 && len(c.asked) == 1 // goodbye
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if len(c.asked) > 0 {
		t.Errorf("it ended without a goodbye")
	}
	var commands []string
	for _, e := range fake.Log() {
		commands = append(commands, fmt.Sprintf("%s %s", e.BMC, e.Command))
	}
	counts := map[string]int{}
	for _, command := range commands {
		counts[command]++
	}
	if len(commands) != 3 || counts["127.0.42.1:6723 power-on"] != 1 || counts["127.0.42.1:6723 power-off"] != 1 ||
		counts["127.0.42.1:6724 power-on"] != 1 {
		t.Errorf("%q", commands)
	}
	for id, outcome := range c.ended {
		if outcome != power.Succeeded {
			t.Errorf("%s: %s", id, outcome)
		}
	}
}
