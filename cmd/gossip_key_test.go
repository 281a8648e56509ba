package cmd_test

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
)

// TestGossipHasAKey: central makes one, on loopback too, and agents get it from there. One
// that gossiped without is refused, both say so, and it takes part as soon as it is started
// with central.
func TestGossipHasAKey(t *testing.T) {
	s := siteIn(t, t.TempDir())
	defer s.stop()
	s.startCentral()
	s.startAgent("r1")
	members := func(want int) {
		t.Helper()
		s.until(time.Minute, "all are members", func() bool {
			out, _, exit := s.run("members", "-o", "json")
			var got []api.Member
			if exit != 0 || json.Unmarshal([]byte(out), &got) != nil {
				return false
			}
			alive := 0
			for _, m := range got {
				if m.Status == "alive" {
					alive++
				}
			}
			return alive == want
		})
	}
	members(2)
	join := ""
	for _, m := range decodeJSON[[]api.Member](t, s.mustRun("members", "-o", "json")) {
		if m.Name == "r1" {
			join = net.JoinHostPort(m.Addr, strconv.Itoa(int(m.Port)))
		}
	}
	keyring := filepath.Join(s.dir, "r2", "gossip.keyring")
	s.spawn("r2", s.cli, append(plain(s.agentArgs("r2", "off")), "--join", join)...)
	logged := func(name, text string) func() bool {
		return func() bool {
			log, err := os.ReadFile(filepath.Join(s.dir, name+".log"))
			return err == nil && strings.Contains(string(log), text)
		}
	}
	s.until(time.Minute, "r2 says that it has no key", logged("r2", "gossip has no key"))
	s.until(time.Minute, "r1 says that it refuses who has none", logged("r1", "refused"))
	s.until(time.Minute, "r2 says that it is refused", logged("r2", "refused"))
	if _, err := os.Stat(keyring); err == nil {
		t.Error("an agent without central has a key")
	}
	s.kill("r2")
	s.startAgent("r2")
	members(3)
	if info, err := os.Stat(keyring); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key is not kept: %v, %v", info, err)
	}
	s.kill("central") // nobody is needed for a key that is there
	s.kill("r2")
	s.spawn("r2", s.cli, append(s.agentArgs("r2", "off"), "--join", join)...)
	s.until(time.Minute, "r2 sees r1 without central", func() bool {
		out, _, exit := s.run("members", "-o", "name", "--socket", s.agentSocket("r2"))
		return exit == 0 && strings.Contains(out, "r1")
	})
}

// plain has an agent be started without central.
func plain(args []string) []string {
	for i, a := range args {
		if a == "--central" {
			args[i+1] = "none"
		}
	}
	return args
}
