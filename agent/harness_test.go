package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/powertest"
)

// harness is an agent over simulated BMCs, in a bubble of simulated time. Its directory
// outlives the agent, so that it can be crashed and started again.
type harness struct {
	t     *testing.T
	fake  *powertest.Fake
	cfg   Config
	a     *Agent
	nodes []api.AssignedNode
	n     int

	cancel context.CancelFunc
	ended  chan error
}

// inBubble runs fn with a harness whose nodes n1, n2, ... are hands-off.
func inBubble(t *testing.T, nodes int, fn func(*harness)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &harness{t: t, fake: powertest.NewFake()}
		r.cfg = Config{
			Name: "r1", Dir: dir, Dial: r.fake.Dial, Monitor: MonitorOff, Central: unreachable(t),
			Logger: slog.New(slog.DiscardHandler),
		}
		for i := range nodes {
			name := fmt.Sprintf("n%d", i+1)
			r.nodes = append(r.nodes, api.AssignedNode{
				Name: name, BMC: "ipmi://admin@" + name, Password: "secret",
				Desired: power.Desired{Want: power.HandsOff},
			})
		}
		r.start()
		defer r.crash()
		r.assign(r.nodes...)
		fn(r)
	})
}

func (r *harness) start() {
	r.t.Helper()
	a, err := New(r.cfg)
	if err != nil {
		r.t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.a, r.cancel, r.ended = a, cancel, make(chan error, 1)
	go func() { r.ended <- a.Run(ctx, nil) }()
}

// crash ends the agent without giving it another word: its journal takes nothing
// from the moment on.
func (r *harness) crash() {
	if r.a == nil {
		return
	}
	r.cancel()
	<-r.ended
	if err := r.a.Close(); err != nil {
		r.t.Errorf("Close: %v", err)
	}
	r.a = nil
}

func (r *harness) restart() {
	r.crash()
	r.start()
}

func (r *harness) assign(nodes ...api.AssignedNode) {
	r.t.Helper()
	if err := r.a.apply(api.Assignment{Nodes: nodes, Rev: 1}, theCentral); err != nil {
		r.t.Fatalf("apply: %v", err)
	}
}

func (r *harness) bmc(node string) *powertest.BMC { return r.fake.BMC(node) }

type opOption func(*power.Op)

// ask submits a request and returns its id and what was answered.
func (r *harness) ask(node string, action power.Action, opts ...opOption) api.OpReport {
	r.t.Helper()
	r.n++
	op := power.Op{ID: fmt.Sprintf("op-%03d", r.n), Node: node, Action: action, AskedBy: "admin", Origin: power.FromCentral}
	for _, o := range opts {
		o(&op)
	}
	got, err := r.a.Submit(op)
	if err != nil {
		r.t.Fatalf("Submit %s: %v", action, err)
	}
	return got
}

// end waits, in simulated time, for the end of an operation.
func (r *harness) end(id string) power.End {
	r.t.Helper()
	for range 40 * 60 * 20 {
		if got, ok := r.a.outbox.find(id); ok && got.End != nil {
			return *got.End
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.t.Fatalf("operation %s has no end after 40 min", id)
	return power.End{}
}

func (r *harness) wantEnd(id string, outcome power.Outcome, reason power.Reason) power.End {
	r.t.Helper()
	end := r.end(id)
	if end.Outcome != outcome || end.Reason != reason {
		r.t.Fatalf("%s ended %s (%s: %s), want %s (%s)", id, end.Outcome, end.Reason, end.Detail, outcome, reason)
	}
	return end
}

func (r *harness) wantCommands(node string, want ...power.Command) {
	r.t.Helper()
	got := r.bmc(node).Commands()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Fatalf("commands at %s: %v, want %v", node, got, want)
	}
}

func (r *harness) wantPower(node string, want power.State) {
	r.t.Helper()
	if got := r.bmc(node).Power(); got != want {
		r.t.Fatalf("%s is %s, want %s", node, got, want)
	}
}

// dyingLog is a journal whose process dies: from the n-th record on nothing is
// kept, and everything the agent still does is that of a dead process, so its BMC
// is cut off at the same moment.
type dyingLog struct {
	opLog
	mu    sync.Mutex
	left  int
	death func()
}

var errDead = errors.New("the process is dead")

func (d *dyingLog) Append(entries ...journal.Entry) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		d.death()
		return 0, errDead
	}
	d.left--
	lsn, err := d.opLog.Append(entries...)
	if d.left == 0 {
		d.death()
	}
	return lsn, err
}

// Err makes the agent stop at once, as death would.
func (d *dyingLog) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		return errDead
	}
	return d.opLog.Err()
}
