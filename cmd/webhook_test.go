package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/webhook"
)

// inbox is a receiver of events. It takes four of five.
type inbox struct {
	t *testing.T

	mu     sync.Mutex
	tries  int
	events []api.AuditEntry // as they first came
	times  map[string]int   // by id of the request
	header http.Header      // of the last one taken, and its body
	body   []byte
}

func (in *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // central was killed
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.tries++; in.tries%5 == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var e webhook.Event
	if err := json.Unmarshal(body, &e); err != nil || e.Database.CentralID == "" || r.Header.Get("Content-Type") != "application/json" {
		in.t.Errorf("%s: %v", body, err)
	}
	if in.times == nil {
		in.times = map[string]int{}
	}
	id := r.Header.Get("webhook-id")
	if in.times[id]++; in.times[id] == 1 {
		in.events = append(in.events, e.Event)
	}
	in.header, in.body = r.Header, body
}

func (in *inbox) all() []api.AuditEntry {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.events)
}

// TestEventsSurviveKillsOfCentral kills central again and again while events are sent, and compares
// what came with the audit log.
func TestEventsSurviveKillsOfCentral(t *testing.T) {
	t.Parallel()
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	in := &inbox{t: t}
	srv := httptest.NewServer(in)
	t.Cleanup(srv.Close)
	secret := filepath.Join(s.dir, "webhook.secret")
	if err := os.WriteFile(secret, []byte("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() {
		s.spawn("central", s.serve, append(s.centralArgs(), "--webhook", srv.URL, "--webhook-secret-file", secret)...)
		s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(t.Context()); return err == nil })
	}
	start()
	var specs []api.NodeSpec
	for i := range 3 {
		specs = append(specs, api.NodeSpec{Name: fmt.Sprintf("n%d", i), Rack: "r1"})
	}
	s.addNodes(specs...)
	for round := range 2 {
		for i := range 3 {
			names := []string{fmt.Sprintf("n%d", i)}
			for _, status := range []string{"READY", "BROKEN"} {
				in := api.SetStatus{Names: names, Status: "READY", Reason: fmt.Sprint(round), Confirmed: true}
				if status == "BROKEN" {
					in.Status = "BROKEN"
				}
				if _, err := s.client.SetStatus(t.Context(), in); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.kill("central") // whether they were sent or not
		start()
	}
	log, err := s.client.Audit(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	log = slices.DeleteFunc(log, func(e api.AuditEntry) bool { return e.ID < in.all()[0].ID && e.Node == "" })
	has := func(e api.AuditEntry) bool {
		return slices.ContainsFunc(in.all(), func(x api.AuditEntry) bool { return x.ID == e.ID && x.Hash == e.Hash && x.What == e.What })
	}
	s.until(60*time.Second, "all events came", func() bool {
		return !slices.ContainsFunc(log, func(e api.AuditEntry) bool { return !has(e) })
	})
	last := map[string]int64{}
	for _, e := range in.all() {
		if e.ID < last[e.Node] {
			t.Errorf("event %d of node %q came first after %d", e.ID, e.Node, last[e.Node])
		}
		last[e.Node] = e.ID
	}
	if n := len(last); n < 3 {
		t.Errorf("events of %d nodes", n)
	}
	t.Run("verified as docs/webhook.md says", func(t *testing.T) { verifyWebhook(t, in, s.dir) })
}

// verifyWebhook runs what the document says on the last event.
func verifyWebhook(t *testing.T, in *inbox, dir string) {
	text, err := os.ReadFile("../docs/webhook.md")
	if err != nil {
		t.Fatal(err)
	}
	code := func(language string) string {
		_, rest, found := strings.Cut(string(text), "```"+language+"\n")
		if !found {
			t.Fatalf("docs/webhook.md has nothing in %s", language)
		}
		code, _, _ := strings.Cut(rest, "```")
		return code
	}
	for _, tool := range []string{"python3", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: %v (Debian: %s)", err, tool)
		}
	}
	in.mu.Lock()
	header, body := in.header, in.body
	in.mu.Unlock()
	program := code("python") + `
import os, sys
body = sys.stdin.buffer.read()
headers = {name: os.environ[name.replace("-", "_")] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
secret = open("webhook.secret").read()
assert verified(secret, headers, body), "not verified"
assert not verified(secret, headers, body + b" "), "another body is verified"
assert not verified(secret, dict(headers, **{"webhook-timestamp": "1"}), body), "another time is verified"
`
	run := func(bin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(bin, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "webhook_id="+header.Get("webhook-id"), "webhook_timestamp="+header.Get("webhook-timestamp"),
			"webhook_signature="+header.Get("webhook-signature"), "id="+header.Get("webhook-id"), "timestamp="+header.Get("webhook-timestamp"),
			"body="+string(body))
		cmd.Stdin = strings.NewReader(string(body))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", bin, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("python3", "-c", program)
	if got := "v1," + run("sh", "-c", code("sh")); got != header.Get("webhook-signature") {
		t.Errorf("openssl says %s, central %s", got, header.Get("webhook-signature"))
	}
}
