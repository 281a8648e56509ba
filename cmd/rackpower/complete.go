package main

import (
	"context"
	"flag"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/noderange"
)

// completeWithin bounds what a completion asks: a person has pressed a key. completeAtMost is
// how many names are of use to somebody who is to choose one.
const (
	completeWithin = 300 * time.Millisecond
	completeAtMost = 500
)

// completeValues asks central, or the rack's agent, for what a value may be.
func completeValues(app *cli.App) settings.Values {
	return func(a settings.Asked) []settings.Candidate {
		switch a.Kind {
		case "STATUS":
			return candidates(a.Word, "", textsOf(power.Statuses()))
		case "NODES", "NODE", "RACK", "AGENT", "ID", "NAME":
		default:
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
		defer cancel()
		client := completeClient(app, a)
		if client == nil {
			return nil
		}
		defer client.Close()
		k := completion{ctx, client, a.Word}
		first, _, _ := strings.Cut(a.Command, " ")
		switch a.Kind {
		case "NODES":
			return k.selection()
		case "NODE":
			return candidates(a.Word, "", k.nodes(a.Word))
		case "RACK", "AGENT":
			return candidates(a.Word, "", k.agents())
		case "ID":
			return k.ids(first)
		default:
			return candidates(a.Word, "", k.names(first))
		}
	}
}

// completeClient is the client of whom the command would ask; nil: there is none.
func completeClient(app *cli.App, a settings.Asked) *api.Client {
	value := func(name string) string {
		if text := a.Given[name]; text != "" {
			return text
		}
		return os.Getenv(settings.Env(name))
	}
	if strings.HasPrefix(a.Command, "local ") {
		socket := value("socket")
		if socket == "" {
			socket = atAgent.initial
		}
		client, err := api.NewClient(settings.SocketURL(socket))
		if err != nil {
			return nil
		}
		return client
	}
	set := flag.NewFlagSet("complete", flag.ContinueOnError)
	set.String("central", atCentral.initial, "")
	set.String(profileFlagName, "", "")
	for _, name := range []string{"central", profileFlagName} {
		if text := value(name); text != "" {
			_ = set.Set(name, text)
		}
	}
	c := cli.NewContext(app, set, nil)
	client, err := connect(c, printer.Printer{Out: io.Discard, Err: io.Discard}, c.String("central"))
	if err != nil {
		return nil
	}
	return client
}

// completion is one word of a command line, and who knows what it may become. Errors are no
// candidates.
type completion struct {
	ctx    context.Context
	client *api.Client
	word   string
}

// selection completes the last part of an expression for nodes.
func (k completion) selection() []settings.Candidate {
	at := strings.LastIndexAny(k.word, ",&!") + 1
	before, part := k.word[:at], k.word[at:]
	if strings.Contains(part, "[") {
		return nil
	}
	if !strings.HasPrefix(part, "@") {
		return candidates(part, before, append(k.nodes(part), "all"))
	}
	var all []string
	for _, s := range power.Statuses() {
		all = append(all, "@status:"+string(s))
	}
	for _, s := range []power.State{power.On, power.Off, power.Unknown} {
		all = append(all, "@state:"+string(s))
	}
	for _, rack := range k.agents() {
		all = append(all, "@"+rack)
	}
	return candidates(part, before, all)
}

// nodes are the names of nodes with a beginning.
func (k completion) nodes(beginning string) []string {
	if _, err := noderange.Expand(beginning + "x"); err != nil {
		return nil
	}
	found, _ := k.client.Nodes(k.ctx, beginning+"*")
	return namesOf(found)
}

func (k completion) agents() []string {
	agents, _ := k.client.Agents(k.ctx)
	return each(agents, func(a api.Agent) string { return a.Name })
}

// ids completes the id of an operation, newest first, or of a plan that awaits an approval.
func (k completion) ids(command string) []settings.Candidate {
	var found []settings.Candidate
	add := func(id, about string) {
		if strings.HasPrefix(id, k.word) && len(found) < completeAtMost {
			found = append(found, settings.Candidate{Text: id, About: about})
		}
	}
	switch command {
	case "op", "local":
		ops, _ := k.client.QueryOps(k.ctx, api.QueryOps{Limit: completeAtMost})
		for _, op := range ops.Ops {
			add(op.ID, string(op.Action)+" "+op.Node)
		}
	case "approve", "deny", "plan", "apply":
		plans, _ := k.client.Approvals(k.ctx)
		for _, p := range plans {
			add(p.ID, "asked by "+p.AskedBy)
		}
	}
	return found
}

// names are those of what a group of commands is about.
func (k completion) names(group string) []string {
	switch group {
	case "user":
		users, _ := k.client.Users(k.ctx)
		return each(users, func(u api.User) string { return u.Name })
	case "domain":
		domains, _ := k.client.Domains(k.ctx)
		return each(domains, func(d api.Domain) string { return d.Name })
	case "schedule":
		schedules, _ := k.client.Schedules(k.ctx)
		return each(schedules, func(s api.Schedule) string { return s.Name })
	case "credentials":
		all, _ := k.client.Credentials(k.ctx)
		return each(all, func(c api.Credentials) string { return c.Name })
	}
	return nil
}

// candidates are the texts that begin with a word, behind what is before it.
func candidates(word, before string, all []string) []settings.Candidate {
	var found []settings.Candidate
	for _, text := range all {
		if strings.HasPrefix(text, word) && len(found) < completeAtMost {
			found = append(found, settings.Candidate{Text: before + text})
		}
	}
	return found
}

func each[T any](list []T, name func(T) string) []string {
	names := make([]string, len(list))
	for i, one := range list {
		names[i] = name(one)
	}
	return names
}

func textsOf[T ~string](list []T) []string { return each(list, func(t T) string { return string(t) }) }
