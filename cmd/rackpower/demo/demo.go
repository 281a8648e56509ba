// Package demo plays rackpower's demonstration: it starts a small data centre on this machine,
// has the command line do to it what people do, and checks in the end what it claimed.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// demo is a small data centre on loopback: simulated BMCs within this process,
// central and one agent a rack as processes of their own, so that they can be
// killed like any. It tells its story through the command line that people use,
// and in the end holds every claim against what the BMCs recorded.
type demo struct {
	out     io.Writer
	dir     string
	self    string // this binary
	central string // the other one
	racks   int
	nodes   int // a rack
	began   time.Time
	page    string // HOST:PORT of the page; "": none

	farms  []*bmcsim.Farm // by rack
	gossip []string       // address of each rack's agent
	procs  map[string]*exec.Cmd
	client *api.Client
	claims []claim
}

type claim struct {
	text string
	err  error
}

// The demo's BMCs take this long to show what they were told.
const (
	demoOnAfter  = 400 * time.Millisecond
	demoOffAfter = 600 * time.Millisecond
)

// demoDebounce replaces the 30 s that nobody wants to watch.
const demoDebounce = "2s"

// Run plays the whole story. It returns an error when a claim did not hold.
// With page central serves its page, until ctx ends.
func Run(ctx context.Context, out io.Writer, racks, nodes int, keep, page bool) error {
	dir, err := os.MkdirTemp("", "rackpower-demo-")
	if err != nil {
		return fmt.Errorf("cannot make a directory for the demo: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	d := &demo{
		out: out, dir: dir, self: self, central: filepath.Join(filepath.Dir(self), "rackpower-central"),
		racks: racks, nodes: nodes, began: time.Now(), procs: map[string]*exec.Cmd{},
	}
	if _, err := os.Stat(d.central); err != nil {
		return fmt.Errorf("the demo needs %s beside this program (make build): %w", d.central, err)
	}
	if page {
		if d.page, err = freeAddr(); err != nil {
			return err
		}
	}
	err = d.play(ctx)
	if err == nil && page {
		err = d.showPage(ctx)
	}
	d.stopAll()
	if keep || err != nil {
		d.say("state and logs are kept in %s", dir)
		return err
	}
	return os.RemoveAll(dir)
}

func (d *demo) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{
		d.comeUp, d.addNodes, d.statuses, d.brake, d.operations, d.conflicts, d.crash, d.goodbye,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return d.verdict()
}

func (d *demo) chapter(text string) {
	fmt.Fprintf(d.out, "\n== %s   [%.0f s]\n", text, time.Since(d.began).Seconds())
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "   "+format+"\n", args...) }

func (d *demo) claim(text string, err error) {
	d.claims = append(d.claims, claim{text, err})
	if err != nil {
		d.say("not true: %s: %v", text, err)
	}
}

func (d *demo) rack(r int) string { return fmt.Sprintf("r%d", r+1) }

func (d *demo) all(r int) string { return fmt.Sprintf("%sn[01-%02d]", d.rack(r), d.nodes) }

func (d *demo) comeUp(ctx context.Context) error {
	d.chapter(fmt.Sprintf("%d racks of %d servers, an agent on each, one central", d.racks, d.nodes))
	for r := range d.racks {
		farm, err := bmcsim.Start(ctx, bmcsim.Config{
			Count: d.nodes, Listen: netip.AddrFrom4([4]byte{127, 0, byte(20 + r), 1}), OnAfter: demoOnAfter, OffAfter: demoOffAfter,
			Names:   func(i int) string { return fmt.Sprintf("%sn%02d", d.rack(r), i+1) },
			LogFile: filepath.Join(d.dir, "bmcs-"+d.rack(r)+".jsonl"),
		})
		if err != nil {
			return fmt.Errorf("cannot start the simulated BMCs: %w", err)
		}
		d.farms = append(d.farms, farm)
	}
	d.say("%d BMCs speak IPMI on 127.0.20.1 and up; every server is off", d.racks*d.nodes)
	socket := filepath.Join(d.dir, "central.sock")
	args := []string{"serve", "--data", filepath.Join(d.dir, "central"), "--socket", socket, "--gossip", "127.0.0.1:0"}
	if d.page != "" {
		args = append(args, "--listen", d.page, "--tls-name", "127.0.0.1", "--site", "demo")
	}
	if err := d.spawn(ctx, "central", d.central, args...); err != nil {
		return err
	}
	client, err := api.NewClient("unix://" + socket)
	if err != nil {
		return err
	}
	d.client = client
	if err := d.until(ctx, 20*time.Second, "central answers", func() bool { _, err := client.Info(ctx); return err == nil }); err != nil {
		return err
	}
	for r := range d.racks {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		d.gossip = append(d.gossip, addr)
		if err := d.startAgent(ctx, r); err != nil {
			return err
		}
	}
	if err := d.until(ctx, 20*time.Second, "all agents are alive", func() bool { return d.alive(ctx) == d.racks }); err != nil {
		return err
	}
	return d.cli(ctx, 0, "agents")
}

func (d *demo) addNodes(ctx context.Context) error {
	d.chapter("The nodes are made known")
	var specs []api.NodeSpec
	for r, farm := range d.farms {
		for i := range farm.Len() {
			ep := farm.BMC(i).Endpoint()
			specs = append(specs, api.NodeSpec{Name: farm.BMC(i).Name(), Rack: d.rack(r), BMC: ep.String(), Password: string(ep.Password)})
		}
	}
	data, err := json.MarshalIndent(specs, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(d.dir, "nodes.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return err
	}
	if err := d.cli(ctx, 0, "node", "import", file); err != nil {
		return err
	}
	if err := d.untilAll(ctx, "every BMC has been read", func(n api.Node) bool { return n.Reach == power.ReachOK }); err != nil {
		return err
	}
	return d.cli(ctx, 0, "status")
}

func (d *demo) statuses(ctx context.Context) error {
	d.chapter("A status is given, and the power follows")
	first := d.all(0)
	if err := d.cli(ctx, 0, "node", "set-status", first, "DEPLOYING", "--reason", "customer ordered"); err != nil {
		return err
	}
	d.say("DEPLOYING wants a node on. Nobody asks for power now; the rack's monitor does, once two")
	d.say("readings agree (%s apart here, 30 s unless you say otherwise):", demoDebounce)
	err := d.until(ctx, 30*time.Second, first+" on", func() bool { return d.count(0, power.On) == d.nodes })
	d.claim("a status alone brought "+first+" on, with one power-on each",
		errors.Join(err, d.each(0, func(b *bmcsim.BMC) error { return want("power-ons", b.PowerOns(), 1) })))
	if err := d.untilAll(ctx, "central has the outcomes", func(n api.Node) bool { return n.Op == nil }); err != nil {
		return err
	}
	if err := d.cli(ctx, 0, "status", first); err != nil {
		return err
	}
	d.say("An off against that would be undone by the monitor, so it is refused (exit 5):")
	if err := d.cli(ctx, 5, "off", d.rack(0)+"n01"); err != nil {
		return err
	}
	return d.cli(ctx, 0, "node", "set-status", first, "DEPLOYED", "--reason", "installed")
}

// brake has a wrong status pasted over most of a rack that is in use.
func (d *demo) brake(ctx context.Context) error {
	if d.nodes < 7 {
		return nil // the brake holds for more than 5 nodes
	}
	most := fmt.Sprintf("%sn[01-%02d]", d.rack(0), d.nodes-1)
	d.chapter("A wrong status does not darken a rack")
	d.say("Somebody gives most of the rack's servers, which run, the status of free ones. It wants them off:")
	if err := d.cli(ctx, 0, "node", "set-status", most, "READY", "--reason", "pasted the wrong list"); err != nil {
		return err
	}
	held := func() int {
		brakes, err := d.client.Brakes(ctx)
		if err != nil || len(brakes) == 0 {
			return 0
		}
		return len(brakes[0].Nodes)
	}
	err := d.until(ctx, 20*time.Second, "the brake holds them all", func() bool { return held() == d.nodes-1 })
	d.claim("the fleet brake held all of "+most, err)
	for _, args := range [][]string{{"brake", "show"}, {"explain", d.rack(0) + "n01"}} {
		if err := d.cli(ctx, 0, args...); err != nil {
			return err
		}
	}
	d.say("The mistake is undone, and the brake lets go by itself:")
	if err := d.cli(ctx, 0, "node", "set-status", most, "DEPLOYED", "--reason", "undo"); err != nil {
		return err
	}
	err = d.until(ctx, 20*time.Second, "the brake lets go", func() bool { return held() == 0 })
	d.claim("none of "+most+" lost power", errors.Join(err, d.each(0, func(b *bmcsim.BMC) error { return want("cuts", b.Cuts(), 0) })))
	d.say("Had it been meant: confirmed (--yes) it is followed at once.")
	two := d.rack(0) + "n[01-02]"
	if err := d.cli(ctx, 0, "node", "set-status", two, "READY", "--yes", "--reason", "released"); err != nil {
		return err
	}
	err = d.until(ctx, 30*time.Second, two+" off", func() bool { return d.count(0, power.Off) == 2 })
	d.claim("a confirmed status turned "+two+" off", err)
	return nil
}

func (d *demo) operations(ctx context.Context) error {
	d.chapter("Operations: asked once, verified, never doubled")
	nodes := d.all(1)
	if err := d.cli(ctx, 0, "on", nodes); err != nil {
		return err
	}
	d.say("Asking again sends nothing: they are on already.")
	if err := d.cli(ctx, 0, "on", nodes); err != nil {
		return err
	}
	d.claim("asked twice, "+nodes+" got one power-on each", d.each(1, func(b *bmcsim.BMC) error { return want("power-ons", b.PowerOns(), 1) }))
	return nil
}

func (d *demo) conflicts(ctx context.Context) error {
	r := d.racks - 1
	d.chapter("Conflicting requests are put in order, not raced")
	node := d.rack(r) + "n01"
	bmc := d.farms[r].BMC(0)
	for _, step := range []struct {
		says string
		args []string
	}{
		{"A power-on starts,", []string{"on", node, "--wait", "accepted"}},
		{"the same again joins it,", []string{"on", node, "--wait", "accepted"}},
		{"a cycle asks for more than on and follows,", []string{"cycle", node, "--wait", "accepted"}},
		{"and an off contradicts them both: it takes their place.", []string{"off", node, "--reason", "maintenance"}},
	} {
		d.say("%s", step.says)
		if err := d.cli(ctx, 0, step.args...); err != nil {
			return err
		}
	}
	if err := d.cli(ctx, 0, "ops", node); err != nil {
		return err
	}
	d.claim(node+" ended off, as the newest request said", want("state", bmc.Power(), power.Off))
	d.claim("the superseded cycle never cut power by itself: "+node+" was cut at most once", atMost("cuts", bmc.Cuts(), 1))
	ops, err := d.client.QueryOps(ctx, api.QueryOps{Nodes: []string{node}})
	d.claim("each of the requests for "+node+" has one outcome", errors.Join(err, everyEnded(ops.Ops)))
	return nil
}

func (d *demo) crash(ctx context.Context) error {
	const r = 1
	rack, nodes := d.rack(r), d.all(r)
	d.chapter("An agent is killed in the middle of its work")
	before := make([]int, d.nodes)
	for i := range d.nodes {
		before[i] = d.farms[r].BMC(i).Cuts()
	}
	wasOn := d.count(r, power.On) == d.nodes
	if err := d.cli(ctx, 0, "cycle", nodes, "--wait", "accepted", "--reason", "new firmware", "--yes"); err != nil {
		return err
	}
	if err := d.until(ctx, 20*time.Second, "some nodes are off", func() bool { return d.count(r, power.Off) > 0 }); err != nil {
		return err
	}
	d.kill(rack)
	d.say("kill -9 of agent %s: %d of its %d nodes are off, half-way through their cycle", rack, d.count(r, power.Off), d.nodes)
	err := d.until(ctx, 30*time.Second, "central misses the agent", func() bool { return d.alive(ctx) < d.racks })
	if err != nil {
		return err
	}
	d.say("A request meanwhile is taken by central and kept; it says so:")
	if err := d.cli(ctx, 0, "diag", rack+"n01", "--wait", "none"); err != nil {
		return err
	}
	if err := d.cli(ctx, 0, "ops", "--outstanding"); err != nil {
		return err
	}
	d.say("The agent comes back and reads its journal:")
	if err := d.startAgent(ctx, r); err != nil {
		return err
	}
	err = d.until(ctx, 60*time.Second, "all operations have ended", func() bool { return d.outstanding(ctx) == 0 })
	d.claim("after the crash every accepted operation came to its end", err)
	if err := d.cli(ctx, 0, "status", nodes); err != nil {
		return err
	}
	d.claim("all of "+nodes+" are on again", want("nodes on", d.count(r, power.On), d.nodes))
	for i := range d.nodes {
		if got := d.farms[r].BMC(i).Cuts() - before[i]; wasOn && got != 1 {
			d.claim("no cycle cut power twice", fmt.Errorf("%s was cut %d times", d.farms[r].BMC(i).Name(), got))
			return nil
		}
	}
	d.claim("each cycle cut power exactly once, crash or not", nil)
	d.claim("the request taken during the outage was carried out once", want("diagnostic interrupts", d.farms[r].BMC(0).Diags(), 1))
	return nil
}

func (d *demo) goodbye(ctx context.Context) error {
	d.chapter("What the agents know of each other, without central")
	socket := filepath.Join(d.dir, d.rack(0)+".sock")
	agent, err := api.NewClient("unix://" + socket)
	if err != nil {
		return err
	}
	defer agent.Close()
	err = d.until(ctx, 30*time.Second, "all agents see each other", func() bool { return d.membersAlive(ctx, agent) == d.racks+1 })
	if err != nil {
		return err
	}
	if err := d.cli(ctx, 0, "members", "--socket", socket); err != nil {
		return err
	}
	d.chapter("What central knows")
	if err := d.cli(ctx, 0, "status", "@state:off"); err != nil {
		return err
	}
	return d.cli(ctx, 0, "audit", d.rack(0)+"n01")
}

func (d *demo) verdict() error {
	ctx := context.Background()
	d.chapter("The claims, held against what the BMCs recorded")
	d.claim("never were two commands in flight at one BMC",
		d.everyBMC(func(b *bmcsim.BMC) error { return atMost("in flight", b.MaxInFlight(), 1) }))
	ops, err := d.client.QueryOps(ctx, api.QueryOps{})
	d.claim(fmt.Sprintf("all %d requests have exactly one outcome", len(ops.Ops)), errors.Join(err, everyEnded(ops.Ops)))
	nodes, err := d.client.Nodes(ctx, "all")
	d.claim("central's picture of every node is what its BMC says", errors.Join(err, d.agrees(nodes)))
	failed := 0
	for _, c := range d.claims {
		mark := "true "
		if c.err != nil {
			mark = "false"
			failed++
		}
		fmt.Fprintf(d.out, "   %s  %s\n", mark, c.text)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d claims did not hold", failed, len(d.claims))
	}
	fmt.Fprintf(d.out, "\n%d claims, all true, in %.0f s.\n", len(d.claims), time.Since(d.began).Seconds())
	return nil
}
