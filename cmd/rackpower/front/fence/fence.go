// Package fence is a fence agent, as Pacemaker and fence-agents know them: a program that is
// told by lines on stdin, or by options, what to do with one node, and answers by its exit
// status. Source: the fence agent API of
// ClusterLabs/fence-agents.
//
// A cluster takes 0 of off and reboot for the word that the node writes no more. It is said
// only when the node was read off after the request.
package fence

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"rackpower/cmd/rackpower/front"
	"rackpower/power"
)

// Name is what the agent is called as a program.
const Name = "fence_rackpower"

// The exit statuses. Whatever is not known is Failed.
const (
	Done   = 0 // of status: the node is on
	Failed = 1
	IsOff  = 2 // of status only
)

// readWait bounds a reading.
const readWait = 15 * time.Second

// Metadata is what the action metadata prints.
//
//go:embed metadata.xml
var Metadata string

// Params says what to do.
type Params struct {
	Action string        // in any case; "" is reboot, as for every fence agent
	Plug   string        // the node
	Expire time.Duration // after which an operation is given up, and not carried out later
}

// Do carries out an action and prints what it found. Any error is Failed.
func Do(ctx context.Context, fleet front.Fleet, in Params, out io.Writer) (status int, err error) {
	action := strings.ToLower(cmp.Or(in.Action, "reboot"))
	switch action {
	case "metadata":
		_, err = io.WriteString(out, Metadata)
		return failedIf(err)
	case "validate-all": // the options were read, and that is all that can be wrong with them
		return Done, nil
	case "list":
		names, err := fleet.Names(ctx)
		for _, name := range names {
			fmt.Fprintf(out, "%s,\n", name)
		}
		return failedIf(err)
	case "list-status":
		readings, err := fleet.Read(ctx, nil, readWait)
		for _, r := range readings {
			fmt.Fprintf(out, "%s,,%s\n", r.Node, strings.ToUpper(string(r.State)))
		}
		return failedIf(err)
	case "monitor":
		return monitor(ctx, fleet, in.Plug)
	case "status", "on", "off", "reboot":
	default:
		return Failed, fmt.Errorf("unknown action %q", in.Action)
	}
	switch {
	case in.Plug == "":
		return Failed, fmt.Errorf("%s needs a node: --plug, or plug= on stdin", action)
	case action == "status":
		return state(ctx, fleet, in.Plug, out)
	case action == "on":
		return failedIf(operate(ctx, fleet, power.ActOn, in, out))
	}
	// An off of its own also for a reboot: a cycle could join one that cut the power before the
	// cluster asked, and the node would have been on in between.
	if err := operate(ctx, fleet, power.ActOff, in, out); err != nil || action == "off" {
		return failedIf(err)
	}
	if err := operate(ctx, fleet, power.ActOn, in, out); err != nil {
		fmt.Fprintf(out, "%s is off, which is all that the cluster needs, and was not turned on: %s\n", in.Plug, front.Line(err.Error()))
	}
	return Done, nil
}

func failedIf(err error) (int, error) {
	if err != nil {
		return Failed, err
	}
	return Done, nil
}

// monitor finds central, and the node where one is named.
func monitor(ctx context.Context, fleet front.Fleet, plug string) (int, error) {
	names, err := fleet.Names(ctx)
	switch {
	case err != nil:
		return Failed, err
	case plug != "" && !slices.Contains(names, plug):
		return Failed, front.Unknown{Names: []string{plug}}
	case len(names) == 0:
		return Failed, fmt.Errorf("central has no nodes for who asks")
	default:
		return Done, nil
	}
}

func state(ctx context.Context, fleet front.Fleet, plug string, out io.Writer) (int, error) {
	readings, err := fleet.Read(ctx, []string{plug}, readWait)
	if err != nil {
		return Failed, err
	}
	if len(readings) != 1 || readings[0].Node != plug {
		return Failed, fmt.Errorf("%s was not read", plug)
	}
	r := readings[0]
	switch {
	case r.Why == "" && r.State == power.On:
		fmt.Fprintln(out, "Status: ON")
		return Done, nil
	case r.Why == "" && r.State == power.Off:
		fmt.Fprintln(out, "Status: OFF")
		return IsOff, nil
	default:
		return Failed, fmt.Errorf("cannot read the power of %s: %s", plug, front.Line(r.Why))
	}
}

// operate has a node turned on or off, and returns nil when that was verified.
func operate(ctx context.Context, fleet front.Fleet, action power.Action, in Params, out io.Writer) error {
	plug := in.Plug
	results, err := fleet.Operate(ctx, front.Request{Action: action, Names: []string{plug}, Reason: Name, Deadline: in.Expire})
	switch {
	case err != nil:
		return err
	case len(results) != 1 || results[0].Node != plug:
		return fmt.Errorf("%s of %s has no result", action, plug)
	case !results[0].OK:
		return fmt.Errorf("%s of %s: %s", action, plug, front.Line(results[0].Text))
	}
	fmt.Fprintf(out, "Success: %s\n", front.Line(plug+" "+results[0].Text))
	return nil
}

// alsoCalled are older names of options, in the order in which they count where the newer one is
// not given.
var alsoCalled = map[string][]string{"action": {"option"}, "plug": {"port", "nodename"}}

// maxStdin bounds what is read from stdin, in bytes.
const maxStdin = 1 << 20

// ReadStdin reads options, a NAME=VALUE a line, and returns them as flags of a command that knows
// these names, with - for _. Of an option that is given twice the last one counts; others
// are ignored, as the cluster gives every agent what one of them may want.
func ReadStdin(r io.Reader, known []string) ([]string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxStdin+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the options on stdin: %w", err)
	case len(text) > maxStdin:
		return nil, fmt.Errorf("the options on stdin are longer than %d bytes", maxStdin)
	}
	given := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, value, is := strings.Cut(line, "=")
		if is && !strings.HasPrefix(line, "#") {
			given[strings.ReplaceAll(name, "_", "-")] = strings.TrimSpace(value)
		}
	}
	for name, older := range alsoCalled {
		for _, also := range older {
			given[name] = cmp.Or(given[name], given[also])
		}
	}
	var flags []string
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if slices.Contains(known, name) && given[name] != "" {
			flags = append(flags, "--"+name+"="+given[name])
		}
	}
	return flags, nil
}
