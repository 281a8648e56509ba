package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing/synctest"
	"time"

	"rackpower/agent/simtest"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/journal/faultfs"
	"rackpower/power/powertest"
)

// simHarness is the agent with its disks and its BMCs, over all the processes of a history:
// how it starts, what it dies of and what is left then. It runs in a bubble of
// simulated time.
type simHarness struct {
	see   simtest.Observer
	fake  *powertest.Fake
	disks [2]*faultfs.FS // of the journal of operations, of the assignment
	proc  *simProcess

	// configure says what a process is started with, born is called when New has
	// returned and before Run, trouble decides about calls on a disk that no death falls
	// on. segment says that the call is on a segment of the journal of operations.
	configure func(*simProcess) Config
	born      func(*simProcess)
	trouble   func(segment bool, c faultfs.Call) faultfs.Fault
	excused   func() bool // a disk failed: Close may say so
	started   func()      // called when a process is under way; nil: nothing is

	whole        bool                  // no death tears a write: the machine stays up
	startCrashes []*simtest.CrashPoint // crashes within the starts to come
	races        sync.WaitGroup
	fatal        []faultfs.Call // the calls within which it died
}

// awayCentral cannot be reached: the worlds of the models call what a session would.
type awayCentral struct{ Central }

func (awayCentral) Target() string { return "a model" }

func (awayCentral) Hello(context.Context, string, api.Hello) (api.Welcome, error) {
	return api.Welcome{}, errors.New("the model speaks for central")
}

// newSimFake makes the BMCs of a history.
func newSimFake() *powertest.Fake {
	fake := powertest.NewFake()
	fake.Preset(func(b *powertest.BMC) { b.SetTimeout(2 * time.Second) })
	return fake
}

// create makes the disks of a history.
func (h *simHarness) create(see simtest.Observer) {
	h.see, h.disks = see, [2]*faultfs.FS{faultfs.New(), faultfs.New()}
}

// simProcess is one process of the agent.
type simProcess struct {
	*simtest.Process
	a      *Agent
	cancel context.CancelFunc
	ended  chan struct{} // closed when Run has returned
	runErr error
}

// start starts the agent, again and again while it dies of it.
func (h *simHarness) start() {
	for !h.see.Broken() {
		n := 0
		if h.proc != nil {
			n = h.proc.N + 1
		}
		proc := &simProcess{
			Process: simtest.NewProcess(n, h.see, h.fake, h.trouble, func(c faultfs.Call) { h.fatal = append(h.fatal, c) }),
			ended:   make(chan struct{}),
		}
		if len(h.startCrashes) > 0 {
			proc.CrashAt(h.startCrashes[0])
			h.startCrashes = h.startCrashes[1:]
		}
		h.proc = proc
		for i, disk := range h.disks {
			disk.OnCall(func(c faultfs.Call) faultfs.Fault { return proc.OnCall(i, c) })
		}
		h.see.Begin(proc.N)
		cfg := h.configure(proc)
		cfg.Name, cfg.Dir, cfg.Dial, cfg.Logger = "r1", "/agent", proc.Dial, slog.New(slog.DiscardHandler)
		cfg.ring = testRing
		cfg.tuneLog = func(c *journal.Config) {
			c.FS, c.SegmentSize, c.KeepSegments = h.disks[0], 16<<10, 1
			c.Boot = "up"
			if !h.whole {
				c.Boot = fmt.Sprint(proc.N) // a death may tear a write, as a loss of power does
			}
			if filepath.Base(c.Dir) == "assigned" {
				c.FS = h.disks[1]
			}
		}
		a, err := New(cfg)
		proc.a = a
		switch {
		case proc.Dead():
			close(proc.ended)
			if a != nil {
				_ = a.Close()
			}
			h.bury()
			continue
		case err != nil:
			close(proc.ended)
			h.see.Fail("start", "New: %v", err)
			return
		}
		h.born(proc)
		var ctx context.Context
		ctx, proc.cancel = context.WithCancel(context.Background())
		go func() {
			proc.runErr = a.Run(ctx, nil)
			close(proc.ended)
		}()
		synctest.Wait()
		if h.started != nil {
			h.started()
		}
		return
	}
}

// bury waits for a dead process to be gone, leaves the disks as its death left
// them, and lets the time pass until the next start.
func (h *simHarness) bury() {
	how := h.proc.Fired()
	rng := rand.New(rand.NewPCG(how.Loss, 1))
	for i, disk := range h.disks {
		if how.Loss == 0 {
			h.disks[i] = disk.Restart()
		} else {
			h.disks[i] = disk.PowerLoss(512, rng.IntN)
		}
	}
	h.see.Died()
	time.Sleep(how.Down)
}

// sleep lets time pass, and starts the agent anew when it dies meanwhile.
func (h *simHarness) sleep(d time.Duration) {
	if d == 0 && !h.proc.Dead() {
		return // what came before may still be at work: the next step races with it
	}
	until := time.Now().Add(d)
	for !h.see.Broken() {
		timer := time.NewTimer(max(0, time.Until(until)))
		select {
		case <-timer.C:
			synctest.Wait()
			if !h.proc.Dead() {
				return
			}
		case <-h.proc.Death():
		case <-h.proc.ended:
		}
		timer.Stop()
		h.again()
	}
}

// again starts the next process after one that died, or that stopped by itself
// because its journal could take no more.
func (h *simHarness) again() {
	proc := h.proc
	if !proc.Dead() {
		if err := proc.a.log.Err(); err == nil {
			h.see.Fail("run", "Run returned by itself: %v", proc.runErr)
			return
		}
		h.see.Tracef("stopped by itself: %v", proc.runErr)
	}
	h.reap()
	h.bury()
	h.start()
}

func (h *simHarness) reap() {
	proc := h.proc
	proc.Die()
	proc.cancel()
	<-proc.ended
	_ = proc.a.Close()
	h.races.Wait()
}

// stop ends the agent in an orderly way.
func (h *simHarness) stop() {
	proc := h.proc
	if proc == nil || proc.a == nil || proc.cancel == nil {
		return
	}
	proc.cancel()
	<-proc.ended
	h.races.Wait()
	err := proc.a.Close()
	if !proc.Dead() && err != nil && !h.excused() {
		h.see.Fail("stop", "Close: %v", err)
	}
	proc.Die()
	for i, disk := range h.disks {
		h.disks[i] = disk.Restart()
	}
	h.see.Died()
}
