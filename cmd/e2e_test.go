package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/powertest"
)

// rounds is how often a test of chance is repeated: few in the ordinary run, more
// with RACKPOWER_TEST_ROUNDS.
func rounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("RACKPOWER_TEST_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return usual
}

func startFarm(t *testing.T, cfg bmcsim.Config) *bmcsim.Farm {
	t.Helper()
	if cfg.Names == nil {
		cfg.Names = func(i int) string { return fmt.Sprintf("n%02d", i+1) }
	}
	cfg.SameAddress = cfg.Port != 0
	farm, err := bmcsim.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { farm.Close() })
	return farm
}

func (s *site) addFarm(farm *bmcsim.Farm) {
	var specs []api.NodeSpec
	for i := range farm.Len() {
		specs = append(specs, specOf(farm.BMC(i).Name(), farm.BMC(i).Endpoint()))
	}
	s.addNodes(specs...)
}

func TestTwentyRealBMCsGetOnePowerOnEach(t *testing.T) {
	sims := powertest.StartIPMISim(t, 20)
	s := newSite(t)
	s.startAgent("r1")
	var specs []api.NodeSpec
	for i, sim := range sims {
		specs = append(specs, specOf(fmt.Sprintf("n%02d", i+1), sim.Endpoint()))
	}
	s.addNodes(specs...)
	for round, want := range []string{string(power.Succeeded), string(power.Succeeded)} {
		results := decodeJSON[[]result](t, s.mustRun("on", "n[01-20]", "-o", "json"))
		if len(results) != 20 {
			t.Fatalf("%d results", len(results))
		}
		for _, r := range results {
			if r.Outcome != want || r.State != "on" {
				t.Errorf("round %d: %+v", round, r)
			}
		}
	}
	for i, sim := range sims {
		if log := sim.Log(); len(log) != 1 || log[0].Command != power.PowerOn {
			t.Errorf("n%02d got %+v", i+1, log)
		}
	}
}

// TestConflictsOnOneNode has several clients ask for contradicting things at once.
func TestConflictsOnOneNode(t *testing.T) {
	run := func(t *testing.T, ep power.Endpoint, late func(), state func() power.State) {
		s := newSite(t)
		s.startAgent("r1")
		s.addNodes(specOf("n1", ep))
		late()
		actions := []power.Action{power.ActOn, power.ActOff, power.ActCycle, power.ActSoftOff}
		var clients sync.WaitGroup
		for c := range 4 {
			rng := rand.New(rand.NewPCG(7, uint64(c)))
			clients.Go(func() {
				for range rounds(50) {
					if _, err := s.ask("n1", actions[rng.IntN(len(actions))], nil); err != nil {
						t.Errorf("ask: %v", err)
						return
					}
					time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
				}
			})
		}
		clients.Wait()
		ops := s.allEnded(90 * time.Second)
		checkOutcomes(t, ops)
		if last := ops[len(ops)-1]; state() != last.Action.Final() {
			t.Errorf("the node is %s; the newest request was %s (%s)", state(), last.Action, last.Outcome)
		}
	}
	t.Run("bmcsim", func(t *testing.T) {
		farm := startFarm(t, bmcsim.Config{Count: 1, OnAfter: 300 * time.Millisecond, OffAfter: 200 * time.Millisecond})
		b := farm.BMC(0)
		b.Delay(3 * time.Millisecond)
		run(t, b.Endpoint(), func() {}, b.Power)
		if n := b.MaxInFlight(); n > 1 {
			t.Errorf("%d commands were in flight at the BMC", n)
		}
	})
	t.Run("ipmi_sim", func(t *testing.T) {
		sim := powertest.StartIPMISim(t, 1)[0]
		run(t, sim.Endpoint(), func() { _ = sim.Set(powertest.FaultLate, "0.5") }, func() power.State { return sim.Power() })
	})
}

// checkOutcomes holds every operation against what it says of itself.
func checkOutcomes(t *testing.T, ops []api.Op) {
	t.Helper()
	byID := map[string]api.Op{}
	for _, op := range ops {
		byID[op.ID] = op
	}
	if len(byID) != len(ops) {
		t.Errorf("%d operations with %d ids", len(ops), len(byID))
	}
	for _, op := range ops {
		if op.Outcome == "" || op.EndedAt == nil || op.Why == "" {
			t.Errorf("no outcome or reason: %+v", op)
		}
		if op.Outcome == power.Superseded {
			if by, ok := byID[op.SupersededBy]; !ok || by.Seq < op.Seq {
				t.Errorf("%s superseded by %q, which is not a newer operation", op.ID, op.SupersededBy)
			}
		}
		if op.Joined != "" {
			if a := byID[op.Joined]; a.Outcome != op.Outcome {
				t.Errorf("%s joined %s and ended %s, not %s", op.ID, op.Joined, op.Outcome, a.Outcome)
			}
		}
	}
}

// crowd asks for things on all nodes until stopped, and counts what was taken.
type crowd struct {
	mu    sync.Mutex
	taken map[string]power.Action
	wg    sync.WaitGroup
	quit  chan struct{}
}

func (s *site) crowd(nodes []string, actions []power.Action, pause time.Duration) *crowd {
	c := &crowd{taken: map[string]power.Action{}, quit: make(chan struct{})}
	for i, node := range nodes {
		rng := rand.New(rand.NewPCG(11, uint64(i)))
		c.wg.Go(func() {
			for {
				select {
				case <-c.quit:
					return
				case <-time.After(time.Duration(rng.Int64N(int64(pause)))):
				}
				op, err := s.ask(node, actions[rng.IntN(len(actions))], nil)
				if err != nil {
					s.t.Errorf("ask: %v", err)
					return
				}
				c.mu.Lock()
				c.taken[op.ID] = op.Action
				c.mu.Unlock()
			}
		})
	}
	return c
}

func (c *crowd) stop() map[string]power.Action {
	close(c.quit)
	c.wg.Wait()
	return c.taken
}

// judge compares what was asked, what central knows and what the BMCs recorded.
func judge(t *testing.T, taken map[string]power.Action, ops []api.Op, farm *bmcsim.Farm) {
	t.Helper()
	checkOutcomes(t, ops)
	known := map[string]api.Op{}
	resets, diags, cuts := map[string]int{}, map[string]int{}, map[string]int{}
	last := map[string]api.Op{}
	outcomes := map[power.Outcome]int{}
	for _, op := range ops {
		known[op.ID] = op
		outcomes[op.Outcome]++
		if took := op.EndedAt.Sub(op.AskedAt); took > 20*time.Second {
			t.Logf("slow: %s %s of %s took %s: %s (%s), %d attempts", op.ID, op.Action, op.Node, took, op.Outcome, op.Detail, op.Attempts)
		}
		if op.Action.Final() != power.Unknown && op.Outcome != power.Refused {
			last[op.Node] = op
		}
		if op.Joined != "" || op.Outcome == power.Refused {
			continue
		}
		switch op.Action {
		case power.ActReset:
			resets[op.Node]++
		case power.ActDiag:
			diags[op.Node]++
		case power.ActOff, power.ActSoftOff, power.ActCycle:
			cuts[op.Node]++
		}
	}
	for id, action := range taken {
		if _, ok := known[id]; !ok {
			t.Errorf("%s %s was taken and is lost", action, id)
		}
	}
	for i := range farm.Len() {
		b := farm.BMC(i)
		if b.Resets() > resets[b.Name()] || b.Diags() > diags[b.Name()] || b.Cuts() > cuts[b.Name()] {
			t.Errorf("%s: %d resets for %d asked, %d diags for %d, %d cuts for %d", b.Name(), b.Resets(), resets[b.Name()], b.Diags(),
				diags[b.Name()], b.Cuts(), cuts[b.Name()])
		}
		if op := last[b.Name()]; op.Outcome == power.Succeeded && b.Power() != op.Action.Final() {
			t.Errorf("%s is %s, the newest request was %s", b.Name(), b.Power(), op.Action)
		}
	}
	t.Logf("%d operations: %v", len(ops), outcomes)
}

// TestAgentKilledAtRandom kills the agent with SIGKILL under a stream of requests.
func TestAgentKilledAtRandom(t *testing.T) {
	killAtRandom(t, "r1", rounds(20), func(s *site) { s.startAgent("r1") })
}

// TestCentralKilledAtRandom does the same to central.
func TestCentralKilledAtRandom(t *testing.T) {
	killAtRandom(t, "central", rounds(12), func(s *site) { s.startCentral() })
}

func killAtRandom(t *testing.T, victim string, kills int, start func(*site)) {
	farm := startFarm(t, bmcsim.Config{Count: 6, OnAfter: 200 * time.Millisecond, OffAfter: 200 * time.Millisecond, Initial: power.On})
	s := newSite(t)
	s.startAgent("r1")
	s.addFarm(farm)
	var nodes []string
	for i := range farm.Len() {
		farm.BMC(i).Delay(25 * time.Millisecond) // so that some die between a command and its answer
		farm.BMC(i).SessionLimit(1000)           // the dead leave theirs open
		nodes = append(nodes, farm.BMC(i).Name())
	}
	c := s.crowd(nodes, []power.Action{
		power.ActOn, power.ActOff, power.ActCycle, power.ActCycle, power.ActSoftOff, power.ActReset,
		power.ActReset, power.ActDiag,
	}, 600*time.Millisecond)
	rng := rand.New(rand.NewPCG(3, 5))
	for range kills {
		time.Sleep(time.Duration(50+rng.IntN(700)) * time.Millisecond)
		s.kill(victim)
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		start(s)
	}
	taken := c.stop()
	ops := s.allEnded(2 * time.Minute)
	judge(t, taken, ops, farm)
}

// TestCycleOverACrashCutsPowerOnce kills the agent at every stage of a cycle.
func TestCycleOverACrashCutsPowerOnce(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 8, OnAfter: 500 * time.Millisecond, OffAfter: 700 * time.Millisecond, Initial: power.On})
	s := newSite(t)
	s.startAgent("r1")
	s.addFarm(farm)
	var ids []string
	for i := range farm.Len() {
		op, err := s.ask(farm.BMC(i).Name(), power.ActCycle, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, op.ID)
		time.Sleep(800 * time.Millisecond)
	}
	s.kill("r1")
	s.startAgent("r1")
	for _, op := range s.allEnded(time.Minute) {
		if op.Outcome != power.Succeeded {
			t.Errorf("%s: %s %s", op.Node, op.Outcome, op.Detail)
		}
	}
	for i := range farm.Len() {
		if b := farm.BMC(i); b.Cuts() != 1 || b.Power() != power.On {
			t.Errorf("%s: %d cuts, %s", b.Name(), b.Cuts(), b.Power())
		}
	}
	if len(ids) != farm.Len() {
		t.Errorf("%d ids", len(ids))
	}
}

func TestWrongPasswordAndHungBMC(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 12})
	s := newSite(t)
	s.startMonitor("r1", "@every 1s")
	s.addFarm(farm)
	wrong := specOf("n01", farm.BMC(0).Endpoint())
	wrong.Password = "wrong"
	s.addNodes(wrong)
	farm.BMC(1).Mute(true)
	began := time.Now()
	out, _, exit := s.run("on", "n01", "-o", "json")
	if took := time.Since(began); exit != 1 || took > 5*time.Second {
		t.Errorf("exit status %d after %s", exit, took)
	}
	if r := decodeJSON[[]result](t, out); r[0].Outcome != "failed" || !strings.Contains(r[0].Detail, "auth") {
		t.Errorf("%+v", r)
	}
	if _, err := s.ask("n02", power.ActOn, nil); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	for _, r := range decodeJSON[[]result](t, s.mustRun("on", "n[03-12]", "-o", "json")) {
		if r.Outcome != "succeeded" || r.WaitedMS > 5000 {
			t.Errorf("%+v", r)
		}
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("ten healthy nodes took %s beside a hung one", took)
	}
	time.Sleep(3 * time.Second) // three rounds of the monitor
	if n := farm.BMC(0).AuthFailures(); n > 3 {
		t.Errorf("the wrong password was tried %d times", n)
	}
	nodes, err := s.client.Nodes(t.Context(), "n01")
	if err != nil || nodes[0].Reach != power.ReachAuthFailed {
		t.Errorf("%+v, %v", nodes, err)
	}
}

// TestRackCutOff works at the rack's own socket while central is away, and central
// learns of it later.
func TestRackCutOff(t *testing.T) {
	farm := startFarm(t, bmcsim.Config{Count: 2})
	s := newSite(t)
	s.startAgent("r1")
	s.addFarm(farm)
	s.mustRun("on", "n01")
	s.kill("central")
	out, errs, exit := s.run("local", "on", "n02", "--socket", s.agentSocket("r1"), "-o", "json")
	if exit != 0 || farm.BMC(1).Power() != power.On {
		t.Fatalf("exit status %d: %s%s", exit, out, errs)
	}
	s.startCentral()
	s.until(20*time.Second, "central knows what was done at the rack", func() bool {
		found, err := s.client.QueryOps(t.Context(), api.QueryOps{Nodes: []string{"n02"}})
		return err == nil && len(found.Ops) == 1 && found.Ops[0].Outcome == power.Succeeded && found.Ops[0].Origin == power.FromLocal
	})
	if n := farm.BMC(0).PowerOns() + farm.BMC(1).PowerOns(); n != 2 {
		t.Errorf("%d power-ons", n)
	}
}

func TestBadInputIsToldAndChangesNothing(t *testing.T) {
	s := newSite(t)
	s.startAgent("r1")
	farm := startFarm(t, bmcsim.Config{Count: 1})
	s.addFarm(farm)
	s.mustRun("on", "n01")
	typo := filepath.Join(s.dir, "typo.yaml")
	if err := os.WriteFile(typo, []byte("name: r9\ndata: "+s.dir+"/r9\ncentrall: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(s.allEnded(10 * time.Second))
	for _, c := range []struct {
		args string
		exit int
		says string
	}{
		{"on n99", 2, "n99"},
		{"on n[01-", 2, "cannot read node range"},
		{"on n01 --if-busy sometimes", 2, "sometimes"},
		{"on n01 --colour", 2, "colour"},
		{"node set-status n01 SLEEPY", 2, "SLEEPY"},
		{"node add n02 --rack r1 --bmc ipmi://admin:secret@127.0.0.1", 2, "password"},
		{"node add n02 --rack r1 --bmc ftp://x", 2, "only the schemes ipmi://, redfish://, redfish+http://, auto:// and exec:"},
		{"status --central unix:///nonexistent/c.sock", 3, "/nonexistent/c.sock"},
		{"op show 0190-none", 2, "0190-none"},
		{"off n01 --boot pxe", 2, "boot"},
		{"agent --config " + typo, 2, "centrall"},
		{"agent --name other --central none --data " + filepath.Join(s.dir, "r1x"), 2, "r1"},
		{"journal verify " + s.dir + "/nothing", 2, "nothing"},
	} {
		if strings.HasPrefix(c.args, "agent --name other") {
			s.kill("r1")
			if err := os.Rename(filepath.Join(s.dir, "r1"), filepath.Join(s.dir, "r1x")); err != nil {
				t.Fatal(err)
			}
		}
		out, errs, exit := s.run(strings.Fields(c.args)...)
		text := strings.TrimSpace(out + errs)
		if exit != c.exit || !strings.Contains(text, c.says) {
			t.Errorf("rackpower %s: exit status %d, want %d, and %q in:\n%s", c.args, exit, c.exit, c.says, text)
		}
		if lines := strings.Count(text, "\n") + 1; lines > 2 {
			t.Errorf("rackpower %s: %d lines for one error:\n%s", c.args, lines, text)
		}
	}
	if after := len(s.allEnded(10 * time.Second)); after != before {
		t.Errorf("%d operations became %d", before, after)
	}
}
