package cmd_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"rackpower/central/loadtest"
	"rackpower/central/store/pgtest"
)

// measureCentral has central measured under a fleet of a size.
func measureCentral(tb testing.TB, p loadtest.Plan) []loadtest.Row {
	tb.Helper()
	p.CLI, p.Central = build(tb)
	if pgtest.Wanted() {
		p.Database = pgtest.URL(tb)
	}
	p.Dir = tb.TempDir()
	rows, err := loadtest.Measure(tb.Context(), p)
	if err != nil {
		tb.Fatal(err)
	}
	var text strings.Builder
	if err := loadtest.Write(&text, rows); err != nil {
		tb.Fatal(err)
	}
	tb.Logf("%d agents with %d nodes each\n%s", p.Agents, p.NodesEach, text.String())
	return rows
}

// loadPlan is what the environment says of the load, of a size where it says none.
func loadPlan(tb testing.TB, size string) loadtest.Plan {
	tb.Helper()
	p := loadtest.Plan{Only: os.Getenv("RACKPOWER_LOAD_ONLY")}
	if _, err := fmt.Sscanf(cmp.Or(os.Getenv("RACKPOWER_LOAD"), size), "%dx%d", &p.Agents, &p.NodesEach); err != nil {
		tb.Fatalf("RACKPOWER_LOAD: %v: want AGENTSxNODES", err)
	}
	if text := os.Getenv("RACKPOWER_LOAD_TIME"); text != "" {
		var err error
		if p.Lasts, err = time.ParseDuration(text); err != nil {
			tb.Fatal(err)
		}
	}
	return p
}

// benchCentral is central with a fleet of agents, as rows of make bench.
func benchCentral(b *bench, t *testing.T) {
	p := loadPlan(t, "2500x40")
	b.say("central with %d agents, each with %d nodes", p.Agents, p.NodesEach)
	for _, r := range measureCentral(t, p) {
		line := benchLine{
			Row: r.What, Unit: r.Unit, Ours: series{Values: []float64{r.Value}}, AtMost: r.Target, More: r.More, Quantile: 0.5, Note: r.Note,
		}
		if r.Baseline > 0 {
			line.Baseline, line.Other = r.Against, &series{Values: []float64{r.Baseline}}
		}
		b.lines = append(b.lines, line)
	}
}

// BenchmarkCentral prints what central does under a fleet. RACKPOWER_LOAD is its size, such as 2500x40,
// RACKPOWER_LOAD_TIME how long each load lasts, RACKPOWER_LOAD_ONLY one part of it, and RACKPOWER_LOAD_JSON a
// file for the rows. With RACKPOWER_TEST_DATABASE=postgres central's database is on PostgreSQL.
func BenchmarkCentral(b *testing.B) {
	p := loadPlan(b, "50x40")
	rows := measureCentral(b, p)
	if file := os.Getenv("RACKPOWER_LOAD_JSON"); file != "" {
		text, err := json.MarshalIndent(rows, "", "  ")
		if err == nil {
			err = os.WriteFile(file, append(text, '\n'), 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// TestCentralIsMeasured has every figure measured with a small fleet.
func TestCentralIsMeasured(t *testing.T) {
	rows := measureCentral(t, loadtest.Plan{Size: loadtest.Size{Agents: 10, NodesEach: 4}, Lasts: time.Second, Repeat: 1})
	if len(rows) < 15 {
		t.Errorf("%d rows", len(rows))
	}
	for _, r := range rows {
		if r.Value < 0 || r.Value == 0 && r.Unit != "% of a core" {
			t.Errorf("%+v", r)
		}
	}
}
