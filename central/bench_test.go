package central

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

const benchClients = 64

// clients runs f from 64 goroutines, b.N times together.
func clients(b *testing.B, f func(client, i int) error) {
	var wg sync.WaitGroup
	var next atomic.Int64
	b.ResetTimer()
	for client := range benchClients {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := f(client, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// take is askOps without HTTP: one request, one durable answer.
func BenchmarkOpsTaken(b *testing.B) {
	s := newSite(b)
	s.nodes("a")
	clients(b, func(_, i int) error {
		now := s.clock()
		all := readRequests(api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActOn, AskedBy: "x"}}}, now)
		return s.c.write(context.Background(), now, "central", func(u *unitOfWork) error {
			_, err := u.takeAll(all)
			return err
		})
	})
}

func BenchmarkOpsTakenHTTP(b *testing.B) {
	s := newSite(b)
	s.nodes("a")
	clients(b, func(_, i int) error {
		_, err := s.AskOps(context.Background(), api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActOn}}})
		return err
	})
}

func BenchmarkOpsTaken100AtOnceHTTP(b *testing.B) {
	s := newSite(b)
	s.nodes("a")
	clients(b, func(_, i int) error {
		var in api.AskOps
		for range 100 {
			in.Ops = append(in.Ops, api.OpRequest{ID: newID(), Node: "a", Action: power.ActOn})
		}
		_, err := s.AskOps(context.Background(), in)
		return err
	})
	b.ReportMetric(100*float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func benchRacks(b *testing.B, s *site, nodesEach int) []*rack {
	b.Helper()
	racks := make([]*rack, benchClients)
	for i := range racks {
		var specs []api.NodeSpec
		for n := range nodesEach {
			specs = append(specs, api.NodeSpec{
				Name: fmt.Sprintf("r%dn%d", i, n), Rack: fmt.Sprintf("r%d", i),
				BMC: fmt.Sprintf("ipmi://x@bmc-%d-%d", i, n),
			})
		}
		if _, err := s.AddNodes(context.Background(), api.AddNodes{Nodes: specs}); err != nil {
			b.Fatal(err)
		}
		racks[i] = s.rack(fmt.Sprintf("r%d", i))
		racks[i].settled()
	}
	return racks
}

func BenchmarkEmptyPollsHTTP(b *testing.B) {
	s := newSite(b)
	racks := benchRacks(b, s, 1)
	clients(b, func(client, _ int) error {
		_, err := s.Poll(context.Background(), racks[client].name, racks[client].request(0))
		return err
	})
}

func BenchmarkEmptyPolls(b *testing.B) {
	s := newSite(b)
	racks := benchRacks(b, s, 1)
	clients(b, func(client, _ int) error {
		in := racks[client].request(0)
		out, err := s.c.answerPoll(context.Background(), s.c.sessions.of(racks[client].name), &in)
		if out != nil {
			return fmt.Errorf("not empty: %+v", out)
		}
		return err
	})
}

func BenchmarkReportsOf40Nodes(b *testing.B) {
	s := newSite(b)
	racks := benchRacks(b, s, 40)
	var tick atomic.Int64
	clients(b, func(client, _ int) error {
		at := s.clock().Add(time.Duration(tick.Add(1)))
		in := api.Report{JournalID: racks[client].journal}
		for n := range 40 {
			in.Readings = append(in.Readings, api.NodeReading{
				Node: fmt.Sprintf("r%dn%d", client, n), Reading: power.Seen(power.On, at),
				Monitor: matched,
			})
		}
		return s.c.write(context.Background(), at, "agent "+racks[client].name, func(u *unitOfWork) error {
			_, err := u.applyReport(racks[client].name, in)
			return err
		})
	})
}

// BenchmarkOperations has operations asked for, taken by a poll, and reported twice: when they run,
// and when they have ended, with a reading. The number is how many are asked for at once, of nodes
// that follow one another.
func BenchmarkOperations(b *testing.B) {
	for _, atOnce := range []int{1, 100} {
		b.Run(fmt.Sprint(atOnce), func(b *testing.B) {
			s := newSite(b)
			racks := benchRacks(b, s, 40)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				oneRound(b, s, racks, i*atOnce, atOnce)
			}
			b.ReportMetric(float64(b.N*atOnce)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

// oneRound asks for an operation of each of so many nodes, and has the racks do them.
func oneRound(b *testing.B, s *site, racks []*rack, first, n int) {
	b.Helper()
	var in api.AskOps
	for i := first; i < first+n; i++ {
		node := i % (len(racks) * 40)
		in.Ops = append(in.Ops, api.OpRequest{ID: newID(), Node: fmt.Sprintf("r%dn%d", node/40, node%40), Action: power.ActOff, AskedBy: "x"})
	}
	all := readRequests(in, s.clock())
	err := s.c.write(context.Background(), s.clock(), "central", func(u *unitOfWork) error {
		_, err := u.takeAll(all)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := first; i < first+n; i = (i/40 + 1) * 40 {
		r := racks[i/40%len(racks)]
		poll := r.request(0)
		got, err := s.c.answerPoll(context.Background(), s.c.sessions.of(r.name), &poll)
		if err != nil || got == nil {
			b.Fatal("nothing to do:", err)
		}
		r.took(*got)
		var runs, ends api.Report
		for _, op := range got.Ops {
			runs.Ops = append(runs.Ops, r.running(op))
			ends.Ops = append(ends.Ops, r.ended(op, power.Succeeded))
			ends.Readings = append(ends.Readings, api.NodeReading{Node: op.Node, Reading: power.Seen(power.Off, time.Now()), Monitor: matched})
		}
		for _, in := range []api.Report{runs, ends} {
			in.Session, in.JournalID, in.Epoch, in.LSN = r.w.Session, r.journal, r.epoch, r.next()
			to := httptest.NewRequest("POST", "/", nil)
			to.SetPathValue("name", r.name)
			if _, err := s.c.report(to, in); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkImportOf20000Nodes imports nodes of 500 racks into an empty central.
func BenchmarkImportOf20000Nodes(b *testing.B) {
	b.ReportAllocs()
	for range b.N {
		b.StopTimer()
		s := newSite(b)
		in := api.AddNodes{AskedBy: "x"}
		for i := range 20_000 {
			in.Nodes = append(in.Nodes, api.NodeSpec{
				Name: fmt.Sprintf("r%03dn%02d", i/40, i%40), Rack: fmt.Sprintf("r%03d", i/40), BMC: fmt.Sprintf("ipmi://x@10.0.%d.%d", i/250, i%250),
				Password: "secret",
			})
		}
		b.StartTimer()
		if _, err := s.AddNodes(context.Background(), in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHoldsOf2560Nodes sets a hold on every node of 64 racks, or releases it.
func BenchmarkHoldsOf2560Nodes(b *testing.B) {
	s := newSite(b)
	benchRacks(b, s, 40)
	nodes, err := s.Nodes(context.Background(), "all")
	if err != nil {
		b.Fatal(err)
	}
	in := api.SetHold{AskedBy: "x", Reason: "x"}
	for _, n := range nodes {
		in.Names = append(in.Names, n.Name)
	}
	b.ResetTimer()
	for i := range b.N {
		in.Want = []power.Want{power.WantOn, ""}[i%2]
		if _, err := s.SetHold(context.Background(), in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPruning takes requests one after the other while old history is deleted, and before:
// RACKPOWER_HISTORY operations with four entries of the audit log each, 20,000 unless it is set.
func BenchmarkPruning(b *testing.B) {
	history := 20_000
	if text := os.Getenv("RACKPOWER_HISTORY"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		history = n
	}
	for b.Loop() {
		s := newSite(b)
		s.nodes("a")
		old := s.clock().Add(-2 * s.c.cfg.Keep)
		for from := 0; from < history; from += 1000 {
			err := s.c.store.Write(b.Context(), func(tx *store.Tx) error {
				for i := from; i < from+1000; i++ {
					if err := endedOp(tx, fmt.Sprintf("old-%09d", i), "a", old); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		var quiet, pruning []time.Duration
		accept := func() time.Duration {
			began := time.Now()
			if _, err := s.AskOps(b.Context(), api.AskOps{Ops: []api.OpRequest{{ID: newID(), Node: "a", Action: power.ActOn}}}); err != nil {
				b.Fatal(err)
			}
			return time.Since(began)
		}
		for range 500 {
			quiet = append(quiet, accept())
		}
		done := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			s.c.prune(b.Context())
		}()
		for pruned := false; !pruned; {
			select {
			case <-done:
				pruned = true
			default:
				pruning = append(pruning, accept())
			}
		}
		b.ReportMetric(float64(history)/time.Since(began).Seconds(), "pruned/s")
		for name, all := range map[string][]time.Duration{"quiet": quiet, "pruning": pruning} {
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-"+name+"-ms")
		}
		b.ReportMetric(float64(pruning[len(pruning)-1].Microseconds())/1000, "most-pruning-ms")
	}
}

// endedOp adds an operation that ended long ago, with its entries of the audit log.
func endedOp(tx *store.Tx, id, node string, at time.Time) error {
	o := store.Op{Op: api.Op{
		ID: id, Node: node, Rack: "r1", Action: power.ActOn, AskedBy: "x", Origin: power.FromCentral, AskedAt: at, Phase: api.PhaseEnded,
		EndedAt: &at, Outcome: power.Succeeded,
	}, Delivered: true}
	err := tx.AddOp(&o)
	for _, what := range []string{auditAsked, auditAccepted, "started", auditEnded} {
		err = errors.Join(err, tx.AddAudit(api.AuditEntry{At: at, Who: "x", What: what, Node: node, Op: id}))
	}
	return err
}
