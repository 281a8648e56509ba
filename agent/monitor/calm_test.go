package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

// restingHost is an agent at rest: all nodes are wanted on, and nothing is under way.
type restingHost struct {
	mu       sync.Mutex
	readings map[string]power.Reading
	passes   []time.Time
}

func (h *restingHost) Nodes(time.Time) []Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	nodes := make([]Node, 0, len(h.readings))
	for name := range h.readings {
		source := func(string) (string, bool) { return "status", false }
		nodes = append(nodes, Node{Name: name, Desired: power.Desired{Want: power.WantOn}, From: "status", Source: source})
	}
	return nodes
}

func (h *restingHost) Facts(string, power.State) Facts          { return Facts{} }
func (h *restingHost) LeftAlone(string) (string, string)        { return "", "" }
func (h *restingHost) Holds(time.Time) string                   { return "" }
func (h *restingHost) Show(string, api.NodeMonitor)             {}
func (h *restingHost) Save(map[string]Memory, *api.Brake) error { return nil }
func (h *restingHost) ReadAll(context.Context, time.Duration)   {}
func (h *restingHost) ReadSoon([]string)                        {}
func (h *restingHost) RetryBMC(string)                          {}
func (h *restingHost) Submit(power.Op) (api.OpReport, error)    { return api.OpReport{}, nil }
func (h *restingHost) DropUnwanted([]Node)                      {}

func (h *restingHost) Reading(node string) power.Reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.readings[node]
}

func (h *restingHost) Passed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.passes = append(h.passes, time.Now())
}

// taken returns when the passes since the last call were.
func (h *restingHost) taken() []time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	passes := h.passes
	h.passes = nil
	return passes
}

func (h *restingHost) saw(m *Monitor, node string, reading power.Reading) {
	h.mu.Lock()
	h.readings[node] = reading
	h.mu.Unlock()
	m.Read(node)
}

// TestReadingsThatShowNothingNewShareAPass reads 100 nodes over 20 s, thrice: once when they are
// all as they were, once with one that went off among them, and once with one that gave no answer.
func TestReadingsThatShowNothingNewShareAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &restingHost{readings: map[string]power.Reading{}}
		for i := range 100 {
			h.readings[fmt.Sprintf("n%02d", i)] = power.Reading{State: power.Unknown, Reach: power.ReachNever}
		}
		m := New(h, Config{Name: "r1", Timing: Timing{}.WithDefaults(), Logger: slog.New(slog.DiscardHandler)})
		m.Configure(api.RackSettings{})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); m.keep(ctx) }()
		defer func() { stop(); <-done }()
		round := func(of func(i int) power.Reading) (passes int, compared time.Duration) {
			synctest.Wait()
			h.taken()
			var read time.Time
			for i := range 100 {
				time.Sleep(200 * time.Millisecond)
				if i == 50 {
					read = time.Now()
				}
				h.saw(m, fmt.Sprintf("n%02d", i), of(i))
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			all := h.taken()
			for _, at := range all {
				if !at.Before(read) {
					return len(all), at.Sub(read)
				}
			}
			return len(all), time.Hour
		}
		on := func(int) power.Reading { return power.Seen(power.On, time.Now()) }
		round(on) // the first one is all news
		if passes, _ := round(on); passes < 3 || passes > 8 {
			t.Errorf("%d passes for a round at rest", passes)
		}
		for what, other := range map[string]func() power.Reading{
			"off":    func() power.Reading { return power.Seen(power.Off, time.Now()) },
			"silent": func() power.Reading { return h.Reading("n50").Failed(power.ReachUnreachable, time.Now()) },
		} {
			_, compared := round(func(i int) power.Reading {
				if i == 50 {
					return other()
				}
				return on(i)
			})
			if compared > 2*m.t.Moment {
				t.Errorf("%s: compared after %v", what, compared)
			}
			round(on)
			round(on)
		}
	})
}
