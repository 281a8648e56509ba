package bmcpool

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/power"
)

// driver counts the sessions that are open.
type driver struct {
	power.Driver
	open *int
}

func (d driver) State(context.Context) (power.State, error) { return power.On, nil }

func (d driver) Close() error { *d.open--; return nil }

// keeper is a driver whose sessions are dear to open.
type keeper struct{ driver }

func (keeper) KeepFor() (idle, age time.Duration) { return time.Minute, time.Hour }

// TestARoundLeavesNoSessionOfItsOwn: what somebody else opened stays, and what is dear to open.
func TestARoundLeavesNoSessionOfItsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		before, keeps bool
		want          int
	}{
		"opened for the round": {want: 0},
		"opened before":        {before: true, want: 1},
		"dear to open":         {keeps: true, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				open := 0
				p := New(Config{
					Dial: func(context.Context, power.Endpoint) (power.Driver, error) {
						open++
						if c.keeps {
							return keeper{driver{open: &open}}, nil
						}
						return driver{open: &open}, nil
					},
					Beside:   func(string) chan struct{} { return nil },
					Exchange: time.Second, KeepSession: time.Minute, SessionAge: time.Hour, Logger: slog.New(slog.DiscardHandler),
				})
				b := p.Get(power.Endpoint{Scheme: power.SchemeIPMI, Host: "b"})
				read := func() {
					time.Sleep(time.Second)
					if seen, err := b.Read(t.Context(), power.Endpoint{Scheme: power.SchemeIPMI, Host: "b"}, false); err != nil || seen.State != power.On {
						t.Fatal(seen, err)
					}
				}
				if c.before {
					read()
				}
				began := time.Now()
				read()
				b.Rest(began)
				if open != c.want {
					t.Errorf("%d sessions are open", open)
				}
			})
		})
	}
}
