package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// hosts are network namespaces on one bridge, which is in a namespace of its own:
// nothing is made in the machine's. Unix sockets are everywhere, addresses are not.
type hosts struct {
	t      *testing.T
	prefix string // of the namespaces' names, with this process's id
	made   []string
}

const (
	hostsNet = "10.77.0"
	// hostsMark begins the names of namespaces that tests made.
	hostsMark = "rptest"
)

// newHosts makes the bridge, or skips the test where that is not possible.
func newHosts(t *testing.T) *hosts {
	t.Helper()
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: processes on hosts of their own: %v (Debian: iproute2, nftables)", err)
		}
	}
	h := &hosts{t: t, prefix: fmt.Sprintf("%s%d-", hostsMark, os.Getpid())}
	h.sweep()
	t.Cleanup(h.remove)
	if err := h.begin(); err != nil {
		t.Skipf("LEFT OUT: processes on hosts of their own: %v", err)
	}
	return h
}

// begin tries all that is needed of the machine.
func (h *hosts) begin() error {
	bridge, err := h.space("bridge")
	if err != nil {
		return err
	}
	if err := ipBatch(bridge, "link add br0 type bridge", "link set br0 up"); err != nil {
		return err
	}
	return filter(bridge, "add table inet rp", "delete table inet rp")
}

// sweep removes what tests left that were killed before they could.
func (h *hosts) sweep() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest, ours := strings.CutPrefix(name, hostsMark)
		pid, _, _ := strings.Cut(rest, "-")
		if n, err := strconv.Atoi(pid); ours && err == nil && syscall.Kill(n, 0) == syscall.ESRCH {
			_ = exec.Command("ip", "netns", "delete", name).Run()
		}
	}
}

func (h *hosts) remove() {
	for _, name := range h.made {
		if out, err := exec.Command("ip", "netns", "delete", name).CombinedOutput(); err != nil {
			h.t.Errorf("cannot remove namespace %s: %v: %s", name, err, out)
		}
	}
}

// space makes a namespace and returns its name.
func (h *hosts) space(name string) (string, error) {
	full := h.prefix + name
	if out, err := exec.Command("ip", "netns", "add", full).CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot make a network namespace: %w: %s", err, bytes.TrimSpace(out))
	}
	h.made = append(h.made, full)
	return full, ipBatch(full, "link set lo up")
}

// add makes a host with an address on the bridge.
func (h *hosts) add(name, addr string) {
	h.t.Helper()
	space, err := h.space(name)
	if err == nil {
		port := "to-" + name
		err = ipBatch(h.prefix+"bridge", "link add "+port+" type veth peer name eth0 netns "+space, "link set "+port+" master br0 up")
	}
	if err == nil {
		err = ipBatch(space, "addr add "+addr+"/24 dev eth0", "link set eth0 up")
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// in is the command line that runs a program on a host. It becomes that program, so
// that signals reach it.
func (h *hosts) in(name string, args ...string) []string {
	return append([]string{"netns", "exec", h.prefix + name}, args...)
}

// lose has a host lose this many of a hundred packets that come; 0: none.
func (h *hosts) lose(name string, percent int) {
	h.t.Helper()
	if percent == 0 {
		h.heal(name)
		return
	}
	h.rule(name, fmt.Sprintf("meta iifname eth0 numgen random mod 100 < %d drop", percent))
}

// part has a host drop all that comes from the addresses.
func (h *hosts) part(name string, from []string) {
	h.t.Helper()
	h.rule(name, "ip saddr { "+strings.Join(from, ", ")+" } drop")
}

func (h *hosts) rule(name, rule string) {
	h.t.Helper()
	if err := filter(h.prefix+name, "add table inet rp", "add chain inet rp in { type filter hook input priority 0; }", "add rule inet rp in "+
		rule); err != nil {
		h.t.Fatal(err)
	}
}

// heal takes all rules of a host back.
func (h *hosts) heal(name string) {
	h.t.Helper()
	if err := filter(h.prefix+name, "add table inet rp", "delete table inet rp"); err != nil {
		h.t.Fatal(err)
	}
}

func ipBatch(space string, lines ...string) error {
	return feed(lines, "ip", "-n", space, "-batch", "-")
}

func filter(space string, lines ...string) error {
	return feed(lines, "ip", "netns", "exec", space, "nft", "-f", "-")
}

func feed(lines []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
