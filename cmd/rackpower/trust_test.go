package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/settings"
)

func TestTrust(t *testing.T) {
	other := api.Database{CentralID: "c2", Incarnation: 4}
	untrusted := &api.UntrustedCentral{
		Database: other, Message: "central c2 answers", Known: true, Adds: []string{"n9"},
		Removes: []string{"n1", "n2"}, Changes: []string{"n3"},
	}
	unknown := &api.UntrustedCentral{Database: other, Message: "central c2 answers"}
	mine := api.Database{CentralID: "c1"}
	for _, c := range []struct {
		name   string
		state  api.Trust
		args   string
		answer string // typed; empty: there is no terminal
		exit   int
		out    string
		errs   string
		sent   *api.ConfirmTrust
	}{
		{name: "nothing waits", state: api.Trust{Trusted: mine}, out: "nothing waits", args: "--yes"},
		{
			name: "another central", state: api.Trust{Trusted: mine, Untrusted: untrusted}, exit: settings.ExitUsage, out: "n[1-2]",
			errs: "1 node will come, 2 go, 1 get another BMC or status; nothing was done: confirm with --yes",
		},
		{
			name: "another central, yes", state: api.Trust{Trusted: mine, Untrusted: untrusted}, args: "--yes --reason moved", out: "done",
			sent: &api.ConfirmTrust{Database: other, Removes: []string{"n1", "n2"}, AskedBy: "tester", Reason: "moved"},
		},
		{
			name: "typed yes", state: api.Trust{Trusted: mine, Untrusted: untrusted}, answer: "y", out: "done", errs: "Continue? [y/N]",
			sent: &api.ConfirmTrust{Database: other, Removes: []string{"n1", "n2"}, AskedBy: "tester"},
		},
		{
			name: "typed no", state: api.Trust{Trusted: mine, Untrusted: untrusted}, answer: "n", exit: settings.ExitUsage, out: "c1",
			errs: "not confirmed",
		},
		{
			name: "not known yet", state: api.Trust{Trusted: mine, Untrusted: unknown}, args: "--yes", exit: settings.ExitFailed,
			errs: "ask again in a moment",
		},
		{
			name: "kept nodes", state: api.Trust{Trusted: mine, Kept: []string{"n1", "n2"}}, args: "--yes", out: "took away",
			sent: &api.ConfirmTrust{Removes: []string{"n1", "n2"}, AskedBy: "tester"},
		},
		{
			name: "JSON", state: api.Trust{Trusted: mine, Kept: []string{"n1"}}, args: "--yes -o json", out: `"central_id": "c1"`,
			sent: &api.ConfirmTrust{Removes: []string{"n1"}, AskedBy: "tester"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			var sent []api.ConfirmTrust
			mux := http.NewServeMux()
			mux.HandleFunc("GET /v1/trust", func(w http.ResponseWriter, _ *http.Request) { reply(w, c.state) })
			mux.HandleFunc("POST /v1/trust", func(w http.ResponseWriter, r *http.Request) {
				var in api.ConfirmTrust
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
					t.Error(err)
				}
				sent = append(sent, in)
				reply(w, c.state)
			})
			f.url = serveUnix(t, mux)
			args := []string{}
			if c.answer != "" {
				old := asks
				asks = func(*cli.Context) bool { return true }
				t.Cleanup(func() { asks = old })
				args = append(args, c.answer)
			}
			expect(t, c.name, f.run("local trust "+c.args, args...), c.exit, c.out, c.errs)
			switch {
			case c.sent == nil && len(sent) > 0:
				t.Errorf("sent %+v", sent)
			case c.sent != nil && (len(sent) != 1 || sent[0].Database != c.sent.Database || !slices.Equal(sent[0].Removes, c.sent.Removes) ||
				sent[0].AskedBy != c.sent.AskedBy || sent[0].Reason != c.sent.Reason):
				t.Errorf("sent %+v, want %+v", sent, *c.sent)
			}
		})
	}
}
