package loadtest

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/power"
)

// Row is one figure.
type Row struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Target is what Value should be at most, or at least where More is set, at FullSize.
	Target float64 `json:"target,omitempty"`
	More   bool    `json:"more,omitempty"`
	// Baseline is what the same takes that Against names, measured in the same run.
	Baseline float64 `json:"baseline,omitempty"`
	Against  string  `json:"against,omitempty"`
	Note     string  `json:"note,omitempty"`
}

// FullSize is the size that targets are for.
var FullSize = Size{2500, 40}

// Plan says what is measured and for how long.
type Plan struct {
	Programs
	Size
	Dir    string        // an empty one, on a disk
	Lasts  time.Duration // of each load. 0: 5 s
	Repeat int           // commands and starts; the median counts. 0: 5
	Only   string        // "": all; else import, start, commands, steady, batches or singles
}

// Write prints rows as a table.
func Write(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\tmeasured\ttarget\tbaseline\tratio\t")
	number := func(v float64) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf("%.4g", v)
	}
	for _, r := range rows {
		ratio := ""
		if r.Baseline > 0 {
			ratio = fmt.Sprintf("%.2f of %s", r.Value/r.Baseline, r.Against)
		}
		fmt.Fprintf(t, "%s\t%s %s\t%s\t%s\t%s\t%s\n", r.What, cmp.Or(number(r.Value), "0"), r.Unit, number(r.Target), number(r.Baseline), ratio,
			r.Note)
	}
	return t.Flush()
}

// Measure starts central on an empty directory, and fleets, and gives a row for each figure. It
// takes some minutes at FullSize.
func Measure(ctx context.Context, p Plan) (rows []Row, err error) {
	p.Lasts, p.Repeat = cmp.Or(p.Lasts, 5*time.Second), cmp.Or(p.Repeat, 5)
	s, err := newSite(ctx, p.Programs, p.Dir)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	bare, err := openPlain(p.Dir)
	if err != nil {
		return nil, err
	}
	defer bare.close()
	m := &measurement{Plan: p, ctx: ctx, site: s, plain: bare}
	defer func() {
		if m.fleet != nil {
			m.fleet.Stop()
		}
	}()
	for _, part := range []struct {
		name string
		do   func() error
		must bool // the others need it
	}{
		{"import", m.imports, true},
		{"start", m.starts, true},
		{"commands", m.commands, false},
		{"steady", m.steady, false},
		{"batches", func() error { return m.ceiling(100, 8) }, false},
		{"singles", func() error { return m.ceiling(1, 64) }, false},
	} {
		m.quiet = p.Only != "" && p.Only != part.name
		if m.quiet && !part.must {
			continue
		}
		if err := part.do(); err != nil {
			return m.rows, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return m.rows, nil
}

type measurement struct {
	Plan
	*site
	ctx   context.Context
	plain *plain
	fleet *Fleet
	rows  []Row
	quiet bool // what is done is only needed by other parts
}

func (m *measurement) row(r Row) {
	if m.Size != FullSize {
		r.Target = 0
	}
	if !m.quiet {
		m.rows = append(m.rows, r)
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func mb(n int64) float64         { return float64(n) / 1e6 }

// imports imports all nodes from a file.
func (m *measurement) imports() error {
	path := filepath.Join(m.Dir, "nodes.json")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	specs := make([]api.NodeSpec, m.Nodes())
	for i := range specs {
		specs[i] = m.Spec(i)
	}
	buffer := bufio.NewWriter(file)
	if err := errors.Join(json.NewEncoder(buffer).Encode(specs), buffer.Flush(), file.Close()); err != nil {
		return err
	}
	before, err := cpu(m.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r, err := m.run(m.ctx, "node", "import", path, "--yes")
	if err != nil {
		return err
	}
	after, err := cpu(m.cmd.Process.Pid)
	if err != nil {
		return err
	}
	write, _, err := m.plain.nodes(m.ctx, m.Nodes())
	m.row(Row{
		What: fmt.Sprintf("import of %d nodes", m.Nodes()), Value: r.wall.Seconds(), Unit: "s", Target: 3, Baseline: write.Seconds(),
		Against: "SQLite alone", Note: fmt.Sprintf("processor: client %.1f s, central %.1f s", r.cpu.Seconds(), (after - before).Seconds()),
	})
	return err
}

// starts has all agents say hello at once, and again when central was killed.
func (m *measurement) starts() (err error) {
	began := time.Now()
	// What is asked for later takes longer than a report gathers words for, so that its end is
	// a word of its own.
	m.fleet, err = Start(Config{Size: m.Size, Target: m.target(), Took: 100 * time.Millisecond, Every: time.Minute})
	if err != nil {
		return err
	}
	all := func() bool { return m.fleet.Settled() >= int64(m.Agents) }
	if err := Until(m.ctx, 2*time.Minute, "all agents are settled", all); err != nil {
		return err
	}
	m.row(Row{
		What: fmt.Sprintf("%d agents at once, first time", m.Agents), Value: time.Since(began).Seconds(), Unit: "s", Target: 4,
		Note: fmt.Sprintf("%d sessions were lost on the way", m.fleet.Lost()),
	})
	var took []time.Duration
	for range 3 {
		if m.quiet {
			break
		}
		was := m.fleet.Settled()
		m.kill()
		began := time.Now()
		if err := m.spawn(); err != nil {
			return err
		}
		all := func() bool { return m.fleet.Settled() >= was+int64(m.Agents) }
		if err := Until(m.ctx, 2*time.Minute, "all agents are settled", all); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	m.row(Row{
		What: fmt.Sprintf("%d agents at once, after central was killed", m.Agents), Value: quantile(took, 0.5).Seconds(), Unit: "s", Target: 2,
	})
	return nil
}

// commands has a person ask.
func (m *measurement) commands() error {
	start, err := m.times(m.ctx, m.Repeat, func(int) []string { return []string{"version"} })
	if err != nil {
		return err
	}
	base := ms(quantile(walls(start), 0.5))
	node := func() string { return m.Node(rand.N(m.Nodes())) }
	for _, c := range []struct {
		what   string
		args   func(int) []string
		target float64
		big    bool
	}{
		{"status NODE", func(int) []string { return []string{"status", node()} }, 25, false},
		{"on NODE --wait none", func(int) []string { return []string{"on", node(), "--wait", "none"} }, 25, false},
		{"status @RACK", func(int) []string { return []string{"status", "@" + m.Rack(rand.N(m.Agents))} }, 0, false},
		{"status --summary", func(int) []string { return []string{"status", "--summary"} }, 1000, true},
		{"status -o json", func(int) []string { return []string{"status", "-o", "json"} }, 0, true},
	} {
		all, err := m.times(m.ctx, m.Repeat, c.args)
		if err != nil {
			return err
		}
		r := Row{
			What: fmt.Sprintf("%s of %d nodes", c.what, m.Nodes()), Value: ms(quantile(walls(all), 0.5)), Unit: "ms", Target: c.target,
			Baseline: base, Against: "the client's start", Note: fmt.Sprintf("slowest %.1f ms", ms(quantile(walls(all), 1))),
		}
		m.row(r)
		if c.big {
			var rss []int64
			for _, r := range all {
				rss = append(rss, r.rss)
			}
			m.row(Row{
				What: c.what + ": memory of the client", Value: mb(quantile(rss, 0.5)), Unit: "MB", Target: 100,
				Note: fmt.Sprintf("%.1f MB printed", mb(all[0].out)),
			})
		}
	}
	return nil
}

func walls(all []ran) (out []time.Duration) {
	for _, r := range all {
		out = append(out, r.wall)
	}
	return out
}

// The steady load of a fleet of FullSize: so many nodes are found in another state a second, and
// so many requests are made, one each.
const (
	changesPerSecond  = 83
	requestsPerSecond = 100
)

// steady has a fleet live as it does every day.
func (m *measurement) steady() error {
	per := func(n int) time.Duration { // in proportion to the size, and often enough to be seen
		return time.Duration(float64(time.Second) / max(float64(n)*float64(m.Nodes())/float64(FullSize.Nodes()), 10))
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.Lasts)
	defer cancel()
	pid := m.cmd.Process.Pid
	before, err := cpu(pid)
	if err != nil {
		return err
	}
	reports, began := m.fleet.Reports(), time.Now()
	m.fleet.Took()
	var load sync.WaitGroup
	load.Go(func() { every(ctx, per(changesPerSecond), func() { m.fleet.Flip(rand.N(m.Nodes())) }) })
	asks := newAsking(m, 1)
	load.Go(func() {
		var each sync.WaitGroup
		every(ctx, per(requestsPerSecond), func() { each.Go(func() { asks.ask(m.ctx, m.client) }) })
		each.Wait()
	})
	load.Wait()
	took := time.Since(began)
	after, err := cpu(pid)
	if err != nil {
		return err
	}
	now, _ := memory(pid)
	told := float64(m.fleet.Reports()-reports) / took.Seconds()
	if err := asks.end(); err != nil {
		return err
	}
	ended := m.fleet.Took()
	what := fmt.Sprintf("%d nodes, %d agents, daily load: ", m.Nodes(), m.Agents)
	m.row(Row{
		What: what + "processor", Value: 100 * float64(after-before) / float64(took), Unit: "% of a core", Target: 25,
		Note: fmt.Sprintf("%.0f reports/s, %.0f requests/s", told, float64(asks.n.Load())/took.Seconds()),
	})
	m.row(Row{What: what + "memory", Value: mb(now), Unit: "MB", Target: 300})
	m.row(Row{
		What: what + "p99 of an answer", Value: ms(quantile(asks.took, 0.99)), Unit: "ms", Target: 20,
		Note: fmt.Sprintf("p50 %.1f; asked to ended, of which the BMC 100: p50 %.0f, p99 %.0f", ms(quantile(asks.took, 0.5)),
			ms(quantile(ended, 0.5)), ms(quantile(ended, 0.99))),
	})
	return nil
}

// every calls f at a steady rate until ctx ends.
func every(ctx context.Context, pause time.Duration, f func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// asking is people who ask for operations, so many at once each time.
type asking struct {
	m      *measurement
	atOnce int
	before int64 // ended then
	n      atomic.Int64

	mu   sync.Mutex
	took []time.Duration // of the answers
	err  error
}

func newAsking(m *measurement, atOnce int) *asking {
	return &asking{m: m, atOnce: atOnce, before: m.fleet.Ended()}
}

// ask asks once. Nodes that follow one another are asked for together, as people do.
func (a *asking) ask(ctx context.Context, client *api.Client) {
	var in api.AskOps
	var ids []string
	first := rand.N(a.m.Nodes())
	for i := range a.atOnce {
		id := uuid.Must(uuid.NewV7()).String()
		ids = append(ids, id)
		action := power.ActOn
		if rand.N(2) == 0 {
			action = power.ActOff
		}
		in.Ops = append(in.Ops, api.OpRequest{ID: id, Node: a.m.Node((first + i) % a.m.Nodes()), Action: action})
	}
	a.m.fleet.Asking(ids...)
	began := time.Now()
	ops, err := client.AskOps(ctx, in)
	took := time.Since(began)
	for _, op := range ops {
		if op.Outcome != "" {
			err = errors.Join(err, fmt.Errorf("%s: %s", op.Node, op.Message))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.err = err
		return
	}
	a.n.Add(int64(a.atOnce))
	a.took = append(a.took, took)
}

// end waits until all that was asked for has ended.
func (a *asking) end() error {
	if a.err != nil {
		return a.err
	}
	return Until(a.m.ctx, time.Minute, "all operations have ended", func() bool { return a.m.fleet.Ended()-a.before >= a.n.Load() })
}

// ceiling has so many people ask for so many operations at once, again and again.
func (m *measurement) ceiling(atOnce, people int) error {
	base, err := m.plain.ops(m.ctx, max(200, 20*atOnce), atOnce)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.Lasts)
	defer cancel()
	pid := m.cmd.Process.Pid
	before, err := cpu(pid)
	if err != nil {
		return err
	}
	m.fleet.Took()
	asks, began := newAsking(m, atOnce), time.Now()
	var all sync.WaitGroup
	for range people {
		client, err := api.NewClient(m.target())
		if err != nil {
			return err
		}
		all.Go(func() {
			defer client.Close()
			for ctx.Err() == nil {
				asks.ask(m.ctx, client)
			}
		})
	}
	all.Wait()
	if err := asks.end(); err != nil {
		return err
	}
	took, ended := time.Since(began), m.fleet.Took()
	after, err := cpu(pid)
	if err != nil {
		return err
	}
	what, target := "asked and reported, one by one", 2000.0
	if atOnce > 1 {
		what, target = fmt.Sprintf("asked and reported, %d at once", atOnce), 10_000
	}
	rate := float64(asks.n.Load()) / took.Seconds()
	m.row(Row{
		What: what, Value: rate, Unit: "/s", Target: target, More: true, Baseline: base, Against: "SQLite alone",
		Note: fmt.Sprintf("%d ask at once; central %.0f %% of a core, %.2f ms each; asked to ended p50 %.0f, p99 %.0f ms", people,
			100*float64(after-before)/float64(took), ms(after-before)/float64(asks.n.Load()), ms(quantile(ended, 0.5)), ms(quantile(ended, 0.99))),
	})
	m.row(Row{
		What: what + ": p99 of an answer", Value: ms(quantile(asks.took, 0.99)), Unit: "ms", Target: 100,
		Note: fmt.Sprintf("p50 %.1f ms", ms(quantile(asks.took, 0.5))),
	})
	return nil
}
