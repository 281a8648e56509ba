package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/power"
)

// told is what an asker knows of a request of its own: what it asked, and what it
// was answered.
type told struct {
	req  api.OpRequest
	door string // central, or the agent whose socket was asked
	// asked is when it was sent first, answered when the first answer came, or the first
	// that was no refusal; zero: none ever came, so that it may or may not have been
	// taken.
	asked, answered time.Time
	seq             power.Seq
	refused         bool // in that answer
}

// memory is what all askers remember, and all that anybody was ever shown of how
// operations ended. By it is judged what is lost: not by anybody's database.
type memory struct {
	mu         sync.Mutex
	all        map[string]*told
	outcomes   map[string]map[power.Outcome]string // by id: each outcome that was shown, and where
	repeats    int
	cancels    int
	tries      int
	unexpected []string // answers that nobody should get
}

func newMemory() *memory {
	return &memory{all: map[string]*told{}, outcomes: map[string]map[power.Outcome]string{}}
}

func (m *memory) with(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

// asks notes that a request is about to be sent.
func (m *memory) asks(req api.OpRequest, door string) {
	m.with(func() {
		m.tries++
		if m.all[req.ID] == nil {
			m.all[req.ID] = &told{req: req, door: door, asked: time.Now()}
		}
	})
}

// answered notes an answer.
func (m *memory) answered(op api.Op) {
	m.with(func() {
		if x := m.all[op.ID]; x != nil && (x.answered.IsZero() || x.refused && op.Outcome != power.Refused) {
			x.answered, x.seq, x.refused = time.Now(), op.Seq, op.Outcome == power.Refused
		}
	})
}

// shown notes an operation as somebody shows it.
func (m *memory) shown(where string, op api.Op) {
	if op.Outcome == "" {
		return
	}
	m.with(func() {
		if m.outcomes[op.ID] == nil {
			m.outcomes[op.ID] = map[power.Outcome]string{}
		}
		if m.outcomes[op.ID][op.Outcome] == "" {
			m.outcomes[op.ID][op.Outcome] = where
		}
	})
}

func (m *memory) wrong(format string, args ...any) {
	m.with(func() { m.unexpected = append(m.unexpected, fmt.Sprintf(format, args...)) })
}

// asker asks for things at one door until it is told to stop.
type asker struct {
	name, door string
	client     *api.Client
	nodes      []string
	rng        *rand.Rand
	pause      time.Duration // at most, between two requests
	deadline   time.Duration // of each operation, at most
	memory     *memory
	mine       []api.OpRequest // the latest, to repeat and to cancel
}

// soakActions are what is asked for: each as often as it stands here.
var soakActions = []power.Action{
	power.ActOn, power.ActOn, power.ActOff, power.ActOff, power.ActCycle, power.ActCycle, power.ActSoftOff, power.ActSoftOff,
	power.ActReset, power.ActReset, power.ActDiag, power.ActBMCReset,
}

func (a *asker) run(ctx context.Context) {
	for pauseFor(ctx, time.Duration(a.rng.Int64N(int64(a.pause)))) {
		switch n := a.rng.IntN(20); {
		case n == 0 && len(a.mine) > 0:
			a.cancel(ctx, a.mine[a.rng.IntN(len(a.mine))].ID)
		case n <= 2 && len(a.mine) > 0:
			a.memory.with(func() { a.memory.repeats++ })
			a.ask(ctx, a.mine[a.rng.IntN(len(a.mine))])
		case n == 3:
			a.ask(ctx, a.request(), a.request(), a.request())
		default:
			a.ask(ctx, a.request())
		}
	}
}

func (a *asker) request() api.OpRequest {
	r := api.OpRequest{
		ID: uuid.Must(uuid.NewV7()).String(), Node: a.nodes[a.rng.IntN(len(a.nodes))], Action: soakActions[a.rng.IntN(len(soakActions))],
		AskedBy: a.name, Deadline: a.deadline/2 + time.Duration(a.rng.Int64N(int64(a.deadline/2))),
	}
	switch a.rng.IntN(6) {
	case 0:
		r.IfBusy = power.Queue
	case 1:
		r.IfBusy = power.Refuse
	}
	if r.Action == power.ActSoftOff {
		r.Grace = time.Duration(500+a.rng.IntN(2500)) * time.Millisecond
		r.NoEscalate = a.rng.IntN(4) == 0
	}
	if r.Action.Boots() && a.rng.IntN(4) == 0 {
		r.Boot = power.BootPXE
	}
	a.mine = append(a.mine, r)
	a.mine = a.mine[max(0, len(a.mine)-8):]
	return r
}

// ask keeps asking until there is an answer, and sometimes gives up before.
func (a *asker) ask(ctx context.Context, reqs ...api.OpRequest) {
	for tries := 1 + a.rng.IntN(12); tries > 0; tries-- {
		for _, r := range reqs {
			a.memory.asks(r, a.door)
		}
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
		ops, err := a.client.AskOps(one, api.AskOps{Ops: reqs})
		cancel()
		if err == nil {
			for _, op := range ops {
				a.memory.answered(op)
				a.memory.shown(a.door, op)
			}
			return
		}
		if !comesBack(err) {
			a.memory.wrong("%s was answered by %s: %v", a.name, a.door, err)
			return
		}
		if !pauseFor(ctx, time.Duration(50+a.rng.IntN(400))*time.Millisecond) {
			return
		}
	}
}

// comesBack reports whether an error is one of somebody who is away for now.
func comesBack(err error) bool {
	return errors.Is(err, api.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded) || api.CodeOf(err) == api.CodeUnavailable
}

func (a *asker) cancel(ctx context.Context, id string) {
	one, done := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
	defer done()
	_, err := a.client.CancelOp(one, id, api.CancelOp{AskedBy: a.name, Reason: "soak"})
	if err == nil {
		a.memory.with(func() { a.memory.cancels++ })
		return
	}
	if code := api.CodeOf(err); !comesBack(err) && code != api.CodeRefused && code != api.CodeNotFound {
		a.memory.wrong("a cancel of %s was answered by %s: %v", a.name, a.door, err)
	}
}

// watch follows all operations as one door shows them.
func (m *memory) watch(ctx context.Context, door string, client *api.Client) {
	rev := int64(0)
	for {
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		found, err := client.QueryOps(one, api.QueryOps{AfterRev: rev, Wait: 2 * time.Second})
		cancel()
		if err == nil {
			rev = found.Rev
			for _, op := range found.Ops {
				m.shown(door, op)
			}
		}
		if !pauseFor(ctx, 100*time.Millisecond) {
			return
		}
	}
}

// pauseFor waits; it reports false when ctx ended.
func pauseFor(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return ctx.Err() == nil
	}
}
