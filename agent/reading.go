package agent

import (
	"context"
	"sync"
	"time"

	"rackpower/power"
)

// readNodes reads nodes with a bounded number of workers, its starts spread over a
// time. then, if any, is called after each.
func (a *Agent) readNodes(ctx context.Context, names []string, spread time.Duration, then func(name string)) {
	slots := make(chan struct{}, a.cfg.Workers)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, name := range names {
		if spread > 0 && i > 0 && wait(ctx, spread/time.Duration(len(names))) != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			a.readNode(ctx, name)
			if then != nil {
				then(name)
			}
		})
	}
}

func (a *Agent) readNode(ctx context.Context, name string) {
	ep, err := a.endpoint(name)
	if err != nil {
		a.readings.failed(name, power.ReachUnconfigured)
		return
	}
	state, err := a.bmcs.get(ep).state(ctx, ep, false)
	switch {
	case err == nil:
		a.readings.saw(name, power.Seen(state, time.Now()))
	case !stops(ctx, err):
		a.readings.failed(name, power.ReachOf(err))
		a.logger.Debug("cannot read", "node", name, "err", err)
	}
}
