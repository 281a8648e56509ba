package agent

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/powertest"
)

// hungLog hangs in the flush of records of a kind until it is released.
type hungLog struct {
	appender
	kind              journal.Kind
	entered, released chan struct{}
}

func (l *hungLog) Append(entries ...journal.Entry) (uint64, error) {
	if slices.ContainsFunc(entries, func(e journal.Entry) bool { return e.Kind == l.kind }) {
		select {
		case l.entered <- struct{}{}:
		default:
		}
		<-l.released
	}
	return l.appender.Append(entries...)
}

type hungOpLog struct {
	opLog
	hung *hungLog
}

func (l hungOpLog) Append(entries ...journal.Entry) (uint64, error) { return l.hung.Append(entries...) }

// TestWhoOnlyLooksWaitsForNoDisk: while a flush of either log hangs, and the locks are
// taken that are held over it, the watchdog and those who ask at the socket are answered.
func TestWhoOnlyLooksWaitsForNoDisk(t *testing.T) {
	for name, kind := range map[string]journal.Kind{"operations": kindAccepted, "assignment": kindMemory} {
		t.Run(name, func(t *testing.T) {
			hung := &hungLog{kind: kind, entered: make(chan struct{}, 1), released: make(chan struct{})}
			a, err := New(Config{
				Name: "r1", Dir: t.TempDir(), Dial: powertest.NewFake().Dial, Monitor: MonitorOff, Logger: slog.New(slog.DiscardHandler),
				wrapLog: func(_ *Agent, log opLog) opLog {
					if kind != kindAccepted {
						return log
					}
					hung.appender = log
					return hungOpLog{log, hung}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if kind != kindAccepted {
				hung.appender, a.assigned.log = a.assigned.log, hung
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- a.Run(ctx, nil) }()
			defer func() {
				close(hung.released)
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			}()
			node := api.AssignedNode{Name: "n1", BMC: "ipmi://admin@n1", Password: "secret", Status: "DEPLOYED"}
			if err := a.apply(api.Assignment{Nodes: []api.AssignedNode{node}, Rev: 1}, theCentral); err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = a.Submit(power.Op{ID: "op-1", Node: "n1", Action: power.ActOn, AskedBy: "admin", Origin: power.FromCentral})
			}()
			<-hung.entered
			for waits := false; !waits; { // until a pass waits as well, holding the monitor's lock
				a.monitor.Poke()
				done := make(chan struct{})
				go func() {
					defer close(done)
					a.monitor.DesiresChanged()
				}()
				select {
				case <-done:
				case <-time.After(20 * time.Millisecond):
					waits = true
				}
			}
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				if !a.Alive() {
					t.Error("the agent is dead")
				}
				_ = a.Summary()
				_ = a.view.gossiped()
				for _, path := range []string{
					"/v1/nodes", "/v1/nodes/n1/explain", "/v1/info", "/v1/racks", "/v1/brakes", "/v1/domains", "/v1/alarms", "/v1/trust",
				} {
					rec := httptest.NewRecorder()
					a.control.routes().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
					if rec.Code != http.StatusOK {
						t.Errorf("GET %s: %d %s", path, rec.Code, rec.Body)
					}
				}
			}()
			select {
			case <-answered:
			case <-time.After(time.Minute):
				t.Error("somebody waits for the disk")
			}
		})
	}
}
