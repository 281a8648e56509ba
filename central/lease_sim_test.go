package central

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/agent"
	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/store"
	"rackpower/power"
)

// The world of two whole agents, a central and a network between them, in simulated time: cuts, answers
// that are lost, processes that die or stand still, clocks that drift and are set. It holds what reaches
// the BMCs against these rules:
//
//   - no command is sent by an agent while another one may act on the node, and no two commands are
//     under way on a node;
//   - every operation has one end at last, and a reset is carried out at most once for each that was asked.

type leaseWorld struct {
	t      *testing.T
	rng    *rand.Rand
	dir    string
	c      *Central
	stop   context.CancelFunc // central's loops
	loops  sync.WaitGroup
	agents map[string]*leaseAgent

	mu     sync.Mutex
	down   bool // central does not answer
	log    []string
	began  time.Time
	on     map[string]bool   // power by BMC
	under  map[string]string // by BMC: the agent whose command is under way
	resets map[string]int
	wrong  string // the first rule that was broken
}

// leaseAgent is one agent with the clock of its machine.
type leaseAgent struct {
	w    *leaseWorld
	name string

	a      *agent.Agent
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	cut     bool          // no request reaches central
	deaf    bool          // requests do, and answers do not come back
	rate    float64       // how fast its clock goes
	stepped time.Duration // what its wall clock was set by
	stands  time.Time     // the process stands still until then
}

func (w *leaseWorld) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf("%8.2f ", time.Since(w.began).Seconds())+fmt.Sprintf(format, args...))
}

func (w *leaseWorld) broken(format string, args ...any) {
	w.note("BROKEN: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
	}
}

// central starts a process of central on the database that there is.
func (w *leaseWorld) central() {
	born := time.Now()
	rate := 1 + (w.rng.Float64()-0.5)/1000
	c, err := New(Config{
		Data: w.dir, Log: slog.New(slog.DiscardHandler), Machine: "head",
		Monotonic: func() time.Duration { return time.Duration(float64(time.Since(born)) * rate) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	c.authenticate = func(r *http.Request) (auth.Principal, error) {
		return auth.Principal{Kind: auth.User, Name: "root", Role: auth.Admin, Speaks: true, Own: true, Method: auth.BySocket}, nil
	}
	ctx, stop := context.WithCancel(w.t.Context())
	c.background(ctx, &w.loops)
	w.mu.Lock()
	w.c, w.stop, w.down = c, stop, false
	w.mu.Unlock()
}

// noCentral ends the process of central.
func (w *leaseWorld) noCentral() {
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	w.c.stopLongPolls()
	w.stop()
	w.loops.Wait()
	time.Sleep(time.Second) // requests that came before
	if err := w.c.Close(); err != nil {
		w.broken("central does not close: %v", err)
	}
}

// RoundTrip carries a request to central, as far as the network lets it.
func (x *leaseAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	delay := time.Duration(x.w.int(40)) * time.Millisecond
	if x.w.int(20) == 0 {
		delay = time.Duration(x.w.int(5000)) * time.Millisecond // it was on its way for long
	}
	time.Sleep(delay)
	x.standStill()
	x.mu.Lock()
	cut := x.cut
	x.mu.Unlock()
	x.w.mu.Lock()
	down, c := x.w.down, x.w.c
	x.w.mu.Unlock()
	if cut || down {
		time.Sleep(time.Second)
		return nil, errors.New("cut")
	}
	rec := httptest.NewRecorder()
	c.Handler().ServeHTTP(rec, r)
	time.Sleep(delay)
	x.standStill()
	x.mu.Lock()
	deaf := x.cut || x.deaf
	x.mu.Unlock()
	if deaf {
		time.Sleep(time.Second)
		return nil, errors.New("the answer was lost")
	}
	return rec.Result(), nil
}

func (w *leaseWorld) int(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// standStill waits while the process does not run.
func (x *leaseAgent) standStill() {
	x.mu.Lock()
	until := x.stands
	x.mu.Unlock()
	time.Sleep(time.Until(until))
}

// clock is that of the agent's machine. It is read under a lock: nothing waits here.
func (x *leaseAgent) clock() (time.Duration, time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	passed := time.Duration(float64(time.Since(x.w.began)) * x.rate)
	return time.Hour + passed, x.w.began.Add(passed + x.stepped).Round(0)
}

func (x *leaseAgent) start() {
	a, err := agent.New(agent.Config{
		Name: x.name, Dir: filepath.Join(x.w.dir, x.name), Dial: x.dial, Central: api.Inside(x), Monitor: "off",
		Clock: x.clock, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		x.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	x.a, x.cancel, x.ended = a, cancel, make(chan struct{})
	go func() {
		defer close(x.ended)
		_ = a.Run(ctx, nil)
	}()
}

func (x *leaseAgent) end() {
	x.cancel()
	<-x.ended
	_ = x.a.Close()
}

// leaseDriver is a BMC as an agent reaches it.
type leaseDriver struct {
	x   *leaseAgent
	bmc string
}

func (x *leaseAgent) dial(_ context.Context, ep power.Endpoint) (power.Driver, error) {
	return &leaseDriver{x, ep.Host}, nil
}

func (d *leaseDriver) State(ctx context.Context) (power.State, error) {
	time.Sleep(time.Duration(d.x.w.int(300)) * time.Millisecond)
	d.x.standStill() // before it looks at the lease for the command that follows
	d.x.w.mu.Lock()
	defer d.x.w.mu.Unlock()
	if d.x.w.on[d.bmc] {
		return power.On, nil
	}
	return power.Off, nil
}

func (d *leaseDriver) Do(ctx context.Context, cmd power.Command) error {
	w := d.x.w
	if ctx.Err() != nil {
		return &power.Error{Kind: power.KindCanceled, Op: string(cmd), Err: ctx.Err()}
	}
	w.mayAct(d.x.name, d.bmc, cmd)
	w.mu.Lock()
	if by := w.under[d.bmc]; by != "" && by != d.x.name {
		w.mu.Unlock()
		w.broken("%s sends %s to %s while a command of %s is under way", d.x.name, cmd, d.bmc, by)
		w.mu.Lock()
	}
	w.under[d.bmc] = d.x.name
	w.mu.Unlock()
	timer := time.NewTimer(time.Duration(w.int(2000)) * time.Millisecond)
	defer timer.Stop()
	var err error
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = &power.Error{Kind: power.KindUnreachable, Sent: true, Op: string(cmd), Err: ctx.Err()}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.under, d.bmc)
	switch cmd {
	case power.PowerOn:
		w.on[d.bmc] = true
	case power.PowerOff, power.PressSoftOff:
		w.on[d.bmc] = false
	case power.HardReset:
		w.resets[d.bmc]++
	}
	return err
}

func (d *leaseDriver) SetBoot(context.Context, power.BootDevice) error { return nil }
func (d *leaseDriver) Close() error                                    { return nil }

// mayAct holds a command against who may act by what central has stored.
func (w *leaseWorld) mayAct(name, bmc string, cmd power.Command) {
	w.mu.Lock()
	c, down := w.c, w.down
	w.mu.Unlock()
	if down {
		w.note("%s sends %s to %s", name, cmd, bmc)
		return // nobody was given anything meanwhile: the next process begins with a wait
	}
	_ = c.store.View(context.Background(), func(tx *store.Tx) error {
		nodes, err := tx.Nodes()
		for _, n := range nodes {
			if !strings.Contains(n.BMC, bmc) {
				continue
			}
			w.note("%s sends %s to %s, which is %s's (waits for %q)", name, cmd, n.Name, n.Agent, n.WaitsFor)
			if n.Agent != name && n.WaitsFor == "" {
				w.broken("%s sends %s to %s, which %s may act on", name, cmd, n.Name, n.Agent)
			}
		}
		return err
	})
}

var leaseNodes = []string{"a", "b"}

// play is one history.
func (w *leaseWorld) play() {
	for _, name := range []string{"r1", "r2"} {
		w.agents[name] = &leaseAgent{w: w, name: name, rate: 1 + (w.rng.Float64()-0.5)/1000}
	}
	w.central()
	client := api.Inside(&leaseAgent{w: w, rate: 1})
	var specs []api.NodeSpec
	for i, n := range leaseNodes {
		specs = append(specs, api.NodeSpec{
			Name: n, Rack: "r1", Agents: []string{"r1", "r2"}, BMC: fmt.Sprintf("ipmi://u@192.0.2.%d", i+1), Password: "p",
		})
	}
	for {
		if _, err := client.AddNodes(w.t.Context(), api.AddNodes{Nodes: specs, Update: true}); err == nil {
			break
		}
	}
	w.agents["r1"].start()
	w.agents["r2"].start()
	time.Sleep(20 * time.Second)
	asked := map[string]int{} // resets by node
	var ids []string
	for range 25 {
		x := w.agents[[]string{"r1", "r1", "r2"}[w.int(3)]]
		some := time.Duration(1+w.int(40)) * time.Second
		switch w.int(11) {
		case 9, 10: // in an emergency, at the rack itself
			node, action := leaseNodes[w.int(2)], []power.Action{power.ActOn, power.ActOff, power.ActCycle}[w.int(3)]
			w.note("%s of %s asked at %s", action, node, x.name)
			_, _ = x.a.Submit(power.Op{ID: newID(), Node: node, Action: action, Origin: power.FromLocal})
		case 0, 1, 2, 3:
			node, action := leaseNodes[w.int(2)], []power.Action{power.ActOn, power.ActOff, power.ActReset, power.ActCycle}[w.int(4)]
			id := newID()
			w.note("%s of %s asked: %s", action, node, id[len(id)-6:])
			_, err := client.AskOps(w.t.Context(), api.AskOps{Ops: []api.OpRequest{
				{ID: id, Node: node, Action: action, Options: power.Options{IfBusy: power.Queue}},
			}})
			if err == nil {
				ids = append(ids, id)
			}
			if action == power.ActReset {
				asked[node]++
			}
		case 4:
			w.note("%s is cut off for %s", x.name, some)
			x.mu.Lock()
			x.cut = true
			x.mu.Unlock()
			time.AfterFunc(some, func() { x.mu.Lock(); x.cut = false; x.mu.Unlock() })
		case 5:
			w.note("%s hears no answers for %s", x.name, some)
			x.mu.Lock()
			x.deaf = true
			x.mu.Unlock()
			time.AfterFunc(some, func() { x.mu.Lock(); x.deaf = false; x.mu.Unlock() })
		case 6:
			some *= 3
			w.note("%s stands still for %s", x.name, some)
			x.mu.Lock()
			x.stands = time.Now().Add(some)
			x.mu.Unlock()
		case 7:
			if w.int(2) == 0 {
				w.note("the wall clock of %s is set", x.name)
				x.mu.Lock()
				x.stepped += time.Duration(w.int(240)-120) * time.Second
				x.mu.Unlock()
				break
			}
			w.note("%s ends and starts", x.name)
			x.end()
			x.start()
		case 8:
			w.note("central ends and starts")
			w.noCentral()
			time.Sleep(time.Duration(w.int(20)) * time.Second)
			w.central()
		}
		time.Sleep(time.Duration(w.int(15000)) * time.Millisecond)
	}
	w.note("all is well from here on")
	time.Sleep(20 * time.Minute)
	found, err := client.QueryOps(w.t.Context(), api.QueryOps{IDs: ids, Limit: len(ids)})
	if err != nil || len(found.Ops) != len(ids) {
		w.broken("%d of %d operations are there: %v", len(found.Ops), len(ids), err)
	}
	for _, o := range found.Ops {
		if o.Outcome == "" {
			w.broken("%s of %s is without an end: %s, %s", o.Action, o.Node, o.Phase, o.Rack)
		}
	}
	for i, n := range leaseNodes {
		if got := w.resets[fmt.Sprintf("192.0.2.%d", i+1)]; got > asked[n] {
			w.broken("%d resets of %s were carried out, %d were asked for", got, n, asked[n])
		}
	}
	for _, x := range w.agents {
		x.end()
	}
	w.noCentral()
}

// TestLeaseHistories plays histories: RACKPOWER_LEASE_HISTORIES of them, from the seed
// RACKPOWER_LEASE_SEED on.
func TestLeaseHistories(t *testing.T) {
	number := func(name string, usual int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return usual
	}
	many := number("RACKPOWER_LEASE_HISTORIES", 12)
	if testing.Short() {
		many = min(many, 2)
	}
	first := number("RACKPOWER_LEASE_SEED", 1)
	for seed := first; seed < first+many; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"r1", "r2"} {
				if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				w := &leaseWorld{
					t: t, rng: rand.New(rand.NewPCG(uint64(seed), 1)), dir: dir, agents: map[string]*leaseAgent{}, began: time.Now(),
					on: map[string]bool{}, under: map[string]string{}, resets: map[string]int{},
				}
				w.play()
				if w.wrong != "" {
					t.Errorf("%s\n%s", w.wrong, strings.Join(slices.Clone(w.log), "\n"))
				}
			})
		})
	}
}
