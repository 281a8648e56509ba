package daemon

import (
	"net"
	"strings"
	"testing"

	"rackpower/cmd/settings"
)

func TestCheckAddress(t *testing.T) {
	for addr, good := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:7620": true, "central.example:65535": true, ":7620": true,
		"nope": false, "a:b": false, "a:65536": false, "a:-1": false, "": false,
	} {
		if err := CheckAddress("join", addr); (err == nil) != good || !good &&
			(settings.CodeOf(err) != settings.ExitUsage || !strings.Contains(err.Error(), "--join")) {
			t.Errorf("%q: %v", addr, err)
		}
	}
	if CheckSocket("/"+strings.Repeat("a", maxSocket-1)) != nil ||
		settings.CodeOf(CheckSocket("/"+strings.Repeat("a", maxSocket))) != settings.ExitUsage {
		t.Error("the length of a socket's path")
	}
}

func TestCheckFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := CheckFree("gossip", addr); settings.CodeOf(err) != settings.ExitFailed || !strings.Contains(err.Error(), addr) {
		t.Errorf("%v", err)
	}
	l.Close()
	if err := CheckFree("gossip", addr); err != nil {
		t.Error(err)
	}
}
