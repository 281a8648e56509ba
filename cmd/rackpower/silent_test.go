package main

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
)

// TestEveryCommandKnowsSilence runs each command that asks somebody against a socket
// that takes connections, and behind which nobody answers.
func TestEveryCommandKnowsSilence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // connections wait in its backlog
	before := patience
	patience = api.Patience{Say: 20 * time.Millisecond, GiveUp: 100 * time.Millisecond, Work: time.Minute}
	t.Cleanup(func() { patience = before })
	f := newFake(t)
	f.url = "unix://" + path
	operands := map[string]string{
		"NODES": "n1", "NODES...": "n1", "NODE": "n1", "ID": "x", "ID...": "x", "NAME": "x", "NAME...": "x", "STATUS": "READY", "RACK": "r1",
		"RACK...": "r1", "RACKS...": "r1", "RACK|all": "r1", "RULE": "approve-above", "SETTING": "5", "on|off|hands-off": "on",
		"AGENT": "r1", "KIND": "k", "DOMAIN": "d", "HOSTLIST": "n1", "KEY": "MDEyMzQ1Njc4OWFiY2RlZg==", "WATTS|none": "800W",
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("MDEyMzQ1Njc4OWFiY2RlZg==\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nodes := filepath.Join(t.TempDir(), "nodes.yaml")
	if err := os.WriteFile(nodes, []byte("- {name: n1, rack: r1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	operands["FILE|-"] = nodes
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	more := map[string]string{ // what is wanted beside operands
		"node add": "--rack r1 --bmc ipmi://a@192.0.2.1", "rack set": "--brake-percent 30", "user add": "--role viewer",
		"user cert": "--out " + filepath.Join(t.TempDir(), "cert"), "domain set": "--rate 1",
		"credentials set": "--user admin --password-file " + password,
		"wait":            "--for on", "node set": "--label x", "local wait": "--for on",
		"gossip keys install": "--key-file " + key, "schedule add": "--cron @daily --nodes n1 --want on",
	}
	apart := []string{"watch", "version", "doctor"} // say so, and go on
	asked := 0
	var walk func(path []string, list []*cli.Command)
	walk = func(path []string, list []*cli.Command) {
		for _, c := range list {
			name := append(slices.Clone(path), c.Name)
			if len(c.Subcommands) > 0 {
				walk(name, c.Subcommands)
				continue
			}
			title := strings.Join(name, " ")
			if slices.Contains(apart, title) || !asksSomebody(c) {
				continue
			}
			args := slices.Clone(name)
			for _, word := range strings.Fields(c.ArgsUsage) {
				word = strings.Trim(word, "[]")
				if operands[word] == "" {
					t.Errorf("%s: no value for %s is known, of %v", title, word, slices.Collect(maps.Keys(operands)))
				}
				args = append(args, operands[word])
			}
			args = append(args, strings.Fields(more[title])...)
			for _, flag := range c.Flags {
				switch flag.Names()[0] {
				case "reason":
					args = append(args, "--reason", "x")
				case "yes":
					args = append(args, "--yes")
				}
			}
			got := f.run(strings.Join(args, " "))
			asked++
			if got.exit != 3 || !strings.Contains(got.errs, " has not answered for 20ms, still waiting\n") ||
				!strings.Contains(got.errs, "journalctl -u rackpower-") {
				t.Errorf("%v: %+v", args, got)
			}
		}
	}
	walk(nil, newApp().Commands)
	if asked < 40 {
		t.Errorf("only %d commands ask", asked)
	}
}

// asksSomebody reports whether a command asks central or an agent.
func asksSomebody(c *cli.Command) bool {
	return !slices.Contains([]string{"agent", "powerman", "fence"}, c.Name) && slices.ContainsFunc(c.Flags, func(f cli.Flag) bool {
		return f.Names()[0] == "central" ||
			f.Names()[0] == "socket"
	})
}
