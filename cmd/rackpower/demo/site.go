package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rackpower/central/api"
	"rackpower/internal/backoff"
	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/noderange"
)

func (d *demo) startAgent(ctx context.Context, r int) error {
	name := d.rack(r)
	return d.spawn(ctx, name, d.self, "agent", "--name", name, "--data", filepath.Join(d.dir, name), "--central", d.client.Target(),
		"--gossip", d.gossip[r], "--socket", filepath.Join(d.dir, name+".sock"), "--monitor", "@every 5s", "--debounce", demoDebounce)
}

// freeAddr is a loopback address that is free at the moment. An agent keeps its
// gossip address over a restart, as a real one would.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (d *demo) alive(ctx context.Context) int {
	agents, err := d.client.Agents(ctx)
	n := 0
	for _, a := range agents {
		if err == nil && a.State == "alive" {
			n++
		}
	}
	return n
}

func (d *demo) agrees(nodes []api.Node) error {
	var wrong []string
	for _, n := range nodes {
		for _, farm := range d.farms {
			for i := range farm.Len() {
				if b := farm.BMC(i); b.Name() == n.Name && b.Power() != n.State {
					wrong = append(wrong, n.Name)
				}
			}
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("differs for %s", noderange.Fold(wrong))
	}
	return nil
}

func everyEnded(ops []api.Op) error {
	if len(ops) == 0 {
		return errors.New("central knows of none")
	}
	for _, op := range ops {
		if op.Outcome == "" || op.EndedAt == nil {
			return fmt.Errorf("%s of %s has none", op.Action, op.Node)
		}
	}
	return nil
}

func (d *demo) everyBMC(check func(*bmcsim.BMC) error) error {
	for r := range d.farms {
		if err := d.each(r, check); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) each(r int, check func(*bmcsim.BMC) error) error {
	for i := range d.farms[r].Len() {
		if err := check(d.farms[r].BMC(i)); err != nil {
			return fmt.Errorf("%s: %w", d.farms[r].BMC(i).Name(), err)
		}
	}
	return nil
}

func (d *demo) count(r int, s power.State) int {
	n := 0
	for i := range d.farms[r].Len() {
		if d.farms[r].BMC(i).Power() == s {
			n++
		}
	}
	return n
}

func (d *demo) outstanding(ctx context.Context) int {
	found, err := d.client.QueryOps(ctx, api.QueryOps{Outstanding: true})
	if err != nil {
		return -1
	}
	return len(found.Ops)
}

func (d *demo) membersAlive(ctx context.Context, agent *api.Client) int {
	members, err := agent.Members(ctx)
	n := 0
	for _, m := range members {
		if err == nil && m.Status == "alive" {
			n++
		}
	}
	return n
}

func (d *demo) untilAll(ctx context.Context, what string, ok func(api.Node) bool) error {
	return d.until(ctx, 30*time.Second, what, func() bool {
		nodes, err := d.client.Nodes(ctx, "all")
		for _, n := range nodes {
			if !ok(n) {
				return false
			}
		}
		return err == nil && len(nodes) > 0
	})
}

// until polls for a state that should come, within a bound.
func (d *demo) until(ctx context.Context, bound time.Duration, what string, ok func() bool) error {
	for end := time.Now().Add(bound); !ok(); {
		if time.Now().After(end) {
			return fmt.Errorf("waited %s in vain until %s", bound, what)
		}
		if err := backoff.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// cli runs the command line as its user would and shows what it prints.
func (d *demo) cli(ctx context.Context, wantExit int, args ...string) error {
	shown := args
	if i := slices.Index(args, "--socket"); i > 0 {
		shown = args[:i]
	}
	fmt.Fprintf(d.out, "   $ rackpower %s\n", strings.Join(shown, " "))
	cmd := exec.CommandContext(ctx, d.self, args...)
	cmd.Env = append(os.Environ(), "RACKPOWER_CENTRAL="+d.client.Target(),
		"RACKPOWER_CONFIRM_SHARE=100") // its racks are small
	text, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(text)) {
		fmt.Fprintf(d.out, "     %s\n", strings.TrimRight(line, "\n"))
	}
	if exit := cmd.ProcessState.ExitCode(); exit != wantExit {
		return fmt.Errorf("rackpower %s ended with exit status %d, not %d (%w)", strings.Join(args, " "), exit, wantExit, err)
	}
	return nil
}

// spawn starts a daemon whose log goes to a file of its own.
func (d *demo) spawn(ctx context.Context, name, bin string, args ...string) error {
	log, err := os.OpenFile(filepath.Join(d.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	d.procs[name] = cmd
	return nil
}

func (d *demo) kill(name string) {
	_ = d.procs[name].Process.Kill()
	_ = d.procs[name].Wait()
	delete(d.procs, name)
}

// stopAll ends what the demo started: agents first, then central, then the BMCs.
func (d *demo) stopAll() {
	central := d.procs["central"]
	delete(d.procs, "central")
	for _, cmd := range d.procs {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range d.procs {
		_ = cmd.Wait()
	}
	if central != nil {
		_ = central.Process.Signal(syscall.SIGTERM)
		_ = central.Wait()
	}
	for _, farm := range d.farms {
		_ = farm.Close()
	}
}

func want[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: %v, not %v", what, got, want)
	}
	return nil
}

func atMost(what string, got, most int) error {
	if got > most {
		return fmt.Errorf("%s: %d, at most %d are right", what, got, most)
	}
	return nil
}
