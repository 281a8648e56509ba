package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// figuresWanted says that times are to be measured at length.
func figuresWanted() bool { return os.Getenv("RACKPOWER_FIGURES") != "" }

// TestGossipAcrossHosts has central and twelve agents on hosts of their own, and takes
// from them packets, each other, central and their lives.
func TestGossipAcrossHosts(t *testing.T) {
	h := newHall(t, 12)
	h.phase("start", h.comesUp)
	h.phase("change", h.tellsAChange)
	h.phase("loss", h.losesPackets)
	h.phase("partition", h.falls)
	h.phase("questions", h.answersQuestions)
	h.phase("keys", h.changesKeys)
	h.phase("strangers", h.refusesStrangers)
	h.phase("serf", h.speaksSerf)
	h.phase("failure", h.losesAnAgent)
	h.phase("outage", h.losesCentralAndHalf)
	t.Logf("12 agents of %d nodes, each on a host of its own\n%s", bmcsEach, strings.Join(h.figures, "\n"))
}

func (h *hall) comesUp() {
	took := h.within(40*time.Second, func() string { return "all are members of one cluster" },
		func() bool { return whole(h.everybody(), len(h.racks)+1) })
	h.figure("all started at once, with the key from central: members whole", took)
	h.figure("then: all nodes on all members", h.agree(30*time.Second, h.truth(), h.everybody()))
	for _, rack := range h.racks {
		out := h.mustLocal(rack, "peers", "-o", "json")
		if got := decodeJSON[[]api.PeerNode](h.site.t, out); len(got) != bmcsEach*len(h.racks) {
			h.site.t.Errorf("rackpower peers on %s: %d nodes", rack, len(got))
		}
		if info, err := os.Stat(filepath.Join(h.dir, rack, "gossip.keyring")); err != nil || info.Mode().Perm() != 0o600 {
			h.site.t.Errorf("the key is not kept on %s: %v, %v", rack, info, err)
		}
	}
}

func (h *hall) tellsAChange() {
	rounds := 3
	if figuresWanted() {
		rounds = 15
	}
	var took []time.Duration
	for i := range rounds {
		action := []power.Action{power.ActOn, power.ActOff}[i%2]
		node := h.racks[len(h.racks)-1] + "n1"
		h.mustLocal(h.racks[len(h.racks)-1], "local", string(action), node, "--reason", "test")
		took = append(took, h.agree(10*time.Second, map[string]power.State{node: action.Final()}, h.everybody()))
	}
	slices.Sort(took)
	h.figure(fmt.Sprintf("a node is on, as its agent says: seen by all, median of %d", rounds), took[rounds/2])
}

func (h *hall) losesPackets() {
	for _, name := range slices.Sorted(maps.Keys(h.everybody())) {
		h.lose(name, 10)
	}
	rounds := 1
	if figuresWanted() {
		rounds = 4
	}
	worst := time.Duration(0)
	for i := range rounds {
		action := []power.Action{power.ActOn, power.ActOff}[i%2]
		h.flip(action, h.racks...)
		worst = max(worst, h.agree(10*time.Second, h.truth(), h.everybody()))
		for node, state := range h.truth() {
			if state != action.Final() {
				h.site.t.Errorf("%s is %s after %s", node, state, action)
			}
		}
	}
	h.figure(fmt.Sprintf("all nodes flip, 10 %% of packets lost: none missing, worst of %d", rounds), worst)
	for _, name := range slices.Sorted(maps.Keys(h.everybody())) {
		h.heal(name)
	}
}

// falls has the hosts fall into two halves, central in the first.
func (h *hall) falls() {
	lasts := 15 * time.Second
	if figuresWanted() {
		lasts = time.Minute
	}
	h.agree(10*time.Second, h.truth(), h.everybody())
	here, there := h.racks[:len(h.racks)/2], h.racks[len(h.racks)/2:]
	var ours, theirs []string
	for _, rack := range here {
		ours = append(ours, h.addr(rack))
	}
	ours = append(ours, h.addr("central"))
	for _, rack := range there {
		theirs = append(theirs, h.addr(rack))
	}
	began := time.Now()
	for _, name := range append([]string{"central"}, here...) {
		h.part(name, theirs)
	}
	for _, name := range there {
		h.part(name, ours)
	}
	before := h.truth()
	h.flip(power.ActOff, here[0], here[1], there[0], there[1])
	h.flip(power.ActOn, there[2])
	now := h.truth()
	for half, other := range map[string]string{here[5]: there[0], there[5]: here[0]} {
		// What the own half does is seen; of the other half the last that was heard.
		want := map[string]power.State{other + "n1": before[other+"n1"]}
		if half == here[5] {
			want[here[1]+"n2"] = now[here[1]+"n2"]
		} else {
			want[there[1]+"n2"] = now[there[1]+"n2"]
		}
		h.agree(10*time.Second, want, h.only(half))
	}
	time.Sleep(time.Until(began.Add(lasts)))
	if lasts > 30*time.Second && (!sees(h.agents[here[0]], there[0], "failed") || !sees(h.agents[there[0]], here[0], "failed")) {
		h.site.t.Errorf("the other half is not shown as failed after %s", lasts)
	}
	for name := range h.everybody() {
		h.heal(name)
	}
	healed := time.Now()
	h.agree(20*time.Second, h.truth(), h.everybody())
	h.figure(fmt.Sprintf("parted for %s, healed: all nodes on all members", lasts), time.Since(healed))
	h.within(30*time.Second, func() string { return "all are members again" }, func() bool { return whole(h.everybody(), len(h.racks)+1) })
	h.figure("and all members alive everywhere", time.Since(healed))
}

// answersQuestions asks who can reach what, at agents and at central.
func (h *hall) answersQuestions() {
	near, far := h.racks[nearRack]+"n1", h.racks[5]+"n1"
	t := h.site.t
	ping := h.mustLocal("r2", "ping", "r3")
	if !strings.Contains(ping, "r3 answered after ") {
		t.Errorf("%s", ping)
	}
	if out, errs, exit := h.local("r2", "ping", "r99"); exit != 1 || !strings.Contains(errs, "r99") {
		t.Errorf("ping of nobody: %d %s%s", exit, out, errs)
	}
	if pong := decodeJSON[[]api.Pong](t, h.mustRun("ping", "central", "--central", "unix://"+h.socket(), "-o", "json")); len(pong) != 1 ||
		pong[0].RTTMS <= 0 {
		t.Errorf("%+v", pong)
	}
	// Central and the owner know the address of a BMC; the others find the owner.
	for what, out := range map[string]string{
		"owner":   h.mustLocal(h.racks[nearRack], "peers", "--who", near, "-o", "json"),
		"central": h.mustRun("peers", "--who", near, "--central", "unix://"+h.socket(), "-o", "json"),
	} {
		w := decodeJSON[[]api.Who](t, out)
		if len(w) != 1 || len(w[0].Owners) != 1 || w[0].Owners[0].Owner != h.racks[nearRack] || len(w[0].Reach) != len(h.racks) {
			t.Errorf("%s: %+v", what, w)
		}
	}
	toCentral := "--central=unix://" + h.socket()
	for _, c := range []struct{ got, want string }{
		{h.mustLocal("r4", "peers", "--who", far), "r6n1 is agent r6's (alive); its BMC can be reached by r6"},
		{h.mustRun("peers", "--who", far, toCentral), "its BMC can be reached by"},
		{h.mustLocal("r4", "members", "--role", "central", "-o", "name"), "central"},
		{h.mustLocal("r4", "members", "--status", "alive", "-o", "name"), "r2\nr3\nr4\nr5\nr6\nr7\nr8\nr9\nr10\nr11\nr12\n"},
		{h.mustRun("members", "--rack", "r7", toCentral), h.addr("r7")},
		{h.mustLocal("r4", "peers", "@r6 & @state:"+string(h.truth()["r6n2"])), "r6n2"},
		{h.mustLocal("r4", "members", "--status", "failed", "-o", "json"), "[]"},
		{h.mustRun("peers", far, "-o", "name", toCentral), far},
		{h.mustLocal("r4", "gossip", "keys", "list"), "13 of 13"},
	} {
		if !strings.Contains(c.got, c.want) {
			t.Errorf("want %q in\n%s", c.want, c.got)
		}
	}
}

// changesKeys changes the key of the running cluster while a rack flips, and starts an
// agent again that got the old key from central.
func (h *hall) changesKeys() {
	t := h.site.t
	list := func() []api.GossipKey {
		return decodeJSON[[]api.GossipKey](t, h.mustLocal("r2", "gossip", "keys", "list", "-o", "json"))
	}
	var before []api.GossipKey
	h.within(20*time.Second, func() string { return fmt.Sprintf("all tell of one key: %+v", before) }, func() bool {
		before = list()
		return len(before) == 1 && before[0].Members == len(h.racks)+1
	})
	file := filepath.Join(h.dir, "new.key")
	if err := os.WriteFile(file, []byte(h.mustRun("gossip", "keygen")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]string{
		{"gossip", "keys", "use", "--key-file", file},    // nobody has it
		{"gossip", "keys", "remove", before[0].ID},       // all send with it
		{"gossip", "keys", "use", "00000000"},            // no such key
		{"gossip", "keys", "install", "--key-file", "/"}, // no key
	} {
		if out, errs, exit := h.local("r2", wrong...); exit != 5 && exit != 2 || errs == "" {
			t.Errorf("%v: exit status %d\n%s%s", wrong, exit, out, errs)
		}
	}
	h.kill("r6") // is away meanwhile, and gets the new key from central
	alive := h.everybody()
	delete(alive, "r6")
	h.within(20*time.Second, func() string { return "r6 is known to be gone" }, func() bool { return whole(alive, len(h.racks)) })
	began, flips := time.Now(), 0
	step := func(args ...string) {
		t.Helper()
		h.mustLocal("r2", append([]string{"gossip", "keys"}, args...)...)
		action := []power.Action{power.ActOn, power.ActOff}[flips%2]
		flips++
		h.flip(action, "r3")
		h.agree(10*time.Second, map[string]power.State{"r3n1": action.Final(), "r3n4": action.Final()}, alive)
	}
	step("install", "--key-file", file)
	after := list()
	if len(after) != 2 {
		t.Fatalf("%+v", after)
	}
	id := after[slices.IndexFunc(after, func(k api.GossipKey) bool { return k.ID != before[0].ID })].ID
	step("use", id)
	step("remove", before[0].ID)
	h.figure("a new key installed, used, the old one removed, with a change each", time.Since(began))
	// A member that was slow to answer is suspected for a while: what counts is that all
	// end with the new key, and that nobody stays away.
	var now []api.GossipKey
	h.within(30*time.Second, func() string { return fmt.Sprintf("all have only the new key: %+v", now) }, func() bool {
		now = list()
		return len(now) == 1 && now[0].ID == id && now[0].Primary == len(h.racks)
	})
	h.within(30*time.Second, func() string { return "all who have the new key are members" },
		func() bool { return whole(alive, len(h.racks)) })
	for _, rack := range []string{"r5", "r6"} {
		h.kill(rack)
		h.startRack(rack)
	}
	h.agree(20*time.Second, h.truth(), h.only("r5"))
	came := time.Now()
	h.agree(20*time.Second, h.truth(), h.only("r6"))
	h.figure("an agent that was away during all three steps: has the new key from central", time.Since(came))
	h.within(20*time.Second, func() string { return "all are back with the new key" },
		func() bool { return whole(h.everybody(), len(h.racks)+1) })
}

// refusesStrangers has agents come with a wrong key and with none.
func (h *hall) refusesStrangers() {
	t := h.site.t
	addr := hostsNet + ".99"
	h.add("stranger", addr)
	file := filepath.Join(h.dir, "wrong.key")
	if err := os.WriteFile(file, []byte(h.mustRun("gossip", "keygen")), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"agent", "--name", "stranger", "--central", "none", "--gossip", addr + gossipPort, "--join", h.addr("r2") + gossipPort,
		"--data",
	}
	h.launchOn("stranger", "stranger", h.cli, append(args, filepath.Join(h.dir, "stranger"), "--gossip-key-file", file)...)
	h.within(15*time.Second, func() string { return "both sides say that the key is another" }, func() bool {
		return h.logged("stranger", "refused", h.addr("r2"), "uses another gossip key") &&
			h.logged("r2", "refused", addr, "uses another gossip key")
	})
	if sees(h.agents["r2"], "stranger", "alive") {
		t.Error("it came in")
	}
	h.kill("stranger")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", h.in("stranger", append(append([]string{h.cli}, args...), filepath.Join(h.dir, "keyless"))...)...)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(string(out), "give a gossip key") {
		t.Errorf("without a key: exit status %d\n%s", code, out)
	}
}

// losesAnAgent kills one and looks at what is said of it meanwhile.
func (h *hall) losesAnAgent() {
	t := h.site.t
	h.flip(power.ActOn, "r7")
	states := h.simmed("r7")
	h.agree(10*time.Second, states, h.everybody())
	watch, stop := h.watchMembers("r2")
	defer stop()
	h.kill("r7")
	killed := time.Now()
	h.within(30*time.Second, func() string { return "central knows" }, func() bool { return sees(h.client, "r7", "failed") })
	h.figure("an agent is killed: central knows it", time.Since(killed))
	left := maps.Clone(h.agents)
	delete(left, "r7")
	for name, c := range left {
		h.within(30*time.Second, func() string { return name + " knows" }, func() bool { return sees(c, "r7", "failed") })
	}
	h.figure("and all agents know it", time.Since(killed))
	h.agree(5*time.Second, states, left)
	out, errs, exit := h.local("r2", "peers", "@r7")
	if exit != 0 || !strings.Contains(errs+out, "rack agent r7 failed") || !strings.Contains(errs+out, "ago") ||
		!strings.Contains(out, "(failed)") {
		t.Errorf("peers: %d\n%s%s", exit, out, errs)
	}
	if out := h.mustLocal("r2", "members", "--status", "failed"); !strings.Contains(out, "failed") || !strings.Contains(out, " ago") ||
		strings.Contains(out, "r2 ") {
		t.Errorf("%s", out)
	}
	nodes, err := h.client.Nodes(t.Context(), "@r7")
	if err != nil || len(nodes) != bmcsEach {
		t.Fatalf("%+v, %v", nodes, err)
	}
	for _, n := range nodes {
		if !n.Stale || n.AgentState.State != api.AgentFailed || n.State != power.On {
			t.Errorf("central shows %+v", n)
		}
	}
	op, err := h.ask("r7n1", power.ActOff, nil)
	if err != nil || !strings.Contains(op.AgentNote, "failed") {
		t.Errorf("%v: %q", err, op.AgentNote)
	}
	out, errs, exit = h.run("off", "r7n2", "--timeout", "1s", "--yes")
	if exit != 4 || !strings.Contains(out+errs, "agent r7 failed ") {
		t.Errorf("off: %d\n%s%s", exit, out, errs)
	}
	w, err := h.client.Who(t.Context(), "r7n1")
	if err != nil || !strings.Contains(w.Message, "failed") {
		t.Errorf("%+v, %v", w, err)
	}
	h.startRack("r7")
	started := time.Now()
	h.allEnded(30 * time.Second)
	want := map[string]power.State{"r7n1": power.Off, "r7n2": power.Off, "r7n3": power.On}
	for node, state := range h.simmed("r7") {
		if s, ok := want[node]; ok && s != state {
			t.Errorf("%s is %s", node, state)
		}
	}
	h.agree(20*time.Second, h.truth(), h.everybody())
	h.figure("it is back: has done what it was asked for, and all agree", time.Since(started))
	h.within(20*time.Second, func() string { return "central counts on it" }, func() bool {
		nodes, err := h.client.Nodes(context.Background(), "r7n3")
		return err == nil && len(nodes) == 1 && !nodes[0].Stale && !nodes[0].AgentState.Absent()
	})
	h.within(5*time.Second, watch, func() bool { return strings.Contains(watch(), "r7 failed") && strings.Contains(watch(), "r7 alive") })
}

// watchMembers runs members --watch; what it has printed is told, and stop ends it.
func (h *hall) watchMembers(rack string) (printed func() string, stop func()) {
	h.site.t.Helper()
	name := rack + "-watch"
	h.spawn(name, h.cli, "members", "--watch", "--socket", h.agentSocket(rack))
	path := filepath.Join(h.dir, name+".log")
	printed = func() string { text, _ := os.ReadFile(path); return string(text) }
	h.within(10*time.Second, printed, func() bool { return strings.Contains(printed(), "r12") })
	return printed, func() { h.kill(name) }
}

// losesCentralAndHalf kills central, and half of the agents, which start again at once.
func (h *hall) losesCentralAndHalf() {
	truth := h.truth()
	h.kill("central")
	half := h.racks[:len(h.racks)/2]
	for _, rack := range half {
		h.kill(rack)
	}
	for _, rack := range half {
		h.startRack(rack)
	}
	began := time.Now()
	h.agree(20*time.Second, truth, h.agents)
	h.figure("central and half of the agents killed, these started at once: complete", time.Since(began))
	for _, rack := range h.racks {
		file := filepath.Join(h.dir, rack, "gossip.members")
		h.until(20*time.Second, rack+" keeps whom it knows", func() bool { _, err := os.Stat(file); return err == nil })
	}
	for _, rack := range h.racks {
		h.kill(rack)
	}
	for _, rack := range h.racks {
		h.startRack(rack)
	}
	began = time.Now()
	h.agree(30*time.Second, truth, h.agents)
	h.figure("then all agents killed and started at once, central still away: complete", time.Since(began))
	last := h.racks[len(h.racks)-1]
	h.flip(power.ActOn, last)
	truth = h.truth()
	left := maps.Clone(h.agents)
	delete(left, last)
	h.agree(10*time.Second, truth, h.agents)
	h.kill(last)
	killed := time.Now()
	for name, c := range left {
		h.within(30*time.Second, func() string { return name + " knows that " + last + " failed" },
			func() bool { return sees(c, last, "failed") })
	}
	h.figure("an agent killed meanwhile: all know it", time.Since(killed))
	h.agree(time.Second, truth, left)
	h.startCentral()
	h.within(20*time.Second, func() string { return "central is back and knows" }, func() bool { return sees(h.client, last, "failed") })
	nodes, err := h.client.Nodes(h.site.t.Context(), last+"n1")
	if err != nil || len(nodes) != 1 || !nodes[0].Stale || nodes[0].AgentState.State != api.AgentFailed {
		h.site.t.Errorf("%+v, %v", nodes, err)
	}
}

// speaksSerf has the stock binary of the version that is built in look and join.
func (h *hall) speaksSerf() {
	t := h.site.t
	serf, err := stockSerf()
	if err != nil {
		t.Skipf("LEFT OUT: the stock serf binary cannot be had: %v", err)
	}
	h.kill("r8")
	h.startRack("r8", "--serf-rpc", "127.0.0.1:7373")
	list := func(args ...string) string {
		out, _ := exec.Command("ip", h.in("r8", append([]string{serf, "members", "-rpc-addr=127.0.0.1:7373"}, args...)...)...).CombinedOutput()
		return string(out)
	}
	h.within(20*time.Second, func() string { return "serf lists all members:\n" + list() },
		func() bool { return strings.Count(list(), "alive") == len(h.racks)+1 })
	if out := list("-tag", "role=central"); strings.Count(out, "\n") != 1 || !strings.Contains(out, h.addr("central")) {
		t.Errorf("%s", out)
	}
	raw, err := os.ReadFile(filepath.Join(h.dir, "r8", "gossip.keyring"))
	if err != nil {
		t.Fatal(err)
	}
	key := strings.Split(string(raw), `"`)[1]
	agent := func(name string, more ...string) {
		args := append([]string{serf, "agent", "-node=" + name, "-bind=" + hostsNet + ".99:7946", "-rpc-addr=127.0.0.1:0", "-join=" +
			h.addr("r8")}, more...)
		h.launchOn("stranger", name, args[0], args[1:]...)
	}
	agent("plain-serf")
	h.within(15*time.Second, func() string { return "a stock agent without the key is refused" },
		func() bool { return h.logged("r8", "refused", hostsNet+".99") })
	if sees(h.agents["r8"], "plain-serf", "alive") {
		t.Error("it came in")
	}
	h.kill("plain-serf")
	agent("stock-serf", "-encrypt="+key)
	for _, rack := range []string{"r8", "r2"} {
		h.within(15*time.Second, func() string { return rack + " sees the stock agent" },
			func() bool { return sees(h.agents[rack], "stock-serf", "alive") })
	}
	h.mustLocal("r2", "ping", "stock-serf")
	h.kill("stock-serf")
}

// stock is the serf binary, built once.
var stock struct {
	once sync.Once
	dir  string
	err  error
}

// stockSerf builds the serf binary of the version that go.mod requires.
func stockSerf() (string, error) {
	build := &stock
	build.once.Do(func() {
		dir, err := os.MkdirTemp("", "rackpower-serf-")
		if err != nil {
			build.err = err
			return
		}
		build.dir = dir
		version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/hashicorp/serf").Output()
		if err != nil {
			build.err = err
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "install", "github.com/hashicorp/serf/cmd/serf@"+strings.TrimSpace(string(version)))
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
		if out, err := cmd.CombinedOutput(); err != nil {
			build.err = errors.New(err.Error() + ": " + string(out))
		}
	})
	return filepath.Join(build.dir, "serf"), build.err
}
