package cmd_test

// The soak: central and agents as processes, BMCs of both simulators, many askers,
// and every fault that can be brought about from outside, for a chosen time:
//
//	make soak SOAK_TIME=10m SOAK_SEED=7
//
// and for a few seconds within make test. When the time is over all faults end, and
// when everything is quiet the verdict is made up and printed as a table.
//
// What it goes by:
//   - what the askers remember of what they were told. Nothing that was answered with
//     "taken" or "accepted" may be missing at central in the end, or be something else
//     there, or have no outcome: lost.
//   - what the simulators recorded. Each command that reached a server has to be
//     accounted for by an operation that says it sent it; the power was cut, and the
//     server reset and interrupted, no more often than asked; no operation was shown
//     with two outcomes or ended twice: doubled.
//   - the sequences. The commands at a server are those of its operations in the order
//     of their sequences; of two requests at one door the later has the higher
//     sequence; where the newest operation succeeded the server is in its final state:
//     reordered.
//   - that no BMC ever had two exchanges in hand, that central shows in the end what is
//     so at the servers, that each of them obeys then, that no process crashed, and
//     that the journals and the database are sound.
//
// The seed decides what is asked for and which faults come in which order. When they
// come, and so what they meet, is up to the machine: a seed does not replay a run.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store/pgtest"
	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/powertest"
)

// soakInner is set for a process of a test in a mount namespace of its own.
const soakInner = "RACKPOWER_SOAK_INNER"

// soakPlan is how long and how hard.
type soakPlan struct {
	length   time.Duration // of requests and faults
	seed     uint64
	pace     float64       // of the faults
	racks    []string      // one agent each
	farm     int           // BMCs of the farm for each
	deadline time.Duration // of operations, at most
	quiet    time.Duration // within which everything ends after that
	// allClocks has central's clock stepped too, for which it is built anew.
	allClocks bool
	// spared: no daemon suffers, only BMCs do, so that what grows is seen.
	spared bool
}

func planSoak(t *testing.T) soakPlan {
	t.Helper()
	p := soakPlan{
		length: 9 * time.Second, seed: uint64(time.Now().UnixNano()), pace: 0.15, racks: []string{"r1", "r2"}, farm: 4,
		deadline: 8 * time.Second, quiet: 90 * time.Second,
	}
	if text := os.Getenv("SOAK_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
		p.seed = seed
	}
	if text := os.Getenv("SOAK_TIME"); text != "" {
		length, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("SOAK_TIME: %v", err)
		}
		p.length, p.pace, p.racks, p.deadline, p.quiet, p.allClocks = length, 1, []string{"r1", "r2", "r3"}, 45*time.Second, 5*time.Minute, true
	}
	p.spared = os.Getenv("SOAK_SPARED") != ""
	return p
}

func TestSoak(t *testing.T) {
	if inOwnMounts(t) {
		return
	}
	plan := planSoak(t)
	s := newSoak(t, plan)
	defer s.stop()
	began := time.Now()
	s.disturb()
	disturbed := time.Since(began)
	s.calmDown()
	calm := time.Since(began) - disturbed
	v := s.verdict()
	v.quietAfter = calm
	v.print(os.Stdout, plan.seed, disturbed, s.h)
	if bad := v.bad(); len(bad) > 0 {
		t.Errorf("%d things are wrong (seed %d); logs and data are in %s", len(bad), plan.seed, s.dir)
	}
}

// inOwnMounts runs the test once more in a mount namespace of its own, with which all that it
// mounts goes, even if it is killed. It reports false within that, and when there can be none.
func inOwnMounts(t *testing.T) bool {
	if os.Geteuid() != 0 || os.Getenv(soakInner) != "" {
		return false
	}
	var out bytes.Buffer
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), soakInner+"=1")
	cmd.Stdout, cmd.Stderr = &out, &out
	if testing.Verbose() {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		t.Errorf("%v\n%s", err, out.String())
	case err != nil:
		return false
	}
	return true
}

// soak is a site that is made to suffer.
type soak struct {
	*site
	plan     soakPlan
	h        *hardship
	memory   *memory
	daemons  []*daemon // central first
	volumes  map[string]*volume
	clocks   map[string]string // file by daemon
	machines []*machine
	doors    map[string]*api.Client
	usage    usage

	unwatch func() // ends the watchers
}

func newSoak(t *testing.T, plan soakPlan) *soak {
	t.Helper()
	dir, err := os.MkdirTemp("", "rackpower-soak-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	s := &soak{
		site: siteIn(t, dir), plan: plan, h: newHardship(), memory: newMemory(),
		usage: usage{samples: map[string][]int64{}}, volumes: map[string]*volume{}, clocks: map[string]string{}, doors: map[string]*api.Client{},
	}
	s.makeVolumes()
	s.overTLS()
	s.makeDaemons()
	s.doors["central"] = s.client
	for _, rack := range plan.racks {
		s.doors[rack] = clientOf(t, s.agentSocket(rack))
	}
	s.makeMachines()
	return s
}

// stop ends all processes and takes the volumes off.
func (s *soak) stop() {
	for _, d := range s.daemons {
		d.stop()
	}
	for _, v := range s.volumes {
		if err := v.unmount(); err != nil {
			s.t.Errorf("%v", err)
		}
		if !s.t.Failed() {
			continue
		}
		s.t.Logf("the data of %s is in %s", filepath.Base(v.dir), v.image)
	}
	s.volumes = nil
}

func (s *soak) names() []string { return append([]string{"central"}, s.plan.racks...) }

func (s *soak) makeVolumes() {
	if why := canMount(); why != "" {
		s.h.leave("disk full, disk read-only", why)
		return
	}
	for _, name := range s.names() {
		v, err := newVolume(filepath.Join(s.dir, name), volumeFor(s.plan.length))
		if err != nil {
			s.h.leave("disk full, disk read-only: "+name, err.Error())
			continue
		}
		s.volumes[name] = v
	}
}

func (s *soak) makeDaemons() {
	dir := filepath.Join(s.dir, "stepped")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.t.Fatal(err)
	}
	cli, serve := s.cli, s.serve
	if bin, err := buildStepped(dir, "rackpower/cmd/rackpower", false); err != nil {
		s.h.leave("agent clock stepped", err.Error())
	} else {
		cli, s.clocks["r1"] = bin, filepath.Join(dir, "r1.clock")
	}
	if !s.plan.allClocks {
		s.h.leave("central clock stepped", "only in make soak, for it takes a build of SQLite")
	} else if bin, err := buildStepped(dir, "rackpower/cmd/rackpower-central", true); err != nil {
		s.h.leave("central clock stepped", err.Error())
	} else {
		serve, s.clocks["central"] = bin, filepath.Join(dir, "central.clock")
	}
	start := func(d *daemon) {
		s.daemons = append(s.daemons, d)
		go d.run() // waited for by stop
	}
	if pgtest.Wanted() {
		s.serves = []string{"--database", pgtest.URL(s.t)}
	}
	start(newDaemon(s.site, "central", serve, s.centralArgs(), soakClock+"="+s.clocks["central"]))
	s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(s.t.Context()); return err == nil })
	for _, rack := range s.plan.racks {
		bin := s.cli
		if s.clocks[rack] != "" {
			bin = cli
		}
		start(newDaemon(s.site, rack, bin, s.agentArgs(rack, "@every 2s"), soakClock+"="+s.clocks[rack]))
	}
}

func (s *soak) makeMachines() {
	farm := startFarm(s.t, bmcsim.Config{
		Count: s.plan.farm * len(s.plan.racks), Seed: int64(s.plan.seed), BootTime: 500 * time.Millisecond,
		LogFile: filepath.Join(s.dir, "farm.log"), Redfish: &bmcsim.Redfish{Profiles: bmcsim.Profiles},
	})
	s.machines = farmMachines(farm, s.plan.racks)
	real, err := ipmiSimMachines(s.t, s.dir, s.plan.racks)
	switch {
	case errors.Is(err, powertest.ErrNoIPMISim):
		s.h.leave("BMCs of OpenIPMI's ipmi_sim", err.Error())
	case err != nil:
		s.t.Fatal(err)
	}
	s.machines = append(s.machines, real...)
	var specs []api.NodeSpec
	for _, m := range s.machines {
		specs = append(specs, m.spec)
	}
	s.addNodes(specs...)
	for _, rack := range s.plan.racks {
		s.until(20*time.Second, rack+" has its nodes", func() bool {
			nodes, err := s.doors[rack].Nodes(s.t.Context(), "all")
			return err == nil && len(nodes) == len(s.nodesOf(rack))
		})
	}
}

// nodesOf lists the nodes that can be asked for at a door.
func (s *soak) nodesOf(door string) []string {
	var names []string
	for _, m := range s.machines {
		if door == "central" || m.spec.Rack == door {
			names = append(names, m.spec.Name)
		}
	}
	return names
}

// maxRounds bounds how much longer than planned the faults go on until each kind has
// had its turn.
const maxRounds = time.Minute

// disturb is the time of requests and faults.
func (s *soak) disturb() {
	ctx, cancel := context.WithTimeout(s.t.Context(), s.plan.length+maxRounds)
	defer cancel()
	watching, unwatch := context.WithCancel(s.t.Context())
	var watchers, parts, rounds sync.WaitGroup
	for door, client := range s.doors {
		watchers.Go(func() { s.memory.watch(watching, door, client) })
	}
	s.unwatch = func() { unwatch(); watchers.Wait() }
	seed := uint64(0)
	next := func() *rand.Rand { seed++; return rand.New(rand.NewPCG(s.plan.seed, seed)) }
	for _, door := range append(s.names(), s.names()...) { // two askers at each
		a := &asker{
			name: "asker at " + door, door: door, client: s.doors[door], nodes: s.nodesOf(door), rng: next(),
			pause: time.Duration(len(s.plan.racks)) * 200 * time.Millisecond, deadline: s.plan.deadline, memory: s.memory,
		}
		parts.Go(func() { a.run(ctx) })
	}
	tormentor := func() *tormentor {
		rounds.Add(1)
		return &tormentor{ctx: ctx, rng: next(), pace: s.plan.pace, h: s.h, t: s.t, round: sync.OnceFunc(rounds.Done)}
	}
	watchers.Go(func() { s.usage.sample(ctx, s) })
	for _, d := range s.daemons {
		if s.plan.spared {
			continue
		}
		p := tormentor()
		blows := blowsAt(d, s.volumes[d.name], s.clocks[d.name], s.h)
		parts.Go(func() { p.torment(blows, 6*time.Second) })
	}
	p := tormentor()
	parts.Go(func() { p.hurtMachines(s.machines) })
	pauseFor(ctx, s.plan.length)
	rounds.Wait()
	cancel()
	parts.Wait()
}

// calmDown waits until all that was asked has come to its end.
func (s *soak) calmDown() {
	for _, m := range s.machines {
		m.lift()
	}
	var waits string
	for end := time.Now().Add(s.plan.quiet); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if waits = s.unquiet(); waits == "" {
			break
		}
	}
	if waits != "" {
		s.t.Errorf("not quiet after %s: %s", s.plan.quiet, waits)
	}
	pauseFor(s.t.Context(), 500*time.Millisecond) // for the watchers to see the last of it
	s.unwatch()
}

// unquiet says what is still to end, "" if nothing is.
func (s *soak) unquiet() string {
	for door, client := range s.doors {
		one, cancel := context.WithTimeout(s.t.Context(), 4*time.Second)
		found, err := client.QueryOps(one, api.QueryOps{Outstanding: true})
		cancel()
		if err != nil {
			return fmt.Sprintf("%s: %v", door, err)
		}
		if n := len(found.Ops); n > 0 {
			op := found.Ops[0]
			return fmt.Sprintf("%d operations at %s, the first is %s of %s (%s): %s, %s", n, door, op.Action, op.Node, op.ID, op.Phase, op.Message)
		}
	}
	ids := s.memory.promised()
	for len(ids) > 0 {
		some := ids[:min(len(ids), 2000)]
		ids = ids[len(some):]
		found, err := s.client.QueryOps(s.t.Context(), api.QueryOps{IDs: some})
		if err != nil || len(found.Ops) < len(some) {
			return fmt.Sprintf("central knows %d of %d promised operations (%v)", len(found.Ops), len(some), err)
		}
	}
	return ""
}

// promised lists the ids that were answered and not refused.
func (m *memory) promised() (ids []string) {
	m.with(func() {
		for id, x := range m.all {
			if !x.answered.IsZero() && !x.refused {
				ids = append(ids, id)
			}
		}
	})
	return ids
}

// verdict gathers the evidence and has it judged.
func (s *soak) verdict() *verdict {
	e := evidence{told: s.memory.all, outcomes: s.memory.outcomes, ends: map[string]int{}}
	seen := s.readAll()
	for _, m := range s.machines {
		name := m.spec.Name
		found, err := s.client.QueryOps(s.t.Context(), api.QueryOps{Nodes: []string{name}})
		if err != nil {
			s.t.Fatal(err)
		}
		e.ops = append(e.ops, found.Ops...)
		entries, err := s.client.Audit(s.t.Context(), name, 100_000)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.What == "ended" {
				e.ends[entry.Op]++
			}
		}
		srv := server{name: name, commands: m.commands(), cuts: -1, power: m.power(), seen: seen[name]}
		if m.counted != nil {
			srv.cuts, srv.resets, srv.diags = m.counted()
		}
		if m.overlaps != nil {
			srv.overlaps = s.overlapsOf(m)
		}
		e.servers = append(e.servers, srv)
	}
	v := judgeSoak(e)
	s.memory.with(func() {
		v.tries, v.repeats, v.cancelled, v.unexpected = s.memory.tries, s.memory.repeats, s.memory.cancels, s.memory.unexpected
	})
	v.disobedient, v.usage = s.obey(), &s.usage
	if s.plan.spared {
		v.growing = s.usage.growing()
	}
	s.takeDown(v)
	return v
}

// readAll has central read all nodes until it shows what is so, for as long as that
// may take, and returns what it shows.
func (s *soak) readAll() map[string]power.State {
	seen := map[string]power.State{}
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		nodes, err := s.client.ReadNodes(s.t.Context(), api.ReadNodes{Names: s.nodesOf("central"), Wait: 20 * time.Second})
		if err != nil {
			continue
		}
		for _, n := range nodes {
			seen[n.Name] = n.State
		}
		wrong := 0
		for _, m := range s.machines {
			if m.power() != seen[m.spec.Name] {
				wrong++
			}
		}
		if wrong == 0 {
			break
		}
	}
	return seen
}

// obey has each server do the opposite of what it does, through central, and lists
// those that did not.
func (s *soak) obey() (not []string) {
	wanted := map[string]*machine{}
	var ids []string
	for _, m := range s.machines {
		action := power.ActOn
		if m.power() == power.On {
			action = power.ActOff
		}
		op, err := s.ask(m.spec.Name, action, func(r *api.OpRequest) { r.Deadline = 80 * time.Second })
		if err != nil {
			not = append(not, fmt.Sprintf("%s: %v", m.spec.Name, err))
			continue
		}
		wanted[op.ID] = m
		ids = append(ids, op.ID)
	}
	var found api.FoundOps
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var err error
		if found, err = s.client.QueryOps(s.t.Context(), api.QueryOps{IDs: ids}); err == nil && !anyOpen(found.Ops) {
			break
		}
	}
	for _, op := range found.Ops {
		if m := wanted[op.ID]; op.Outcome != power.Succeeded || m.power() != op.Action.Final() {
			not = append(not, fmt.Sprintf("%s is %s after %s: %s %s %s", op.Node, m.power(), op.Action, op.Phase, op.Outcome, op.Detail))
		}
	}
	return not
}

func anyOpen(ops []api.Op) bool {
	for _, op := range ops {
		if op.Outcome == "" {
			return true
		}
	}
	return false
}

// takeDown stops the daemons and looks at what they leave behind.
func (s *soak) takeDown(v *verdict) {
	for _, d := range s.daemons {
		d.stop()
		v.starts += d.starts
		v.crashed = append(v.crashed, d.crashed...)
		v.gaveUp = append(v.gaveUp, d.gaveUp...)
		bin, args := s.cli, []string{"journal", "verify", filepath.Join(s.dir, d.name)}
		if d.name == "central" {
			bin, args = s.serve, append([]string{"check", "--data", filepath.Join(s.dir, d.name)}, s.serves...)
		}
		if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
			v.unsound = append(v.unsound, fmt.Sprintf("%s: %v: %s", d.name, err, strings.TrimSpace(string(out))))
		}
	}
}

// overlapsOf are the exchanges that overlapped at a machine's BMC, each with what had
// happened to the rack's agent.
func (s *soak) overlapsOf(m *machine) []string {
	var all []string
	for _, o := range m.overlaps() {
		text := o.String()
		for _, d := range s.daemons {
			if d.name == m.spec.Rack {
				text += "; " + d.lately(o.At)
			}
		}
		all = append(all, text)
	}
	return all
}
