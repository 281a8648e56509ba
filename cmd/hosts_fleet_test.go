package cmd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// hall is a site whose central and agents have hosts of their own. Beside each agent
// runs a simulator of its rack's BMCs.
type hall struct {
	*site
	*hosts
	racks   []string // names of agents
	agents  map[string]*api.Client
	figures []string
}

const (
	bmcsEach   = 4
	gossipPort = ":7946"
	// nearRack is the rack whose BMCs every host can reach.
	nearRack = 0
)

func (h *hall) addr(name string) string {
	if i := slices.Index(h.racks, name); i >= 0 {
		return fmt.Sprintf("%s.%d", hostsNet, 11+i)
	}
	return hostsNet + ".1"
}

// newHall makes hosts for so many racks, and starts everything.
func newHall(t *testing.T, racks int) *hall {
	t.Helper()
	h := &hall{hosts: newHosts(t), site: siteIn(t, t.TempDir()), agents: map[string]*api.Client{}}
	t.Cleanup(func() { h.site.stop() })
	for i := range racks {
		h.racks = append(h.racks, fmt.Sprintf("r%d", i+1))
	}
	h.add("central", h.addr("central"))
	for _, rack := range h.racks {
		h.add(rack, h.addr(rack))
	}
	h.startCentral()
	h.until(20*time.Second, "central answers", func() bool { _, err := h.client.Info(t.Context()); return err == nil })
	var specs []api.NodeSpec
	for i, rack := range h.racks {
		h.startSim(i)
		for n := range bmcsEach {
			ep := power.Endpoint{
				Scheme: "ipmi", User: bmcsim.DefaultUser, Password: bmcsim.DefaultPassword,
				Host: fmt.Sprintf("127.0.%d.%d", 20+i, n+1), Port: power.DefaultIPMIPort,
			}
			if i == nearRack {
				ep.Host, ep.Port = h.addr(rack), power.DefaultIPMIPort+n
			}
			spec := specOf(fmt.Sprintf("%sn%d", rack, n+1), ep)
			spec.Rack = rack
			specs = append(specs, spec)
		}
	}
	h.addNodes(specs...)
	for _, rack := range h.racks {
		h.startRack(rack)
		h.agents[rack] = clientOf(t, h.agentSocket(rack))
	}
	return h
}

// phase runs a part of the test in the state that the parts before it left. What it
// names is said with the time it took.
func (h *hall) phase(name string, do func()) {
	h.hosts.t.Helper()
	whole := h.site.t
	began := time.Now()
	if !whole.Run(name, func(t *testing.T) {
		h.site.t, h.hosts.t = t, t
		do()
	}) {
		h.site.t, h.hosts.t = whole, whole
		whole.FailNow()
	}
	h.site.t, h.hosts.t = whole, whole
	whole.Logf("%-12s %.1f s", name, time.Since(began).Seconds())
}

// figure notes what was measured.
func (h *hall) figure(what string, took time.Duration) {
	h.figures = append(h.figures, fmt.Sprintf("%-76s %6.2f s", what, took.Seconds()))
}

// launchOn starts a process on a host. It has the process's name in logs and for kill.
func (h *hall) launchOn(host, name, bin string, args ...string) {
	h.site.t.Helper()
	h.spawn(name, "ip", h.in(host, append([]string{bin}, args...)...)...)
}

func (h *hall) startCentral(more ...string) {
	h.site.t.Helper()
	h.launchOn("central", "central", h.serve, append(append(h.centralArgs(), "--gossip", h.addr("central")+gossipPort), more...)...)
}

func (h *hall) simSocket(rack string) string { return filepath.Join(h.dir, rack+".sim") }

func (h *hall) startSim(i int) {
	h.site.t.Helper()
	rack := h.racks[i]
	args := []string{
		"sim", "--listen", fmt.Sprintf("127.0.%d.1", 20+i), "--count", fmt.Sprint(bmcsEach), "--names",
		fmt.Sprintf("%sn[1-%d]", rack, bmcsEach), "--on-after", "200ms", "--off-after", "200ms", "--control", h.simSocket(rack),
	}
	if i == nearRack {
		args[2] = h.addr(rack)
		args = append(args, "--same-address")
	}
	h.launchOn(rack, rack+"-sim", h.cli, args...)
}

// startRack starts an agent that knows nobody but central, and has no key but what
// central gives it or what it kept.
func (h *hall) startRack(rack string, more ...string) {
	h.site.t.Helper()
	args := []string{
		"agent", "--name", rack, "--data", filepath.Join(h.dir, rack), "--central", "unix://" + h.socket(),
		"--gossip", h.addr(rack) + gossipPort, "--socket", h.agentSocket(rack), "--monitor", "@every 10s",
	}
	h.launchOn(rack, rack, h.cli, append(args, more...)...)
}

// local runs the command line against an agent.
func (h *hall) local(rack string, args ...string) (stdout, stderr string, exit int) {
	h.site.t.Helper()
	return h.run(append(args, "--socket", h.agentSocket(rack))...)
}

func (h *hall) mustLocal(rack string, args ...string) string {
	h.site.t.Helper()
	return h.mustRun(append(args, "--socket", h.agentSocket(rack))...)
}

// flip turns all nodes of all the racks, at the agents themselves.
func (h *hall) flip(action power.Action, racks ...string) {
	h.site.t.Helper()
	var all sync.WaitGroup
	for _, rack := range racks {
		all.Go(func() {
			if out, errs, exit := h.local(rack, "local", string(action), "all", "--yes", "--reason", "test"); exit != 0 {
				h.site.t.Errorf("%s of %s: exit status %d\n%s%s", action, rack, exit, out, errs)
			}
		})
	}
	all.Wait()
}

// truth is the power of all nodes as their simulators have it.
func (h *hall) truth() map[string]power.State {
	h.site.t.Helper()
	states := map[string]power.State{}
	for _, rack := range h.racks {
		for name, state := range h.simmed(rack) {
			states[name] = state
		}
	}
	return states
}

func (h *hall) simmed(rack string) map[string]power.State {
	h.site.t.Helper()
	client := http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.simSocket(rack))
		}},
	}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://sim/")
	if err != nil {
		h.site.t.Fatal(err)
	}
	defer resp.Body.Close()
	var views []bmcsim.View
	if err := json.NewDecoder(resp.Body).Decode(&views); err != nil {
		h.site.t.Fatal(err)
	}
	states := map[string]power.State{}
	for _, v := range views {
		states[v.Name] = v.Power
	}
	return states
}

// peersOf is what a member shows of all nodes, nil when it does not answer.
func peersOf(c *api.Client) map[string]api.PeerNode {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	list, err := c.Peers(ctx)
	if err != nil {
		return nil
	}
	peers := map[string]api.PeerNode{}
	for _, p := range list {
		peers[p.Node] = p
	}
	return peers
}

// missing lists what members do not show as it is: "r1: r2n1 is off".
func (h *hall) missing(want map[string]power.State, members map[string]*api.Client) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(members)) {
		peers := peersOf(members[name])
		if peers == nil {
			all = append(all, name+" does not answer")
			continue
		}
		for _, node := range slices.Sorted(maps.Keys(want)) {
			if p, ok := peers[node]; !ok || p.State != want[node] {
				all = append(all, fmt.Sprintf("%s shows %s as %q", name, node, p.State))
			}
		}
	}
	return all
}

// agree waits until all members show what is wanted, and returns how long that took.
func (h *hall) agree(bound time.Duration, want map[string]power.State, members map[string]*api.Client) time.Duration {
	h.site.t.Helper()
	var last []string
	return h.within(bound, func() string {
		last = h.missing(want, members)
		return fmt.Sprintf("all show all nodes: %d pairs are missing, first %v", len(last), last[:min(len(last), 5)])
	}, func() bool { return len(h.missing(want, members)) == 0 })
}

// within is until that measures; what is asked once it was in vain.
func (h *hall) within(bound time.Duration, what func() string, ok func() bool) time.Duration {
	h.site.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > bound {
			h.site.t.Fatalf("waited %s in vain until %s", bound, what())
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

// sees reports whether a member has another with the status.
func sees(c *api.Client, member, status string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	all, err := c.Members(ctx)
	return err == nil && slices.ContainsFunc(all, func(m api.Member) bool { return m.Name == member && m.Status == status })
}

// everybody is the agents, and central where it is there.
func (h *hall) everybody() map[string]*api.Client {
	all := maps.Clone(h.agents)
	all["central"] = h.client
	return all
}

// only picks agents.
func (h *hall) only(racks ...string) map[string]*api.Client {
	some := map[string]*api.Client{}
	for _, rack := range racks {
		some[rack] = h.agents[rack]
	}
	return some
}

// whole reports whether members see so many as alive, and nobody else.
func whole(members map[string]*api.Client, alive int) bool {
	for _, c := range members {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		all, err := c.Members(ctx)
		cancel()
		n := 0
		for _, m := range all {
			if m.Status == "alive" {
				n++
			}
		}
		if err != nil || n != alive {
			return false
		}
	}
	return true
}

// logged reports whether a process's log has a line with all the words.
func (h *hall) logged(name string, words ...string) bool {
	text, _ := os.ReadFile(filepath.Join(h.dir, name+".log"))
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}
