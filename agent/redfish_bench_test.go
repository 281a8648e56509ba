package agent

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/redfish"
)

// simulatedVar makes the test binary a simulator of so many BMCs.
const simulatedVar = "AGENT_TEST_SIMULATED_BMCS"

// simulatedBMC is what that says of one.
type simulatedBMC struct{ URL, BMC, Password string }

// TestSimulatedBMCs is the process of the simulator, until its standard input ends.
func TestSimulatedBMCs(t *testing.T) {
	var count int
	if _, err := fmt.Sscan(os.Getenv(simulatedVar), &count); err != nil {
		t.Skip("no test: the process of the simulator that the benchmarks start")
	}
	farm, err := bmcsim.Start(t.Context(), bmcsim.Config{Count: count, Redfish: &bmcsim.Redfish{}})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]simulatedBMC, count)
	for i := range all {
		b := farm.BMC(i)
		ep := b.RedfishEndpoint()
		all[i] = simulatedBMC{URL: b.RedfishURL(), BMC: ep.String(), Password: string(ep.Password)}
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := farm.Close(); err != nil {
		t.Error(err)
	}
}

// simulated starts BMCs with Redfish over TLS in a process of their own.
func simulated(b *testing.B, count int) (all []simulatedBMC) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestSimulatedBMCs$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", simulatedVar, count))
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &all) != nil {
		b.Skipf("the simulator did not start: %s", line)
	}
	return all
}

// redfishAgent is an agent whose nodes are these BMCs.
func redfishAgent(b *testing.B, bmcs []simulatedBMC) (a *Agent, names []string) {
	b.Helper()
	dialer := redfish.NewDialer(redfish.Config{})
	a, err := New(Config{
		Name: "r1", Dir: b.TempDir(), Dial: dialer.Dial, Probe: dialer.Probe, UseNotes: dialer.UseNotes, Monitor: MonitorOff,
		Logger: slog.New(slog.DiscardHandler), Timing: Timing{FirstLook: time.Hour},
	})
	if err != nil {
		b.Fatal(err)
	}
	list := make([]api.AssignedNode, len(bmcs))
	names = make([]string, len(bmcs))
	for i, bmc := range bmcs {
		names[i] = fmt.Sprintf("n%05d", i)
		list[i] = api.AssignedNode{
			Name: names[i], BMC: bmc.BMC, Password: bmc.Password, Desired: power.Desired{Want: power.HandsOff},
		}
	}
	if err := a.apply(api.Assignment{Nodes: list, Rev: 1}, theCentral); err != nil {
		b.Fatal(err)
	}
	return a, names
}

// statusByAgent is one status of all nodes by an agent.
func statusByAgent(b *testing.B, a *Agent, names []string) {
	b.Helper()
	began := time.Now()
	a.poller.readNow(a.ctx, names)
	for _, name := range names {
		if got := a.readings.get(name); got.State != power.Off || got.ObservedAt.Before(began) {
			b.Fatalf("%s: %+v", name, got)
		}
	}
}

// BenchmarkRedfishStatus is a status of so many BMCs over TLS: by an agent that has sessions
// and by one that opens them, by a curl for each of which 64 run at once, and by
// redfishpower.
func BenchmarkRedfishStatus(b *testing.B) {
	for _, count := range []int{500, 2000} {
		bmcs := simulated(b, count)
		b.Run(fmt.Sprintf("%d/kept", count), func(b *testing.B) {
			a, names := redfishAgent(b, bmcs)
			defer a.Close()
			statusByAgent(b, a, names)
			for b.Loop() {
				statusByAgent(b, a, names)
			}
		})
		b.Run(fmt.Sprintf("%d/fresh", count), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				a, names := redfishAgent(b, bmcs)
				b.StartTimer()
				statusByAgent(b, a, names)
				b.StopTimer()
				if err := a.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("%d/curl", count), func(b *testing.B) { statusByCurl(b, bmcs) })
		b.Run(fmt.Sprintf("%d/redfishpower", count), func(b *testing.B) { statusByRedfishpower(b, bmcs) })
	}
}

const benchSystem = "redfish/v1/Systems/System.1"

// statusByCurl asks with a process for each BMC, by Basic, 64 at once.
func statusByCurl(b *testing.B, bmcs []simulatedBMC) {
	path, err := exec.LookPath("curl")
	if err != nil {
		b.Skip("LEFT OUT: curl is not installed (apt-get install curl)")
	}
	for b.Loop() {
		var wg sync.WaitGroup
		slots := make(chan struct{}, 64)
		for _, bmc := range bmcs {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				cmd := exec.CommandContext(b.Context(), path, "-s", "-k", "-K", "-", bmc.URL+"/"+benchSystem)
				cmd.Stdin = strings.NewReader("user = admin:" + bmc.Password + "\n")
				if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), `"PowerState":"Off"`) {
					b.Errorf("%s: %v %s", bmc.URL, err, out)
				}
			})
		}
		wg.Wait()
	}
}

// statusByRedfishpower asks with one process of redfishpower, by Basic.
func statusByRedfishpower(b *testing.B, bmcs []simulatedBMC) {
	path, err := exec.LookPath("redfishpower")
	if err != nil {
		b.Skip("LEFT OUT: redfishpower is not installed; Debian's powerman is built without it")
	}
	hosts := make([]string, len(bmcs))
	for i, bmc := range bmcs {
		hosts[i] = strings.TrimPrefix(bmc.URL, "https://")
	}
	for b.Loop() {
		cmd := exec.CommandContext(b.Context(), path, "-h", strings.Join(hosts, ","))
		cmd.Stdin = strings.NewReader("auth admin:" + bmcs[0].Password + "\nsetstatpath " + benchSystem + "\nstat\nquit\n")
		out, err := cmd.CombinedOutput()
		if n := strings.Count(string(out), ": off"); err != nil || n != len(bmcs) {
			tail := slices.Collect(strings.Lines(string(out)))
			b.Skipf("redfishpower read %d of %d: %v %q", n, len(bmcs), err, tail[max(0, len(tail)-2):])
		}
	}
}
