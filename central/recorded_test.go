package central

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// exchange is a line of central/api/testdata: what an agent said, and what central answered.
type exchange struct {
	Path     string          `json:"path"`
	Request  json.RawMessage `json:"request"`
	Status   int             `json:"status"`
	Response json.RawMessage `json:"response"`
}

func recorded(t *testing.T, file string) (all []exchange) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var e exchange
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// missing lists what the old value has and the new one has not, or has as another type.
func missingFrom(old, now any, at string) (all []string) {
	switch old := old.(type) {
	case map[string]any:
		next, ok := now.(map[string]any)
		if !ok {
			return []string{at}
		}
		for key, value := range old {
			if _, ok := next[key]; !ok {
				all = append(all, at+"."+key)
				continue
			}
			all = append(all, missingFrom(value, next[key], at+"."+key)...)
		}
	case []any:
		next, ok := now.([]any)
		if !ok || len(next) < len(old) {
			return []string{at}
		}
		for i := range old {
			all = append(all, missingFrom(old[i], next[i], fmt.Sprintf("%s[%d]", at, i))...)
		}
	default:
		if fmt.Sprintf("%T", old) != fmt.Sprintf("%T", now) {
			return []string{at}
		}
	}
	slices.Sort(all)
	return all
}

// TestAnOlderAgentFromItsRecording plays an agent of protocol 0 from what it once said. It is
// answered with all that it was answered with then, and what it reports has its effect.
func TestAnOlderAgentFromItsRecording(t *testing.T) {
	s := newSite(t)
	socket := strings.TrimPrefix(s.Target(), "unix://")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	says := func(path, body string) (text []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://central"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if text, err = io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, resp.StatusCode, text, err)
		}
		return text
	}
	var was, is []string // what central named then and names now
	rename := func(old, now string) {
		if old != "" && old != "0" && old != now {
			was, is = append(was, old), append(is, now)
		}
	}
	var asked []string
	for i, e := range recorded(t, "api/testdata/exchanges-80a960f.jsonl") {
		var then struct { // what is common to Welcome and Assignment
			api.Assignment
			Session   string `json:"session"`
			CentralID string `json:"central_id"`
		}
		if err := json.Unmarshal(e.Response, &then); err != nil {
			t.Fatal(err)
		}
		s.later(time.Second)
		asked = append(asked, s.repeat(then.Assignment)...)
		pairs := []string{}
		for k := range was {
			pairs = append(pairs, was[k], is[k])
		}
		got := says(e.Path, strings.NewReplacer(pairs...).Replace(string(e.Request)))
		now := then
		now.Assignment, now.Session, now.CentralID = api.Assignment{}, "", ""
		var old, next any
		if json.Unmarshal(got, &now) != nil || json.Unmarshal(got, &next) != nil || json.Unmarshal(e.Response, &old) != nil {
			t.Fatalf("%s", got)
		}
		if lacks := missingFrom(old, next, strings.TrimPrefix(e.Path, "/v1/agents/r1/")); len(lacks) > 0 {
			t.Errorf("exchange %d: the answer lacks %v, which an older agent reads:\nthen %s\nnow  %s", i+1, lacks, e.Response, got)
		}
		rename(then.Session, now.Session)
		rename(then.CentralID, now.CentralID)
		for k, op := range then.Ops {
			if k < len(now.Ops) && now.Ops[k].ID == op.ID {
				rename(fmt.Sprint(uint64(op.Seq)), fmt.Sprint(uint64(now.Ops[k].Seq)))
			}
		}
	}
	if len(asked) != 2 {
		t.Fatalf("asked for %v", asked)
	}
	for _, id := range asked {
		if o := s.op(id); o.Outcome != power.Succeeded || o.Attempts != 1 {
			t.Errorf("%+v", o)
		}
	}
	found, err := s.QueryOps(t.Context(), api.QueryOps{Nodes: []string{"n2"}})
	if err != nil || len(found.Ops) != 1 || found.Ops[0].AskedBy != "monitor" || found.Ops[0].Outcome != power.Succeeded {
		t.Errorf("what the monitor did: %+v, %v", found, err)
	}
	if n := s.node("n2"); n.State != power.On || n.Hold == nil {
		t.Errorf("%+v", n)
	}
	if a := s.agent("r1"); len(a.Alarms) > 0 {
		t.Errorf("%+v", a)
	}
}

// repeat has people do what an assignment of then came from.
func (s *site) repeat(a api.Assignment) (asked []string) {
	s.t.Helper()
	for _, n := range a.Nodes {
		if a.Full {
			if _, err := s.AddNodes(s.t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{
				Name: n.Name, Rack: "r1", BMC: n.BMC, Password: n.Password, Domain: n.Domain,
			}}}); err != nil {
				s.t.Fatal(err)
			}
		}
		if n.Hold.Want != "" {
			if _, err := s.SetHold(s.t.Context(), api.SetHold{
				Names: []string{n.Name}, Want: n.Hold.Want, Reason: n.Hold.Reason, Confirmed: n.Hold.Confirmed,
			}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	for _, op := range a.Ops {
		asked = append(asked, s.ask(op.Node, op.Action, func(r *api.OpRequest) { r.ID, r.Reason = op.ID, op.Reason }).ID)
	}
	return asked
}

// TestTheWelcomeNamesTheProtocol: an agent of any age is told central's.
func TestTheWelcomeNamesTheProtocol(t *testing.T) {
	s := newSite(t)
	w, err := s.Hello(t.Context(), "r1", api.Hello{Version: "test", JournalID: "j", Epoch: 1})
	if err != nil || w.Protocol != api.Protocol || api.Protocol < 1 {
		t.Errorf("%+v, %v", w, err)
	}
}
