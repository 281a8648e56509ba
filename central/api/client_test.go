package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestNewClientWantsAnAddress(t *testing.T) {
	for _, bad := range []string{
		"", "central", "127.0.0.1:7620", "ftp://x", "unix://", "unix://run/x.sock", "http://", "http://h/path",
		"://",
	} {
		if _, err := NewClient(bad); err == nil || !strings.Contains(err.Error(), "want unix:///path or https://host:port") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"unix:///run/x.sock", "http://127.0.0.1:7620", "https://central.example:7620/"} {
		if _, err := NewClient(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(handler)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	c, err := NewClient("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestProblemsTravel(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { Problemf(CodeBusy, "node %s is busy", "n1").Write(w) })
	_, err := c.Agents(t.Context())
	if CodeOf(err) != CodeBusy || err.Error() != "node n1 is busy" || errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

func TestAnAnswerThatIsNoProblemIsShown(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "proxy says no\n<html>", http.StatusBadGateway)
	})
	if _, err := c.Agents(t.Context()); CodeOf(err) != CodeInternal ||
		!strings.Contains(err.Error(), "502 Bad Gateway (proxy says no): what answers there is another program") {
		t.Errorf("%v", err)
	}
}

// TestNoAnswerIsUnreachable: nothing is known of what such a request did.
func TestNoAnswerIsUnreachable(t *testing.T) {
	gone, err := NewClient("unix://" + filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	broken := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte(`[{"name":`))
	})
	for name, c := range map[string]*Client{"gone": gone, "broken": broken} {
		if _, err := c.Agents(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), c.Target()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheCallersEndIsNotUnreachable(t *testing.T) {
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Agents(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnreachable) ||
		!strings.Contains(err.Error(), c.Target()+": no answer") {
		t.Errorf("%v", err)
	}
}

func TestStatusFieldsAreThePromisedOnes(t *testing.T) {
	fields := func(v any) map[string]bool {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for name := range m {
			names[name] = true
		}
		return names
	}
	node, op := fields(Node{Op: &OpBrief{}}), fields(Op{SupersededBy: "x", Joined: "y"})
	for _, f := range strings.Fields("name rack state reach observed_at stale status desired hold drift fault op") {
		if !node[f] {
			t.Errorf("status has no %s", f)
		}
	}
	for _, f := range strings.Fields("id node action seq asked_by origin reason asked_at started_at ended_at outcome detail already " +
		"superseded_by joined attempts") {
		if !op[f] {
			t.Errorf("ops has no %s", f)
		}
	}
}

// TestAClientWaitsAndAsksAgain: what was refused because there was too much is sent again
// after the time that the server says; who waits is told once.
func TestAClientWaitsAndAsksAgain(t *testing.T) {
	var asked atomic.Int64
	full := func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			TooMany(0, "too many").Write(w)
			return
		}
		Problemf(CodeBusy, "reached").Write(w)
	}
	c := serve(t, full)
	p, told := DefaultPatience(), 0
	p.Refused = func(why *Problem, pause time.Duration) {
		told++
		if why.RetryAfter != time.Second || pause < time.Second || pause > 2*time.Second || why.Error() != "too many: ask again later" {
			t.Errorf("%+v, %s", why, pause)
		}
	}
	c.SetPatience(p)
	_, err := c.Agents(t.Context())
	if CodeOf(err) != CodeBusy || told != 1 || asked.Load() != 3 {
		t.Errorf("%v, told %d times, asked %d times", err, told, asked.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	asked.Store(0)
	if _, err = c.Agents(ctx); CodeOf(err) != CodeTooMany || asked.Load() != 1 {
		t.Errorf("with no time for another try: %v, asked %d times", err, asked.Load())
	}
	p.TooMany = 0
	c.SetPatience(p)
	asked.Store(0)
	if _, err = c.Agents(t.Context()); CodeOf(err) != CodeTooMany || asked.Load() != 1 {
		t.Errorf("without patience: %v, asked %d times", err, asked.Load())
	}
}

// TestAnotherNameOfCentralIsAsked where one takes connections and says nothing, as a machine that is lost does.
func TestAnotherNameOfCentralIsAsked(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	answers := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { Problemf(CodeBusy, "reached").Write(w) }))
	defer answers.Close()
	c, err := NewClient("https://" + silent.Addr().String() + "," + answers.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Secure(answers.Client().Transport.(*http.Transport).TLSClientConfig, "")
	p := DefaultPatience()
	p.Say, p.GiveUp = 10*time.Millisecond, 50*time.Millisecond
	c.SetPatience(p)
	if _, err := c.Agents(t.Context()); !errors.Is(err, ErrSilent) {
		t.Errorf("the first request: %v", err)
	}
	p.GiveUp = time.Minute
	c.SetPatience(p)
	if _, err := c.Agents(t.Context()); CodeOf(err) != CodeBusy {
		t.Errorf("the next one: %v", err)
	}
}

// A connection that was made before there was a certificate never gets one: after central did
// not know who asks, the next request makes another.
func TestWhoWasNotKnownConnectsAnew(t *testing.T) {
	var connections, asked atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			Problemf(CodeLogin, "who asks is not known").Write(w)
			return
		}
		_, _ = w.Write([]byte("{}"))
	}))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c, err := NewClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.Secure(srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), "")
	for i, want := range []int32{1, 2, 2} {
		_, err := c.Info(t.Context())
		if known := err == nil; known != (i > 0) || connections.Load() != want {
			t.Errorf("request %d: %v, on %d connections, want %d", i+1, err, connections.Load(), want)
		}
	}
}
