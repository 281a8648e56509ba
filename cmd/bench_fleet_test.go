package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// fleet is a site whose BMCs are a process of their own (rackpower sim), for figures.
type fleet struct {
	*site
	b       *bench
	size    int
	first   net.IP
	port    int
	control *http.Client
	agent   *api.Client // its socket
}

// newFleet starts BMCs, central and an agent that has all of their nodes. With a schedule
// of "off" nothing is read unless somebody asks.
func (b *bench) newFleet(t *testing.T, size int, schedule string) *fleet {
	t.Helper()
	b.say("%s: central, an agent and %d BMCs start", t.Name(), size)
	f := &fleet{site: newSite(t), b: b, size: size, first: net.IPv4(127, 77, 0, 1).To4()}
	f.startSim()
	f.startMonitor("r1", schedule)
	f.agent = clientOf(t, f.agentSocket("r1"))
	var specs []api.NodeSpec
	for i, host := range f.hosts() {
		specs = append(specs, api.NodeSpec{
			Name: f.name(i), Rack: "r1", BMC: "ipmi://" + bmcsim.DefaultUser + "@" + host, Password: string(bmcsim.DefaultPassword),
		})
	}
	f.addNodes(specs...)
	f.until(time.Minute, "the agent has its nodes", func() bool {
		info, err := f.agent.Info(t.Context())
		return err == nil && info.Nodes == size
	})
	return f
}

func (f *fleet) startSim() {
	f.t.Helper()
	free, err := net.ListenUDP("udp", &net.UDPAddr{IP: f.first})
	if err != nil {
		f.t.Fatal(err)
	}
	f.port = free.LocalAddr().(*net.UDPAddr).Port
	free.Close()
	socket := filepath.Join(f.dir, "sim.sock")
	f.control = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	f.spawn("sim", f.cli, "sim", "--count", fmt.Sprint(f.size), "--listen", f.first.String(), "--port", fmt.Sprint(f.port),
		"--user", bmcsim.DefaultUser, "--names", fmt.Sprintf("n[00001-%05d]", f.size), "--control", socket)
	f.until(30*time.Second, "the BMCs answer", func() bool {
		r, err := f.control.Get("http://sim/bmc/" + f.name(f.size-1))
		if err == nil {
			r.Body.Close()
		}
		return err == nil && r.StatusCode == http.StatusOK
	})
}

// sessionsEnd waits until no BMC has a session, so that the next one is new.
func (f *fleet) sessionsEnd() {
	f.t.Helper()
	f.until(time.Minute, "sessions are closed", func() bool {
		for _, v := range f.views() {
			if v.Sessions > 0 {
				return false
			}
		}
		return true
	})
}

func (f *fleet) name(i int) string { return fmt.Sprintf("n%05d", i+1) }

// hosts are the addresses of the BMCs with their ports.
func (f *fleet) hosts() (list []string) {
	for i := range f.size {
		n := int(f.first[2])<<8 + int(f.first[3]) + i
		list = append(list, fmt.Sprintf("127.77.%d.%d:%d", n>>8, n&0xff, f.port))
	}
	return list
}

// fault changes all BMCs, or the named one.
func (f *fleet) fault(name string, fault bmcsim.Fault) {
	f.t.Helper()
	text, err := json.Marshal(fault)
	if err != nil {
		f.t.Fatal(err)
	}
	path := "http://sim/"
	if name != "" {
		path += "bmc/" + name
	}
	r, err := f.control.Post(path, "application/json", bytes.NewReader(text))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		f.t.Fatalf("fault %s: %s", text, r.Status)
	}
}

// turned has somebody press the button of every node, for what begins.
func (f *fleet) turned(s power.State) func() {
	return func() { f.fault("", bmcsim.Fault{Power: &s}) }
}

func (f *fleet) views() (views []bmcsim.View) {
	f.t.Helper()
	r, err := f.control.Get("http://sim/")
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&views); err != nil {
		f.t.Fatal(err)
	}
	return views
}

// are fails unless the power of every node is as it should be.
func (f *fleet) are(want power.State) {
	f.t.Helper()
	for _, v := range f.views() {
		if v.Power != want {
			f.t.Fatalf("%s is %s, not %s", v.Name, v.Power, want)
		}
	}
}

func (f *fleet) pids() (pids []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range []string{"central", "r1"} {
		if cmd := f.procs[name]; cmd != nil {
			pids = append(pids, cmd.Process.Pid)
		}
	}
	return pids
}

// client runs the command line and measures it, with what central and the agent did
// meanwhile. check looks at what it printed.
func (f *fleet) client(check func(out string) error, args ...string) func() figure {
	return func() figure {
		f.t.Helper()
		before := cpuOf(f.pids()...)
		out, took := f.timed(f.cli, args...)
		took.cpu += cpuOf(f.pids()...) - before
		if err := check(out); err != nil {
			f.t.Fatalf("rackpower %s: %v in\n%s", strings.Join(args, " "), err, head(out))
		}
		return took
	}
}

// timed runs a program that must succeed.
func (f *fleet) timed(bin string, args ...string) (string, figure) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), "RACKPOWER_CENTRAL=unix://"+f.socket(), "RACKPOWER_SOCKET="+f.agentSocket("r1"), "XDG_CONFIG_HOME="+f.dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err := cmd.Run()
	took := time.Since(began)
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", filepath.Base(bin), head(strings.Join(args, " ")), err, head(out.String()))
	}
	return out.String(), figure{value: float64(took) / 1e6, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

func head(text string) string { return text[:min(len(text), 600)] }

// says wants a text so many times in what was printed.
func says(text string, times int) func(string) error {
	return func(out string) error {
		if n := strings.Count(out, text); n != times {
			return fmt.Errorf("%q is there %d times, not %d", text, n, times)
		}
		return nil
	}
}
