package central

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"rackpower/power"
)

// TestAnAgentFromBeforeTheProtocolNumber plays what such an agent sends, byte for byte but
// for the session, from its hello to the end of an operation.
func TestAnAgentFromBeforeTheProtocolNumber(t *testing.T) {
	s := newSite(t)
	s.nodes("n1")
	socket := strings.TrimPrefix(s.Target(), "unix://")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	says := func(verb, body string) map[string]any {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://central/v1/agents/r1/"+verb, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		var out map[string]any
		if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(text, &out) != nil {
			t.Fatalf("%s: %d %s, %v", verb, resp.StatusCode, text, err)
		}
		return out
	}
	w := says("hello", `{"version":"2026.11","journal_id":"j1","epoch":1,"lsn":4,"outstanding":[],"seq":0,"host":"r1/7","run":"a","nth":1}`)
	session, _ := w["session"].(string)
	if session == "" || w["central_id"] == "" || w["protocol"] != 1.0 {
		t.Fatalf("%v", w)
	}
	asked := s.ask("n1", power.ActOn)
	got := says("poll", `{"session":"`+session+`","rev":0,"ops":0,"seq":0,"wait":0}`)
	nodes, _ := got["nodes"].([]any)
	ops, _ := got["ops"].([]any)
	if len(nodes) != 1 || len(ops) != 1 {
		t.Fatalf("%v", got)
	}
	op, err := json.Marshal(ops[0])
	if err != nil {
		t.Fatal(err)
	}
	says("report", `{"session":"`+session+`","journal_id":"j1","epoch":1,"lsn":6,"ops":[{"op":`+string(op)+
		`,"lsn":6,"verdict":"start","phase":"ended","attempts":1,"end":{"outcome":"succeeded","reason":"verified","at":"2026-11-26T12:00:00Z"}}]}`)
	if end := s.op(asked.ID); end.Outcome != power.Succeeded {
		t.Errorf("%+v", end)
	}
	says("goodbye", `{"session":"`+session+`"}`)
}
