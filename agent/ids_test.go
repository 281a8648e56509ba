package agent

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// TestAnIDIsOneOperation: an id that stands for an operation is no other one's, on any
// node, with any action or other parameters, running, ended and over a restart.
func TestAnIDIsOneOperation(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		op := power.Op{ID: "x", Node: "n1", Action: power.ActOn, AskedBy: "admin", Origin: power.FromLocal}
		others := map[string]func(*power.Op){
			"another node":   func(o *power.Op) { o.Node = "n2" },
			"another action": func(o *power.Op) { o.Action = power.ActCycle },
			"another boot":   func(o *power.Op) { o.Boot = power.BootPXE },
		}
		check := func(when string, how ...string) {
			t.Helper()
			for _, what := range how {
				other := op
				other.Origin = power.FromCentral
				others[what](&other)
				if got, err := r.a.Submit(other); api.CodeOf(err) != api.CodeBadRequest || !strings.Contains(err.Error(), "n1") {
					t.Errorf("%s, %s: %+v, %v", when, what, got, err)
				}
				if other.Node == op.Node && other.Action == op.Action {
					continue
				}
				if _, err := r.a.Cancel(api.Cancel{ID: "x", Node: other.Node, Action: other.Action, By: "admin"}); err == nil {
					t.Errorf("%s, %s: cancelled", when, what)
				}
			}
			if got, err := r.a.Submit(op); err != nil || got.Op.Node != "n1" {
				t.Errorf("%s: asked again: %+v, %v", when, got, err)
			}
		}
		if _, err := r.a.Submit(op); err != nil {
			t.Fatal(err)
		}
		check("while it runs", "another node", "another action", "another boot")
		r.wantEnd("x", power.Succeeded, power.ReasonVerified)
		check("ended", "another node", "another action", "another boot")
		r.restart()
		check("after a restart", "another node", "another action", "another boot")
		if !r.a.acknowledged([]api.OpReport{{Op: op, Phase: api.PhaseEnded, End: &power.End{Outcome: power.Succeeded}}}, ack{}) {
			t.Fatal("what ended stays in the journal")
		}
		r.restart() // what is known is the node's newest ended operations
		check("after it left the journal", "another node", "another action")
		r.wantCommands("n1", power.PowerOn)
		r.wantCommands("n2")
	})
}

// TestAnIDAtOnceOnTwoNodes: of two requests with one id at the same moment one is accepted.
func TestAnIDAtOnceOnTwoNodes(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		for range 50 {
			id := newID()
			var wg sync.WaitGroup
			errs := make(chan error, 2)
			for _, node := range []string{"n1", "n2"} {
				wg.Go(func() {
					_, err := r.a.Submit(power.Op{ID: id, Node: node, Action: power.ActOn, AskedBy: "admin", Origin: power.FromLocal})
					errs <- err
				})
			}
			wg.Wait()
			if one, two := <-errs, <-errs; (one == nil) == (two == nil) {
				t.Fatalf("%v, %v", one, two)
			}
		}
		time.Sleep(time.Minute)
	})
}

// TestARequestRefusedForItsIDIsReported: central is told that its request came to
// nothing, and the operation that has the id keeps its own word.
func TestARequestRefusedForItsIDIsReported(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		if _, err := r.a.Submit(power.Op{ID: "x", Node: "n1", Action: power.ActOn, AskedBy: "local", Origin: power.FromLocal}); err != nil {
			t.Fatal(err)
		}
		r.wantEnd("x", power.Succeeded, power.ReasonVerified)
		theirs := power.Op{
			ID: "x", Node: "n2", Action: power.ActOff, AskedBy: "admin", Origin: power.FromCentral,
			Seq: r.a.clock.Next(time.Now()),
		}
		for range 2 { // it may come again
			if err := r.a.takeOps([]power.Op{theirs}, nil); err != nil {
				t.Fatal(err)
			}
		}
		words := r.a.outbox.take(10)
		if len(words) != 2 || words[0].Op.Node != "n1" || words[0].End.Outcome != power.Succeeded ||
			words[1].Op.Node != "n2" || words[1].End.Outcome != power.Refused || words[1].Reason != power.ReasonIDUsed {
			t.Fatalf("%+v", words)
		}
		if refs := r.a.outbox.outstanding(); len(refs) != 2 {
			t.Errorf("%+v", refs)
		}
		if !r.a.acknowledged(words, ack{}) {
			t.Fatal("what ended stays in the journal")
		}
		if left := r.a.outbox.take(10); len(left) != 0 {
			t.Errorf("%+v", left)
		}
	})
}

// TestABatchWithAnIDTwice: nothing of it is accepted at the rack's own socket.
func TestABatchWithAnIDTwice(t *testing.T) {
	inBubble(t, 2, func(r *harness) {
		body := `{"ops":[{"id":"ID","node":"n1","action":"on"},{"id":"ID","node":"n2","action":"on"}]}`
		body = strings.ReplaceAll(body, "ID", newID())
		req := httptest.NewRequest(http.MethodPost, "/v1/ops", strings.NewReader(body))
		w := httptest.NewRecorder()
		r.a.control.routes().ServeHTTP(w, req)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "same id") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if len(r.a.outbox.unacknowledged()) != 0 {
			t.Error("something was accepted")
		}
	})
}
