package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/central/api"
	"rackpower/power"
)

// TestManyClientsOneNode is the conflict of the mission: several clients ask for
// different things at once, again and again. One command at a time reaches the
// BMC, each request has one outcome, and the newest wins.
func TestManyClientsOneNode(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		r.bmc("n1").SetOnAfter(300 * time.Millisecond)
		r.bmc("n1").SetOffAfter(200 * time.Millisecond)
		r.bmc("n1").SetLatency(30 * time.Millisecond)
		actions := []power.Action{power.ActOn, power.ActOff, power.ActCycle, power.ActSoftOff}
		var mu sync.Mutex
		var newest power.Op
		var ids []string
		var clients sync.WaitGroup
		for c := range 5 {
			rng := rand.New(rand.NewPCG(uint64(c), 1))
			clients.Go(func() {
				for i := range 200 {
					op := power.Op{ID: fmt.Sprintf("c%d-%d", c, i), Node: "n1", Action: actions[rng.IntN(4)], AskedBy: "client", Origin: power.FromLocal}
					got, err := r.a.Submit(op)
					if err != nil {
						t.Errorf("Submit: %v", err)
						return
					}
					mu.Lock()
					ids = append(ids, op.ID)
					if got.Verdict != power.VerdictRefuse && got.Op.Seq > newest.Seq {
						newest = got.Op
					}
					mu.Unlock()
					time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
				}
			})
		}
		clients.Wait()
		for _, id := range ids {
			if got, ok := r.a.outbox.find(id); ok {
				end := r.end(id)
				if end.Outcome == power.Superseded && end.SupersededBy == "" || end.Reason == "" || got.Op.ID != id {
					t.Errorf("%s: %+v", id, end)
				}
			}
		}
		r.wantPower("n1", newest.Action.Final())
		if n := r.bmc("n1").Counts().MaxInFlight; n != 1 {
			t.Errorf("%d exchanges in flight", n)
		}
	})
}

// TestHistories runs random requests, crashes and BMC faults and holds the end of
// each history against the rules: one outcome each, the final state of the newest
// accepted request, no second cut, nothing once-only sent twice.
func TestHistories(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		sub := fmt.Sprintf("%s/%d", dir, n)
		script := drawScript(rt)
		ok := t.Run("", func(t *testing.T) {
			inBubble(t, 1, func(r *harness) {
				r.crash()
				r.cfg.Dir = sub
				r.start()
				r.assign(r.nodes...)
				r.play(script)
			})
		})
		if !ok {
			rt.Fatalf("history:\n%s", script)
		}
	})
}

type step struct {
	do     string
	action power.Action
	ifBusy power.IfBusy
	pause  time.Duration
}

type script []step

func (s script) String() string {
	text := ""
	for _, x := range s {
		text += fmt.Sprintf("  %s %s %s, then %s\n", x.do, x.action, x.ifBusy, x.pause)
	}
	return text
}

func drawScript(rt *rapid.T) script {
	var s script
	for range rapid.IntRange(1, 12).Draw(rt, "steps") {
		s = append(s, step{
			do: rapid.SampledFrom([]string{
				"ask", "ask", "ask", "ask", "crash", "lose", "late", "prompt", "mute", "wake",
				"restart-bmc",
			}).Draw(rt, "do"),
			action: rapid.SampledFrom(power.Actions).Draw(rt, "action"),
			ifBusy: rapid.SampledFrom([]power.IfBusy{power.Supersede, power.Supersede, power.Queue, power.Refuse}).Draw(rt, "if_busy"),
			pause:  time.Duration(rapid.IntRange(0, 9000).Draw(rt, "pause")) * time.Millisecond,
		})
	}
	return s
}

func (r *harness) play(s script) {
	bmc := r.bmc("n1")
	var accepted []api.OpReport
	for _, x := range s {
		switch x.do {
		case "ask":
			got := r.ask("n1", x.action, func(o *power.Op) { o.IfBusy = x.ifBusy })
			if got.Verdict.Accepted() {
				accepted = append(accepted, got)
			}
		case "crash":
			r.restart()
		case "lose":
			bmc.LoseNextAnswers(1)
		case "late":
			bmc.SetOnAfter(12 * time.Second)
			bmc.SetOffAfter(9 * time.Second)
		case "prompt":
			bmc.SetOnAfter(0)
			bmc.SetOffAfter(0)
		case "mute":
			bmc.SetMute(true)
		case "wake":
			bmc.SetMute(false)
		case "restart-bmc":
			bmc.Restart()
		}
		time.Sleep(x.pause)
	}
	bmc.SetMute(false)
	r.judge(accepted)
}

func (r *harness) judge(accepted []api.OpReport) {
	once := map[power.Action]int{}
	cycles := 0
	final := power.Unknown
	for _, a := range accepted {
		end := r.end(a.Op.ID)
		if a.Verdict.Joined() {
			if shared := r.end(a.Joined); !reflect.DeepEqual(shared, end) {
				r.t.Errorf("%s joined %s and ended %+v, not %+v", a.Op.ID, a.Joined, end, shared)
			}
		} else if a.Op.Action.Once() {
			once[a.Op.Action]++
		} else if a.Op.Action != power.ActOn {
			cycles++
		}
		if f := a.Op.Action.Final(); f != power.Unknown {
			final = power.Unknown
			if end.Outcome == power.Succeeded {
				final = f
			}
		}
	}
	c := r.bmc("n1").Counts()
	if final != power.Unknown && r.bmc("n1").Power() != final {
		r.t.Errorf("the node is %s; the newest request that succeeded wanted %s", r.bmc("n1").Power(), final)
	}
	if c.Resets > once[power.ActReset] || c.Pulses > once[power.ActDiag] || c.BMCResets > once[power.ActBMCReset] || c.Cuts > cycles ||
		c.MaxInFlight > 1 {
		r.t.Errorf("more reached the BMC than was asked: %+v for %v and %d that cut", c, once, cycles)
	}
}

// TestDeadContextNeverSends makes sure that a command does not leave once its
// operation was told to stop while it waited for the BMC.
func TestDeadContextNeverSends(t *testing.T) {
	inBubble(t, 1, func(r *harness) {
		ep, err := r.a.assigned.endpoint("n1")
		if err != nil {
			t.Fatal(err)
		}
		begun, over := make(chan struct{}), make(chan struct{})
		go func() {
			err := r.a.bmcs.Get(ep).With(context.Background(), ep, false, func(context.Context, power.Driver) error {
				close(begun)
				<-over
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}()
		<-begun
		on := r.ask("n1", power.ActOn).Op.ID
		off := r.ask("n1", power.ActOff).Op.ID
		time.Sleep(time.Second)
		close(over)
		r.wantEnd(on, power.Superseded, power.ReasonNewer)
		r.wantEnd(off, power.Succeeded, power.ReasonAlready)
		r.wantCommands("n1")
	})
}
