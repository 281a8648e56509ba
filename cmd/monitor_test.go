package cmd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// figures makes the tests of the monitor take their sizes from a whole hall, and the
// times that only a patient person waits for.
func figures() bool { return os.Getenv("RACKPOWER_FIGURES") != "" }

// watchful is a site with one agent whose monitor reads every second, and believes
// statuses that pass quickly soon.
func watchful(t *testing.T) *site {
	t.Helper()
	t.Parallel() // such tests wait most of the time
	s := newSite(t)
	s.startWatchful()
	return s
}

func (s *site) startWatchful(more ...string) {
	s.t.Helper()
	s.spawn("r1", s.cli, append(s.agentArgs("r1", "@every 1s"), append([]string{"--debounce", "300ms"}, more...)...)...)
}

// bmcs are the BMCs of a farm.
func bmcs(farm *bmcsim.Farm) (list []*bmcsim.BMC) {
	for i := range farm.Len() {
		list = append(list, farm.BMC(i))
	}
	return list
}

// addAs adds the farm's nodes with a status and the password that BMCs have at first.
func (s *site) addAs(farm *bmcsim.Farm, status power.Status) {
	s.t.Helper()
	var specs []api.NodeSpec
	for _, b := range bmcs(farm) {
		spec := specOf(b.Name(), b.Endpoint())
		spec.Status, spec.Password = status, string(bmcsim.DefaultPassword)
		specs = append(specs, spec)
	}
	s.addNodes(specs...)
}

// node is the node's row at central.
func (s *site) node(name string) api.Node {
	s.t.Helper()
	nodes, err := s.client.Nodes(s.t.Context(), name)
	if err != nil || len(nodes) != 1 {
		s.t.Fatalf("node %s: %+v, %v", name, nodes, err)
	}
	return nodes[0]
}

// all waits until every node that an expression selects is as it should be.
func (s *site) all(expr, what string, ok func(api.Node) bool) {
	s.t.Helper()
	s.until(40*time.Second, expr+" "+what, func() bool {
		nodes, err := s.client.Nodes(s.t.Context(), expr)
		if err != nil || len(nodes) == 0 {
			return false
		}
		for _, n := range nodes {
			if !ok(n) {
				return false
			}
		}
		return true
	})
}

// read waits until the nodes were read in a state.
func (s *site) read(expr string, state power.State) {
	s.t.Helper()
	s.all(expr, "read "+string(state), func(n api.Node) bool { return n.Reach == power.ReachOK && n.State == state && n.Op == nil })
}

// matched waits until the monitor knows that the nodes were as they should be.
func (s *site) matched(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.until(20*time.Second, name+" was seen as it should be", func() bool { return s.explain(name).Monitor.Matched })
	}
}

func (s *site) explain(name string) api.Explanation {
	e, err := s.client.Explain(s.t.Context(), name)
	if err != nil {
		return api.Explanation{}
	}
	return e
}

// audited reports whether an event of a kind is in the audit log and says something.
func (s *site) audited(what, says string) bool {
	entries, err := s.client.Audit(s.t.Context(), "", 1000)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.What == what && strings.Contains(fmt.Sprintf("%+v", e), says) {
			return true
		}
	}
	return false
}

// saysAll runs a command that must succeed until what it prints has all the words:
// what is known at the rack is known at central a moment later.
func (s *site) saysAll(args string, words ...string) {
	s.t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, errs, exit := s.run(strings.Fields(args)...)
		text := strings.Join(strings.Fields(out+errs), " ") // lines are broken anywhere
		missing := slices.DeleteFunc(slices.Clone(words), func(word string) bool { return strings.Contains(text, word) })
		if exit == 0 && len(missing) == 0 {
			return
		}
		if exit != 0 || time.Now().After(end) {
			s.t.Errorf("rackpower %s: exit status %d, and it does not say %q:\n%s%s", args, exit, missing, out, errs)
			return
		}
	}
}

// commanded counts a command in the logs of BMCs.
func commanded(list []*bmcsim.BMC, c power.Command) (count int) {
	for _, b := range list {
		for _, e := range b.Commands() {
			if e.Command == string(c) && e.Code == 0 {
				count++
			}
		}
	}
	return count
}

// watching is a rackpower watch that runs beside a test.
type watching struct {
	s    *site
	file string
}

func (s *site) watch(args ...string) watching {
	s.t.Helper()
	name := fmt.Sprintf("watch%d", time.Now().UnixNano())
	cmd, err := s.launch(name, s.cli, append([]string{"watch", "--limit", "1"}, args...), "RACKPOWER_CENTRAL=unix://"+s.socket())
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.procs[name] = cmd
	s.mu.Unlock()
	w := watching{s, filepath.Join(s.dir, name+".log")}
	s.until(10*time.Second, "watch has begun", func() bool { return w.text() != "" })
	return w
}

func (w watching) text() string {
	text, _ := os.ReadFile(w.file)
	return strings.Join(strings.Fields(string(text)), " ")
}

// says waits until all of the words were shown.
func (w watching) says(words ...string) {
	w.s.t.Helper()
	for _, word := range words {
		for end := time.Now().Add(10 * time.Second); !strings.Contains(w.text(), word); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				text, _ := os.ReadFile(w.file)
				w.s.t.Fatalf("watch does not say %q:\n%s", word, text)
			}
		}
	}
}

// stays holds a statement to be true for a while.
func (s *site) stays(long time.Duration, what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !ok() {
			s.t.Fatalf("not so for %s: %s", long, what)
		}
	}
}
