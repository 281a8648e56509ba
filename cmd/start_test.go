package cmd_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestCommandsStartWithLittle bounds what our packages do before main, which every command waits for:
// an expression, say, is better compiled when it is used first.
func TestCommandsStartWithLittle(t *testing.T) {
	cli, _ := build(t)
	cmd := exec.Command(cli, "nodes")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var trace strings.Builder
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	const most = 150 // of a package; 73 is the largest now
	seen := 0
	for line := range strings.Lines(trace.String()) { // init PACKAGE @1.2 ms, 0.03 ms clock, 352 bytes, 1 allocs
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != "init" || words[1] != "main" && !strings.HasPrefix(words[1], "rackpower/") {
			continue
		}
		seen++
		if allocs, err := strconv.Atoi(words[len(words)-2]); err != nil || allocs > most {
			t.Errorf("package %s makes more than %d objects before main: %s", words[1], most, line)
		}
	}
	if seen == 0 {
		t.Errorf("no package was traced:\n%s", trace.String())
	}
}
