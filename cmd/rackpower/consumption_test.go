package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/power"
)

func consumption(node string, watts, limit int, exception power.LimitException) api.NodeConsumption {
	at := time.Now().Add(-3 * time.Second)
	low, high := watts-10, watts+10
	return api.NodeConsumption{
		Node: node, Rack: "r1", Domain: "feed-a", Reach: power.ReachOK, ReadAt: &at, Consumption: power.Consumption{
			Watts: &watts, Min: &low, Max: &high, Average: &watts, Limit: &power.Limit{Watts: limit, Active: limit > 0, Exception: exception},
		},
	}
}

func summed(nodes ...api.NodeConsumption) api.Consumption {
	out := api.Consumption{Nodes: nodes, Total: api.ConsumptionSum{Name: "all"}}
	for _, n := range nodes {
		out.Total.Add(n)
	}
	rack, domain := out.Total, out.Total
	rack.Name, domain.Name = "r1", "feed-a"
	out.Racks, out.Domains = []api.ConsumptionSum{rack}, []api.ConsumptionSum{domain}
	return out
}

// metered is a central whose nodes take so much.
func metered(t *testing.T, nodes ...api.NodeConsumption) *fake {
	f := newFake(t, hall(3, power.On)...)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/nodes", f.getNodes)
	mux.HandleFunc("POST /v1/ops", f.ask)
	mux.HandleFunc("POST /v1/ops/query", f.query)
	var asked []api.ReadConsumption
	taking(f, mux, "POST /v1/power", &asked, func(api.ReadConsumption) any { return summed(nodes...) })
	f.url = serveUnix(t, mux)
	return f
}

func TestWhatConsumptionShows(t *testing.T) {
	away := api.NodeConsumption{Node: "r1n03", Rack: "r1", Reach: power.ReachNever, Message: "agent r1 is away"}
	inactive := consumption("r1n02", 300, 800, "")
	inactive.Limit.Active = false
	for _, c := range []struct {
		args  string
		exit  int
		out   []string
		lacks string
		errs  string
	}{
		{"power r1n[01-02]", 0, []string{
			"NODE", "AT-LIMIT", "412", "402", "422", "500", "HardPowerOff", "3 s", "(800)", "rack r1", "domain feed-a", "712", "2 of 2", "1 of 2",
		}, "RACK", ""},
		{"power r1n[01-02] -o wide", 0, []string{"RACK", "DOMAIN"}, "", ""},
		{"power r1n[01-02] -o json", 0, []string{`"watts": 412`, `"min_watts": 402`, `"exception": "HardPowerOff"`, `"read_at": "`}, "rack r1", ""},
		{"power r1n[01-02] -o name", 0, []string{"r1n01\nr1n02\n"}, "", ""},
		{"power r1n[01-02] -o yaml", 0, []string{"watts: 412", "limit:"}, "", ""},
		{"power r1n[01-02] --sum rack -o json", 0, []string{`"watts": 712`, `"limit_watts": 500`, `"limited": 1`}, `"node"`, ""},
		{"power r1n[01-02] --sum domain", 0, []string{"DOMAIN", "feed-a", "712"}, "r1n01", ""},
		{"power r1n[01-02] --sum all -o jsonl", 0, []string{`{"name":"all","nodes":2,"read":2,"watts":712,"limited":1,"limit_watts":500}`}, "", ""},
		{"power r1n[01-02] --sum node", settings.ExitUsage, nil, "", "--sum"},
		{"power r1n[01-02] --timeout 2m", settings.ExitUsage, nil, "", "--timeout"},
		{"power", settings.ExitUsage, nil, "", "NODES is missing"},
	} {
		f := metered(t, consumption("r1n01", 412, 500, power.LimitHardPowerOff), inactive)
		got := f.run(c.args)
		expectTable(t, c.args, got, c.exit, c.out, c.errs)
		if c.lacks != "" && strings.Contains(got.out, c.lacks) {
			t.Errorf("%s has %q:\n%s", c.args, c.lacks, got.out)
		}
	}
	f := metered(t, consumption("r1n01", 412, 0, ""), away)
	expect(t, "a node that is not read", f.run("power r1n[01,03]"), settings.ExitFailed, "r1n03: agent r1 is away", "1 of 2 nodes were not read")
	expect(t, "the same for programs", f.run("power r1n[01,03] -o json"), settings.ExitFailed, `"watts": null`, "1 of 2 nodes were not read")
}

func TestParseWatts(t *testing.T) {
	for text, want := range map[string]int{"800W": 800, "800w": 800, "800": 800, "1.2kW": 1200, "2k": 2000, "none": 0, "NONE": 0, "65535": 65535} {
		if got, err := parseWatts(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "W", "0", "0W", "-5", "1.5W", "65536", "1e9", "NaN", "Inf", "800 W", "off", "r1n01", "80OW"} {
		if got, err := parseWatts(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
}

// TestCapAsksBeforeACut: where a BMC turns its node off at the limit, somebody has to know.
func TestCapAsksBeforeACut(t *testing.T) {
	for _, c := range []struct {
		args      string
		exception power.LimitException
		exit      int
		out, errs string
		limit     int
		confirmed bool
	}{
		{"cap r1n01 800W --wait none", power.LimitLogEventOnly, 0, "taken", "", 800, false},
		{"cap r1n01 800W --wait none", power.LimitHardPowerOff, settings.ExitUsage, "", "for too long (HardPowerOff): r1n01; nothing was done", -1, false},
		{"cap r1n01 800W --wait none --yes", power.LimitHardPowerOff, 0, "taken", "", 800, true},
		{"cap r1n01 none --wait none", power.LimitHardPowerOff, 0, "taken", "", 0, false},
		{"cap r1n01 1.2kW --wait none --if-busy refuse --reason x", "", 0, "taken", "", 1200, false},
		{"cap r1n01", "", settings.ExitUsage, "", "WATTS|none is missing", -1, false},
		{"cap r1n01 r1n02", "", settings.ExitUsage, "", "is no limit", -1, false},
		{"cap", "", settings.ExitUsage, "", "NODES is missing", -1, false},
		{"cap r1n01 800W --boot pxe", "", settings.ExitUsage, "", "boot", -1, false},
	} {
		f := metered(t, consumption("r1n01", 412, 0, c.exception))
		expect(t, c.args, f.run(c.args), c.exit, c.out, c.errs)
		switch {
		case c.limit < 0 && len(f.asked) != 0:
			t.Errorf("%s: %+v was sent", c.args, f.asked)
		case c.limit >= 0 && (len(f.asked) != 1 || f.asked[0].Ops[0].Action != power.ActCap || f.asked[0].Ops[0].Limit != c.limit ||
			f.asked[0].Ops[0].Confirmed != c.confirmed):
			t.Errorf("%s: %+v was sent", c.args, f.asked)
		}
	}
	f := metered(t, consumption("r1n01", 412, 0, ""))
	f.becomes = func(op *api.Op, _ int) { op.Outcome, op.Phase = power.Succeeded, api.PhaseEnded }
	expect(t, "what is shown", f.run("cap r1n01 800W"), 0, "r1n01 limit 800 W", "")
}
