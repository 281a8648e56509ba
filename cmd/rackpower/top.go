package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/internal/backoff"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Category: "look", Usage: "show racks, what wants attention and operations, live", Action: atCentral.with(top),
		Description: "It fills the terminal until q, and shows what is most pressing first: racks in trouble, then what\n" +
			"rackpower would have a person do, and the operations under way. What does not fit is counted." +
			"\n\nKEYS\n   q, Ctrl-C  end\n   space      ask again now" +
			examples("rackpower top", "rackpower top --interval 10s --profile lab") + exitHelp,
		Flags: atCentral.flags(&cli.DurationFlag{Name: "interval", Value: 2 * time.Second, Usage: "ask central every `DURATION`, and when something happens"}),
	}
}

// overview is what top shows, as central said last.
type overview struct {
	racks     []api.Rack
	nodes     []api.Node
	attention []api.Attention
	ops       []api.Op
	at        time.Time // when central said so
	wrong     string    // why it says nothing now
}

// topRest is how long central is left alone after it has said all.
const topRest = 250 * time.Millisecond

// streamAgain is how long a stream of events that has ended is not asked for again.
const streamAgain = 2 * time.Second

// topOps bounds the operations that are asked for; more are not legible.
const topOps = 1000

// look asks central for all of it.
func (s *session) look(ctx context.Context) (o overview, err error) {
	o.at = s.Now()
	if o.racks, err = s.client.Racks(ctx); err != nil {
		return o, err
	}
	if o.nodes, err = s.client.Nodes(ctx, "all"); err != nil {
		return o, err
	}
	if o.attention, err = s.client.Attention(ctx); err != nil {
		return o, err
	}
	found, err := s.client.QueryOps(ctx, api.QueryOps{Outstanding: true, Limit: topOps})
	o.ops = found.Ops
	return o, err
}

func top(s *session) error {
	if !s.People() || s.Quiet {
		return settings.Usage("top draws on a terminal: rackpower status -o %s and rackpower watch are for programs", s.Format)
	}
	interval := s.c.Duration("interval")
	if interval < 100*time.Millisecond {
		return settings.Usage("--interval: %s is less than 100ms", interval)
	}
	now, err := s.look(s.ctx)
	if err != nil {
		return err
	}
	screen, err := term.NewScreen(s.c.App.Reader, s.Out)
	if err != nil {
		return settings.Usage("%v: rackpower status --summary and rackpower watch need none", err)
	}
	s.client.SetPatience(patience) // warnings would be written over the picture
	return errors.Join(s.topOn(screen, now, interval), screen.Close())
}

// topOn draws until it is ended.
func (s *session) topOn(screen *term.Screen, now overview, interval time.Duration) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	keys, resized := make(chan byte), make(chan os.Signal, 1)
	go readKeys(ctx, s.c.App.Reader, keys)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	seen, again := make(chan overview), make(chan struct{}, 1)
	go func() {
		for took := time.Duration(0); ; {
			rest := max(topRest, 5*took) // a central that is slow is asked less often
			if backoff.Sleep(ctx, rest) != nil {
				return
			}
			select {
			case <-time.After(interval - rest):
			case <-again:
			case <-ctx.Done():
				return
			}
			asked := time.Now()
			next, err := s.look(ctx)
			took = time.Since(asked)
			if err != nil {
				next = overview{wrong: s.explain(err).Error()}
			}
			select {
			case seen <- next:
			case <-ctx.Done():
				return
			}
		}
	}()
	go s.onEvents(ctx, func() {
		select {
		case again <- struct{}{}:
		default:
		}
	})
	clock := time.NewTicker(time.Second) // ages grow
	defer clock.Stop()
	for {
		columns, lines := term.Size(s.Out)
		if err := screen.Draw(s.picture(now, columns, lines)); err != nil {
			return err
		}
		select {
		case <-s.ctx.Done():
			return nil
		case key, ok := <-keys:
			switch {
			case !ok || key == 'q' || key == 'Q' || key == 3 || key == 4:
				return nil
			case key == ' ' || key == 12:
				select {
				case again <- struct{}{}:
				default:
				}
			}
		case next := <-seen:
			if next.wrong != "" {
				now.wrong = next.wrong
			} else {
				now = next
			}
		case <-resized:
		case <-clock.C:
		}
	}
}

// onEvents calls f when something has happened. Without a stream of events there is what is
// asked for every interval.
func (s *session) onEvents(ctx context.Context, f func()) {
	for {
		_ = s.client.Watch(ctx, api.Watch{}, func(api.Event) error {
			f()
			return nil
		})
		f() // whether central is there is news by itself
		if backoff.Sleep(ctx, streamAgain) != nil {
			return
		}
	}
}

// readKeys hands on what is typed. A read cannot be called back: it ends with the process.
func readKeys(ctx context.Context, in io.Reader, keys chan<- byte) {
	defer close(keys)
	buf := make([]byte, 64)
	for {
		n, err := in.Read(buf)
		for _, key := range buf[:n] {
			if key == 27 {
				break // an arrow or the like
			}
			select {
			case keys <- key:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}
