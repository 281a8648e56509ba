package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"rackpower/cmd/settings"
)

// TestSimSaysWhereItIs: the line of a simulator, and what it refuses.
func TestSimSaysWhereItIs(t *testing.T) {
	for flags, says := range map[string]string{
		"--count 1 --port 0":                                                              "1 BMC on 127.0.20.1 port ",
		"--count 2 --port 0 --redfish --redfish-port 0":                                   ", Redfish at https://127.0.20.1-127.0.20.2, a free port each (inline)",
		"--count 2 --port 0 --redfish --redfish-port 0 --redfish-http":                    ", Redfish at http://127.0.20.1-127.0.20.2, a free port each (inline)",
		"--count 2 --port 0 --redfish --redfish-port 0 --redfish-profile oem,two-systems": "(oem, two-systems)\n",
		"--redfish --redfish-profile nothing":                                             "no profile is named \"nothing\": there are inline,",
		"--redfish-port 8443":                                                             "--redfish-port needs --redfish",
		"--redfish --redfish-port 70000":                                                  "port 70000 for Redfish",
		"--redfish --redfish-port 65530 --same-address":                                   "from port 65530 for Redfish",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it starts, says its line and ends
		var out, errs bytes.Buffer
		app := newApp()
		app.Writer, app.ErrWriter = &out, &errs
		exit := settings.RunContext(ctx, app, strings.Fields("rackpower sim "+flags))
		want := settings.ExitOK
		if !strings.Contains(says, " on ") && !strings.Contains(says, "(") {
			want = settings.ExitUsage
		}
		if text := out.String() + errs.String(); exit != want || !strings.Contains(text, says) {
			t.Errorf("%s: %d %q, want %q", flags, exit, text, says)
		}
	}
}
