package cmd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// What every front end is tried with: 20 nodes on a farm of its own process, of which one has a
// BMC that does not answer and one another password.
const (
	doorAll     = "n[00001-00020]"
	doorHealthy = "n[00001-00002,00005-00020]"
	doorHung    = "n00003"
	doorWrong   = "n00004"
	doorSlow    = "n00006" // takes seconds to turn off and on
)

// hall20 is central, an agent and that farm.
type hall20 struct{ *fleet }

func newHall20(t *testing.T, third byte) hall20 {
	t.Helper()
	f := hall20{&fleet{site: newSite(t), size: 20, first: net.IPv4(127, 77, third, 1).To4()}}
	f.startSim()
	f.startAgent("r1")
	var specs []api.NodeSpec
	for i, host := range f.hosts() {
		spec := api.NodeSpec{
			Name: f.name(i), Rack: "r1", BMC: "ipmi://" + bmcsim.DefaultUser + "@" + host, Password: string(bmcsim.DefaultPassword),
		}
		if spec.Name == doorWrong {
			spec.Password = "another"
		}
		specs = append(specs, spec)
	}
	f.addNodes(specs...)
	quick, slow, mute := bmcsim.Duration(200*time.Millisecond), bmcsim.Duration(3*time.Second), true
	f.fault("", bmcsim.Fault{OnAfter: &quick, OffAfter: &quick})
	f.fault(doorSlow, bmcsim.Fault{OnAfter: &slow, OffAfter: &slow})
	f.fault(doorHung, bmcsim.Fault{Mute: &mute})
	return f
}

// healthy reports whether a BMC does what it is told.
func healthy(name string) bool { return name != doorHung && name != doorWrong }

// bmc is what the farm itself says of a BMC, with the log of what reached it.
func (f hall20) bmc(name string) (v bmcsim.View) {
	f.t.Helper()
	r, err := f.control.Get("http://sim/bmc/" + name)
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil || r.StatusCode != http.StatusOK {
		f.t.Fatalf("%s: %s, %v", name, r.Status, err)
	}
	return v
}

// allAre fails unless every healthy BMC is in that state and got so many commands of its own
// since then, which it forgets; no command reached the others.
func (f hall20) allAre(state power.State, before map[string]bmcsim.View, on, cuts int) {
	f.t.Helper()
	for _, v := range f.views() {
		was := before[v.Name]
		switch {
		case !healthy(v.Name):
			if v.PowerOns+v.Cuts+v.Resets != 0 || v.Power != power.Off {
				f.t.Errorf("%s, which cannot be controlled, is %s after %d and %d commands", v.Name, v.Power, v.PowerOns, v.Cuts)
			}
		case v.Power != state || v.PowerOns-was.PowerOns != on || v.Cuts-was.Cuts != cuts:
			f.t.Errorf("%s is %s after %d on and %d cuts; want %s after %d and %d", v.Name, v.Power, v.PowerOns-was.PowerOns,
				v.Cuts-was.Cuts, state, on, cuts)
		}
	}
}

// now are the counts of all BMCs.
func (f hall20) now() map[string]bmcsim.View {
	all := map[string]bmcsim.View{}
	for _, v := range f.views() {
		all[v.Name] = v
	}
	return all
}

// runs waits until an action runs on a node.
func (f hall20) runs(node string, action power.Action) {
	f.t.Helper()
	f.until(time.Minute, fmt.Sprintf("%s of %s runs", action, node), func() bool {
		found, err := f.site.client.QueryOps(f.t.Context(), api.QueryOps{Nodes: []string{node}, Outstanding: true})
		return err == nil && len(found.Ops) == 1 && found.Ops[0].Action == action && strings.HasPrefix(found.Ops[0].Phase, api.PhaseRunning)
	})
}

// said is what a program printed, and its exit status.
type said struct {
	out, errs string
	exit      int
}

// stock runs a program that no one here wrote, with what it reads on stdin.
func (f hall20) stock(stdin, program string, args ...string) said {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "RACKPOWER_CENTRAL=unix://"+f.socket(), "RACKPOWER_ASKED_BY=tester", "XDG_CONFIG_HOME="+f.dir)
	var out, errs strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		f.t.Errorf("%s %v: %v", program, args, err)
		return said{exit: -1}
	}
	return said{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// freePort is a loopback address that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// doors leaves out what takes more than a minute, but in make doors.
func doors(t *testing.T) {
	t.Helper()
	if os.Getenv("RACKPOWER_DOORS") == "" {
		t.Skip("takes minutes: make doors runs it")
	}
}
