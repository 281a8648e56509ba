package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central/api"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
)

func auditCommand() *cli.Command {
	list := &cli.Command{
		Name: "list", Usage: "show the newest entries of the audit log", ArgsUsage: "[NODES...]", Action: atCentral.with(showAudit),
		Description: "Oldest first. --since and --until go by when central wrote an entry down." + nodesHelp +
			examples("rackpower audit r1n01", "rackpower audit list --limit 20", "rackpower audit --who bob --since 2h -o wide") + exitHelp,
		Flags: atCentral.flags(
			&cli.IntFlag{Name: "limit", Value: 1000, Usage: "show at most the newest `N` entries"},
			&cli.StringFlag{Name: "who", Usage: "only what `NAME` did, or another in that name"},
			&cli.StringFlag{Name: "what", Usage: "only entries of the `KIND`, such as asked, ended, hold, drift"},
			sinceFlag("only entries since `TIME`"),
			&settings.TimeFlag{StringFlag: cli.StringFlag{Name: "until", Usage: "only entries before `TIME`, likewise"}},
		),
	}
	return &cli.Command{
		Name: "audit", Category: "look", Usage: "show the audit log: who did what to which node, when and why",
		Description: "Without a subcommand it shows the newest entries, of NODES or of all: see rackpower\naudit list --help." +
			examples("rackpower audit r1n01", "rackpower audit --limit 20", "rackpower audit verify") + exitHelp,
		Action:      list.Action,
		Subcommands: []*cli.Command{list, auditVerifyCommand(), auditExportCommand()},
	}
}

func showAudit(s *session) (err error) {
	q := api.AuditQuery{Who: s.c.String("who"), What: s.c.String("what"), Limit: s.c.Int("limit")}
	if q.Nodes, err = s.selection(s.c.Args().Slice()); err != nil {
		return err
	}
	if q.Limit < 1 {
		return settings.Usage("--limit: %d is not at least 1", q.Limit)
	}
	for flag, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if *at, err = s.when(flag); err != nil {
			return err
		}
	}
	entries, err := s.client.FindAudit(s.ctx, q)
	if err != nil {
		return err
	}
	return printer.Show(s.Printer, s.auditListing(entries))
}

func auditVerifyCommand() *cli.Command {
	headFlag := &cli.StringFlag{Name: "head", Usage: "also look for the entry with `HASH`, noted from an earlier check"}
	checkFile := &cli.StringFlag{Name: "file", Usage: "check what rackpower audit export wrote to `FILE`, - for stdin"}
	run := atCentral.with(verifyAudit)
	return &cli.Command{
		Name: "verify", Usage: "check that the audit log is as it was written", Flags: atCentral.flags(headFlag, checkFile),
		Description: "Each entry has the SHA-256 of the one before it and of what it says: one that\n" +
			"was changed, added or removed does not fit. Who can write to the database can\n" +
			"compute all hashes anew, or cut off the end. Therefore note the head elsewhere,\n" +
			"and give it with --head later. What was pruned or is of before there were hashes\n" +
			"is not checked." +
			examples("rackpower audit verify", "rackpower audit verify --head HASH", "rackpower audit verify --file audit.jsonl") + exitHelp,
		Action: func(c *cli.Context) error {
			if !c.IsSet("file") {
				return run(c)
			}
			p, err := newPrinter(c)
			if err != nil {
				return err
			}
			return verifyFile(p, c.String("file"), c.String("head"))
		},
	}
}

func verifyAudit(s *session) error {
	check, err := s.client.VerifyAudit(s.ctx, s.c.String("head"))
	if err != nil {
		return err
	}
	return showCheck(s.Printer, check)
}

func showCheck(p printer.Printer, check api.AuditCheck) error {
	if !check.OK() {
		return settings.Exit(settings.ExitFailed, "audit log: %s", check)
	}
	if !p.People() {
		return printer.Show(p, printer.Listing[api.AuditCheck]{
			Rows: []api.AuditCheck{check}, Name: func(c api.AuditCheck) string { return c.Head },
		})
	}
	p.Say("%s", check)
	return nil
}

// verifyFile checks an export without central. Its first entry says which hash is before it.
func verifyFile(p printer.Printer, path, head string) error {
	var in io.Reader = os.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return settings.Usage("--file: %v", err)
		}
		defer f.Close()
		in = f
	}
	check := api.AuditCheck{Wanted: head}
	lines := json.NewDecoder(bufio.NewReader(in))
	for n := 1; ; n++ {
		var e api.AuditEntry
		switch err := lines.Decode(&e); {
		case errors.Is(err, io.EOF):
			return showCheck(p, check)
		case err != nil:
			return settings.Exit(settings.ExitFailed, "%s: entry %d of the file: %v", path, n, err)
		}
		before := e.Before
		if check.Entries > 0 {
			before = check.Head
		} else if e.Hash == "" {
			check.Unhashed++
			continue
		}
		if !check.Add(e, before) {
			return showCheck(p, check)
		}
	}
}

func auditExportCommand() *cli.Command {
	return &cli.Command{
		Name: "export", Usage: "write the audit log with its hashes, a line of JSON for each entry",
		Description: "From the oldest entry to the newest one. rackpower audit verify --file checks the\n" +
			"lines without central. What is beyond the scope of who exports is left out: such\n" +
			"an export has gaps and cannot be checked. Each hash is the SHA-256 of the fields\n" +
			"before, id, at, happened_at, who, what, node, op, why, outcome, detail, via,\n" +
			"address, each as its length in bytes, a colon, its text and a comma." +
			examples("rackpower audit export > audit.jsonl", "rackpower audit export --after 4711 >> audit.jsonl") + exitHelp,
		Flags:  atCentral.flags(&cli.Int64Flag{Name: "after", Usage: "only the entries behind the one with `ID`"}),
		Action: atCentral.with(exportAudit),
	}
}

func exportAudit(s *session) error {
	after := s.c.Int64("after")
	if after < 0 {
		return settings.Usage("--after: %d is no id of an entry", after)
	}
	out := bufio.NewWriter(s.Out)
	last, gaps := "", 0
	for {
		page, err := s.client.AuditAfter(s.ctx, "", after, 0)
		if err != nil {
			return errors.Join(out.Flush(), err)
		}
		if len(page) == 0 {
			if gaps > 0 {
				s.Warn("the export has %s, where entries are beyond your scope: rackpower audit verify --file cannot check it",
					power.Count(gaps, "gap"))
			}
			return out.Flush()
		}
		for _, e := range page {
			if last != "" && e.Before != last {
				gaps++
			}
			last = e.Hash
		}
		if err := printer.WriteLines(out, page); err != nil {
			return err
		}
		after = page[len(page)-1].ID
	}
}

// happened is when that was what an entry tells of.
func happened(e api.AuditEntry) time.Time {
	if e.HappenedAt.IsZero() {
		return e.At
	}
	return e.HappenedAt
}

// toldLater says how much later central heard of it: "" when that was at once.
func toldLater(e api.AuditEntry) string {
	late := e.At.Sub(happened(e))
	if late < 10*time.Second {
		return ""
	}
	return power.Ago(late) + " later"
}

func (v view) auditListing(entries []api.AuditEntry) printer.Listing[api.AuditEntry] {
	return printer.Listing[api.AuditEntry]{
		Rows: entries, Name: func(e api.AuditEntry) string { return fmt.Sprint(e.ID) },
		Head: []string{"AT", "TOLD", "WHO", "WHAT", "NODE", "OUTCOME", "WHY", "DETAIL"},
		Cells: func(e api.AuditEntry) []string {
			return []string{v.Time(happened(e)), toldLater(e), e.Who, e.What, e.Node, e.Outcome, e.Why, e.Detail}
		},
		WideHead:  []string{"OPERATION", "VIA", "ADDRESS", "ID"},
		WideCells: func(e api.AuditEntry) []string { return []string{e.Op, e.Via, e.Address, fmt.Sprint(e.ID)} },
	}
}
