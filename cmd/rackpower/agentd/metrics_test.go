package agentd

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestMetricsAreForThisMachineUnlessTLSIsGiven(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"", ""},
		{"--metrics 127.0.0.1:0", ""},
		{"--metrics [::1]:0", ""},
		{"--metrics :9000", "without TLS nobody who asks there is known"},
		{"--metrics 0.0.0.0:9000", "without TLS nobody who asks there is known"},
		{"--metrics localhost:9000", "without TLS nobody who asks there is known"}, // whatever that name stands for
		{"--metrics 127.0.0.1", "is not HOST:PORT"},
		{"--metrics 127.0.0.1:0 --metrics-cert c --metrics-key k", "go together"},
		{"--metrics-cert c", "of no use"},
		{"--metrics 127.0.0.1:0 --metrics-cert c --metrics-key k --metrics-client-ca a", "no such file"},
	} {
		app := &cli.App{Flags: MetricsFlags(), Action: func(c *cli.Context) error {
			l, err := listenMetrics(c)
			if l != nil {
				l.Close()
			}
			return err
		}, ExitErrHandler: func(*cli.Context, error) {}}
		err := app.RunContext(t.Context(), append([]string{"agent"}, strings.Fields(c.args)...))
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want %q", c.args, err, c.says)
		}
	}
}
