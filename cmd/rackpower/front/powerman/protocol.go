// Package powerman speaks the protocol of powermand, so that powerman, libpowerman and what is
// built on them control nodes through central.
//
// The protocol is one of lines: the daemon greets with its version and a prompt, the client
// sends a command, the daemon answers with lines that begin with a number (1xx ends an answer
// well, 2xx ends it badly, 3xx is followed by more) and a prompt again.
// Source: client_proto.h and the behaviour of powermand 2.3.27 and 2.4. It knows no
// identity: whoever connects acts as whom the front end was started as.
//
// Success is said of nodes only whose outcome was verified. Others are named, each with
// its reason, in 308 lines before the 210 or 211 that ends the answer.
package powerman

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"rackpower/cmd/rackpower/front"
	"rackpower/power"
	"rackpower/power/noderange"
)

// MaxLine bounds a line of a client, in bytes, as powermand 2.4 does.
const MaxLine = 131072

const prompt = "powerman> "

// What ends an answer. Others have a text that is not always the same.
const (
	goodbye      = "101 Goodbye"
	commandDone  = "102 Command completed successfully"
	queryDone    = "103 Query complete"
	unknownVerb  = "201 Unknown command"
	parseError   = "202 Parse error"
	tooLong      = "203 Command too long"
	commandFails = "210 Command completed with errors"
	queryFails   = "211 Query completed with errors"
	notPossible  = "213 Command cannot be handled by power control device(s)"
)

// actions are the commands that change power. cycle turns on what is off, as everywhere here;
// powermand leaves that to the device.
var actions = map[string]power.Action{
	"on": power.ActOn, "off": power.ActOff, "cycle": power.ActCycle, "reset": power.ActReset,
}

// absent are commands of powermand that there is nothing for here.
var absent = []string{"device", "temp", "beacon", "flash", "unflash"}

var help = []string{
	"301 nodes              - list the nodes",
	"301 status [<nodes>]   - read the power now",
	"301 on <nodes>         - power on, verified",
	"301 off <nodes>        - power off, verified",
	"301 cycle <nodes>      - off, verified, and on",
	"301 reset <nodes>      - reset nodes that are on",
	"301 telemetry          - toggle; there is nothing more to show",
	"301 exprange           - toggle a line for each node",
	"301 help               - display help",
	"301 quit               - logout",
}

// Config says for whom a door is and what it tells its clients.
type Config struct {
	Fleet   front.Fleet
	Version string        // which clients compare with their own, and warn
	Wait    time.Duration // how long a reading may take
	Logger  *slog.Logger
}

// client is one conversation.
type client struct {
	Config
	peer      string // for the audit log
	exprange  bool
	telemetry bool
}

// answer carries out one line. The last line that it returns ends the answer.
func (c *client) answer(ctx context.Context, line string) (lines []string, quit bool) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return []string{unknownVerb}, false
	}
	verb, operands := strings.ToLower(words[0]), words[1:]
	if len(operands) > 1 { // powermand would take the first and drop the others
		return []string{parseError}, false
	}
	action, acts := actions[verb]
	switch {
	case slices.Contains(absent, verb):
		return []string{notPossible}, false
	case acts && len(operands) == 0:
		return []string{parseError}, false
	case acts:
		return c.operate(ctx, action, operands[0]), false
	case verb == "status":
		return c.status(ctx, operands), false
	case len(operands) > 0:
		return []string{unknownVerb}, false
	}
	switch verb {
	case "nodes":
		return c.nodes(ctx), false
	case "exprange":
		c.exprange = !c.exprange
		return []string{"105 Hostrange expansion " + onOff(c.exprange)}, false
	case "telemetry":
		c.telemetry = !c.telemetry
		return []string{"104 Telemetry " + onOff(c.telemetry)}, false
	case "help":
		return append(slices.Clone(help), queryDone), false
	case "quit":
		return []string{goodbye}, true
	default:
		return []string{unknownVerb}, false
	}
}

func onOff(on bool) string {
	if on {
		return "ON"
	}
	return "OFF"
}

// hostlist reads a list of nodes as powerman writes it: names and ranges, no expression.
func hostlist(text string) (names []string, wrong string) {
	names, err := noderange.Expand(text)
	if err != nil {
		return nil, "205 Hostlist error: " + front.Line(err.Error())
	}
	noderange.Sort(names)
	return slices.Compact(names), ""
}

func (c *client) operate(ctx context.Context, action power.Action, text string) []string {
	names, wrong := hostlist(text)
	if wrong != "" {
		return []string{wrong}
	}
	results, err := c.Fleet.Operate(ctx, front.Request{Action: action, Names: names, Reason: "powerman, " + c.peer})
	if err != nil {
		return c.failed(names, err, commandFails)
	}
	var lines []string
	failures := front.Failures(results)
	for _, g := range failures {
		lines = append(lines, "308 "+g.Line())
	}
	c.Logger.Info("asked for", "action", string(action), "nodes", noderange.Fold(names), "peer", c.peer, "failures", strings.Join(lines, "; "))
	if len(failures) > 0 || len(results) != len(names) { // an answer that is short of nodes is no success
		return append(lines, commandFails)
	}
	return append(lines, commandDone)
}

// failed is the answer when nothing is known of any of the nodes.
func (c *client) failed(names []string, err error, end string) []string {
	var unknown front.Unknown
	if errors.As(err, &unknown) {
		return []string{"209 No such nodes: " + noderange.Fold(unknown.Names)}
	}
	c.Logger.Warn("not carried out", "nodes", noderange.Fold(names), "peer", c.peer, "err", err)
	text := front.Line(err.Error())
	if len(names) > 0 {
		text = noderange.Fold(names) + ": " + text
	}
	return []string{"308 " + text, end}
}

func (c *client) nodes(ctx context.Context) []string {
	names, err := c.Fleet.Names(ctx)
	if err != nil {
		return c.failed(nil, err, queryFails)
	}
	if !c.exprange {
		return []string{"306 " + noderange.Fold(names), queryDone}
	}
	var lines []string
	for _, name := range names {
		lines = append(lines, "307 "+name)
	}
	return append(lines, queryDone)
}

// status reads nodes now: what was read before may be true no more.
func (c *client) status(ctx context.Context, operands []string) []string {
	var names []string
	if len(operands) > 0 {
		var wrong string
		if names, wrong = hostlist(operands[0]); wrong != "" {
			return []string{wrong}
		}
	}
	readings, err := c.Fleet.Read(ctx, names, c.Wait)
	if err != nil {
		return c.failed(names, err, queryFails)
	}
	var lines []string
	var unread []front.Reading
	byState := map[power.State][]string{}
	for _, r := range readings {
		if r.Why != "" {
			unread = append(unread, r)
		}
		byState[r.State] = append(byState[r.State], r.Node)
		if c.exprange {
			lines = append(lines, fmt.Sprintf("303 %s: %s", r.Node, r.State))
		}
	}
	if !c.exprange {
		for _, state := range []power.State{power.On, power.Off, power.Unknown} {
			lines = append(lines, fmt.Sprintf("302 %-8s %s", string(state)+":", noderange.Fold(byState[state])))
		}
	}
	for _, g := range front.Groups(unread, func(r front.Reading) (string, string) { return r.Node, r.Why }) {
		lines = append(lines, "308 "+g.Line())
	}
	if len(unread) > 0 {
		return append(lines, queryFails)
	}
	return append(lines, queryDone)
}
