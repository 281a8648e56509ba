package central

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"rackpower/central/api"
)

// TestTheCommandsOfTheAPIDocumentWork runs the blocks of shell of docs/api.md one after the
// other, and looks for the lines that follow in what they print.
func TestTheCommandsOfTheAPIDocumentWork(t *testing.T) {
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: %s is missing: apt-get install %s", tool, tool)
		}
	}
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := onTLS(t)
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```\n(?:```text\n(.*?)```\n)?").FindAllStringSubmatch(string(text), -1)
	script := "set -euo pipefail\n"
	for i, b := range blocks {
		script += fmt.Sprintf("%s\necho; echo 'END %d'\n", b[1], i)
	}
	script = strings.NewReplacer("/run/rackpower/central.sock", r.cfg.Socket, "https://central.example:7620", r.url()).Replace(script)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	rest := string(out)
	for i, b := range blocks {
		said, after, _ := strings.Cut(rest, fmt.Sprintf("\nEND %d\n", i))
		rest = after
		for line := range strings.Lines(b[2]) {
			if line = strings.TrimSpace(line); !strings.Contains(strings.ToLower(said), strings.ToLower(line)) {
				t.Errorf("%s\ndoes not print %q but\n%s", b[1], line, said)
			}
		}
		if b[2] == "" || strings.Contains(said, `"code":`) {
			t.Errorf("%s\nsays\n%s", b[1], said)
		}
	}
	if len(blocks) < 7 {
		t.Errorf("%d blocks", len(blocks))
	}
}

// TestTheCodesAreDocumented: docs/api.md has the table of package api.
func TestTheCodesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range api.Codes {
		if line := fmt.Sprintf("| `%s` | %d | %s |\n", c.Code, c.Status, c.Meaning); !strings.Contains(string(text), line) {
			t.Errorf("docs/api.md lacks %s", line)
		}
	}
}
