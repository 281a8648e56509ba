package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rackpower/cmd/settings"
)

func TestAgentChecksItsFlagsBeforeItWrites(t *testing.T) {
	for flags, says := range map[string]string{
		"--gossip foo":                                       "cannot gossip at \"foo\"",
		"--gossip 0.0.0.0:7946":                              "loopback",
		"--gossip 127.0.0.1:0 --join nope":                   "--join: \"nope\" is not HOST:PORT",
		"--gossip 127.0.0.1:0 --join r2:gossip":              "--join: \"r2:gossip\"",
		"--gossip off --monitor never":                       "monitor schedule",
		"--gossip off --central ftp://x":                     "--central",
		"--gossip off --socket /" + strings.Repeat("a", 120): "name a shorter one with --socket",
	} {
		data := filepath.Join(t.TempDir(), "data")
		var out, errs bytes.Buffer
		app := newApp()
		app.Writer, app.ErrWriter = &out, &errs
		args := "rackpower agent --name r1 --data " + data + " " + flags
		if !strings.Contains(flags, "--central") {
			args += " --central none"
		}
		exit := settings.RunContext(context.Background(), app, strings.Fields(args))
		if exit != settings.ExitUsage || !strings.Contains(errs.String(), says) || strings.Count(errs.String(), "\n") > 2 {
			t.Errorf("%s: %d %q", flags, exit, errs.String())
		}
		if _, err := os.Stat(data); err == nil {
			t.Errorf("%s: the data directory was made", flags)
		}
	}
}
