package cmd_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// floors says how high each package stands; an import only ever goes down. Test
// files are held to it as well, but for packages that start whole systems.
var floors = map[string]int{
	"rackpower/cmd":                   6, // this test and those of whole processes
	"rackpower/cmd/rackpower":         5,
	"rackpower/cmd/rackpower-central": 5,
	"rackpower/cmd/docscheck":         5,
	"rackpower/cmd/rackpower/agentd":  4,
	"rackpower/cmd/daemon":            3,
	"rackpower/cmd/rackpower/demo":    2,
	"rackpower/cmd/settings":          1,
	"rackpower/cmd/printer":           1,
	"rackpower/cmd/term":              0,
	"rackpower/central":               4,
	"rackpower/central/loadtest":      4,
	"rackpower/central/store":         3,
	"rackpower/central/store/pgtest":  0,
	"rackpower/central/web":           3,
	"rackpower/agent":                 3,
	"rackpower/agent/limiter":         2,
	"rackpower/agent/monitor":         2,
	"rackpower/agent/simtest":         2,
	"rackpower/agent/identity":        2,
	"rackpower/central/httpserver":    2,
	"rackpower/central/webhook":       2,
	"rackpower/central/api":           1,
	"rackpower/central/facts":         2,
	"rackpower/agent/bmcpool":         1,
	"rackpower/central/auth":          0,
	"rackpower/central/forward":       1,
	"rackpower/central/seal":          0,
	"rackpower/central/oidc":          1,
	"rackpower/central/oidc/oidctest": 0,
	"rackpower/gossip":                1,
	"rackpower/power/ipmi":            1,
	"rackpower/power/redfish":         1,
	"rackpower/power/exec":            1,
	"rackpower/power/bmcsim":          1,
	"rackpower/power/powertest":       1,
	"rackpower/journal/faultfs":       1,
	"rackpower/power":                 0,
	"rackpower/power/cronexpr":        0,
	"rackpower/power/noderange":       0,
	"rackpower/journal":               0,
	"rackpower/systemd":               0,
	"rackpower/internal/mutation":     0,
	"rackpower/internal/backoff":      0,
	"rackpower/internal/lock":         0,
	"rackpower/internal/metrics":      0,
	"rackpower/internal/prom":         1,

	"rackpower/cmd/rackpower/front":          1,
	"rackpower/cmd/rackpower/front/fence":    2,
	"rackpower/cmd/rackpower/front/powerman": 2,
	"rackpower/cmd/rackpower/front/slurm":    2,
}

// owners says who alone may import a module from outside.
var owners = map[string][]string{
	"github.com/hashicorp/serf":       {"rackpower/gossip"},
	"github.com/hashicorp/memberlist": {"rackpower/gossip"},
	"github.com/mattn/go-sqlite3":     {"rackpower/central/store"},
	"github.com/jackc":                {"rackpower/central/store", "rackpower/central/store/pgtest"},
	"github.com/bougou/go-ipmi":       {"rackpower/power/ipmi", "rackpower/power/bmcsim"},
	"github.com/coreos/go-oidc":       {"rackpower/central/oidc"},
	"golang.org/x/oauth2":             {"rackpower/central/oidc"},
	"github.com/robfig/cron":          {"rackpower/agent/monitor", "rackpower/central", "rackpower/power/cronexpr"},
	"github.com/coreos/go-systemd":    {"rackpower/systemd"},
	"github.com/prometheus":           {"rackpower/internal/prom"},
	"github.com/urfave/cli": {
		"rackpower/cmd/rackpower", "rackpower/cmd/rackpower/agentd", "rackpower/cmd/rackpower-central",
		"rackpower/cmd/daemon", "rackpower/cmd/settings",
	},
}

type listed struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "rackpower/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

func TestImportsGoDown(t *testing.T) {
	for _, p := range packages(t) {
		floor, ok := floors[p.ImportPath]
		if !ok {
			t.Errorf("%s stands on no floor: give it one here", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if below, ours := floors[imp]; ours && below >= floor && imp != p.ImportPath {
				t.Errorf("%s (floor %d) imports %s (floor %d)", p.ImportPath, floor, imp, below)
			}
		}
	}
}

func TestOnlyOwnersImportModules(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range append(append(p.Imports, p.TestImports...), p.XTestImports...) {
			for module, who := range owners {
				if (imp == module || strings.HasPrefix(imp, module+"/")) && !contains(who, p.ImportPath) {
					t.Errorf("%s imports %s, which only %s may", p.ImportPath, imp, strings.Join(who, ", "))
				}
			}
		}
	}
}

// TestAgentIsFreeOfCgo keeps SQLite, and with it cgo, out of the static binary.
func TestAgentIsFreeOfCgo(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "rackpower/cmd/rackpower").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if dep == "rackpower/central/store" || strings.HasPrefix(dep, "github.com/mattn/go-sqlite3") ||
			strings.HasPrefix(dep, "github.com/jackc/") {
			t.Errorf("cmd/rackpower depends on %s", dep)
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
