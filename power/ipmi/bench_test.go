package ipmi

import (
	"context"
	"testing"
	"time"

	"rackpower/power"
	"rackpower/power/powertest"
)

// benchTargets are a BMC in this process (suite 17) and a process of ipmi_sim
// without a chassis script (suite 3), whose answers cost it next to nothing.
func benchTargets(b *testing.B) map[string]power.Endpoint {
	sim := powertest.StartIPMISim(b, 1, powertest.WithoutChassis())[0].Endpoint()
	sim.Suite = 3
	return map[string]power.Endpoint{"bmcsim": startSim(b, Config{}).Endpoint(), "ipmi_sim": sim}
}

func BenchmarkState(b *testing.B) {
	for name, ep := range benchTargets(b) {
		d := mustDial(b, Config{}, ep)
		for _, ctx := range []struct {
			name string
			ctx  func() (context.Context, context.CancelFunc)
		}{
			{"", func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }},
			{" with deadline", func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), time.Minute)
			}},
		} {
			b.Run(name+ctx.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					c, cancel := ctx.ctx()
					if _, err := d.State(c); err != nil {
						b.Fatal(err)
					}
					cancel()
				}
			})
		}
	}
}

func BenchmarkNewSession(b *testing.B) {
	for name, ep := range benchTargets(b) {
		dialer := NewDialer(Config{})
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := dialer.Dial(b.Context(), ep)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := d.State(b.Context()); err != nil {
					b.Fatal(err)
				}
				if err := d.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
