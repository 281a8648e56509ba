package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/journal"
	"rackpower/power"
)

func journalCommand() *cli.Command {
	about := "DIR is an agent's data directory or a journal's own. Nothing is locked and nothing is written,\n" +
		"so it may belong to a running agent, be a copy, or be on a read-only disk."
	return &cli.Command{
		Name: "journal", Category: "on a rack", Usage: "read an agent's journal",
		Description: about + examples("rackpower journal verify /var/lib/rackpower/agent") + exitHelp,
		Subcommands: []*cli.Command{
			{
				Name: "dump", Usage: "print the records", ArgsUsage: "DIR", Action: dumpJournal, Flags: outputFlags(),
				Description: about + " Passwords are not shown." + examples("rackpower journal dump /var/lib/rackpower/agent",
					"rackpower journal dump DIR -o jsonl") + exitHelp,
			},
			{
				Name: "verify", Usage: "check the journal for damage", ArgsUsage: "DIR", Action: verifyJournal, Flags: outputFlags(),
				Description: about + examples("rackpower journal verify /var/lib/rackpower/agent") + exitHelp,
			},
		},
	}
}

// journalDirs finds the journals of a directory: an agent's data directory has two,
// its operations and its assignment.
func journalDirs(dir string) ([]string, error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return nil, settings.Exit(settings.ExitUsage, "cannot read the journal: %v", err)
	case !info.IsDir():
		return nil, settings.Exit(settings.ExitUsage, "cannot read the journal: %s is not a directory", dir)
	}
	var dirs []string
	for _, candidate := range []string{dir, filepath.Join(dir, "journal"), filepath.Join(dir, "assigned")} {
		segments, err := filepath.Glob(filepath.Join(globQuote(candidate), "*.jnl*"))
		_, noMark := os.Stat(candidate + journal.MarkSuffix) // with one, there was a journal
		if err == nil && len(segments) > 0 || noMark == nil {
			dirs = append(dirs, candidate)
		}
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, settings.Exit(settings.ExitUsage, "cannot read the journal: %v", err)
	}
	if len(dirs) == 0 {
		return nil, settings.Exit(settings.ExitUsage, "there is no journal in %s", dir)
	}
	return dirs, nil
}

// globQuote keeps the characters of a path from being a pattern.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// dumped is one record as it is printed.
type dumped struct {
	LSN      uint64          `json:"lsn"`
	Time     time.Time       `json:"time"`
	Op       string          `json:"op"`
	Kind     string          `json:"kind"`
	Key      string          `json:"key"`
	Payload  json.RawMessage `json:"payload,omitempty"`
	Journal  string          `json:"journal"` // name of its directory
	File     string          `json:"file"`
	Offset   int64           `json:"offset"`
	Snapshot bool            `json:"snapshot,omitempty"`
}

func dumpJournal(c *cli.Context) error {
	p, err := newPrinter(c)
	if err != nil {
		return err
	}
	dirs, err := journalDirs(c.Args().First())
	if err != nil {
		return err
	}
	p.Verbatim = true // records hold times in UTC; the others on the screen are then too
	var rows []dumped
	damaged := false
	for _, dir := range dirs {
		report, err := journal.Scan(dir, nil, func(r journal.Record, at journal.Position) error {
			row := dumped{
				LSN: r.LSN, Time: r.Time.UTC(), Op: r.Op.String(), Kind: agent.KindName(uint8(r.Kind)), Key: r.Key, Payload: payloadOf(r.Payload),
				Journal: filepath.Base(dir), File: at.File, Offset: at.Offset, Snapshot: at.Snapshot,
			}
			if p.Format == "jsonl" && !p.Quiet {
				return printer.WriteLines(p.Out, []dumped{row})
			}
			rows = append(rows, row)
			return nil
		})
		if err != nil {
			return readProblem(err)
		}
		for _, d := range report.Damage() {
			damaged = true
			p.Warn("damage: %s", term.Clean(d.String()))
		}
	}
	if p.Format != "jsonl" {
		if err := printer.Show(p, dumpListing(rows, len(dirs) > 1)); err != nil {
			return err
		}
	}
	if damaged {
		return settings.Exit(settings.ExitFailed, "the journal is damaged")
	}
	return nil
}

func readProblem(err error) error {
	if errors.Is(err, journal.ErrVersion) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return settings.Exit(settings.ExitUsage, "cannot read the journal: %v", err)
	}
	return fmt.Errorf("cannot read the journal: %w", err)
}

// dumpListing is the table of records; several: of more than one journal, whose
// records are numbered apart.
func dumpListing(rows []dumped, several bool) printer.Listing[dumped] {
	return printer.Listing[dumped]{
		Rows: rows, Name: func(d dumped) string { return d.Key },
		Head: []string{"JOURNAL", "LSN", "TIME", "OP", "KIND", "KEY", "PAYLOAD"},
		Cells: func(d dumped) []string {
			of := ""
			if several {
				of = d.Journal
			}
			return []string{of, fmt.Sprint(d.LSN), d.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), d.Op, d.Kind, d.Key, string(d.Payload)}
		},
		WideHead: []string{"FILE", "OFFSET", "SNAPSHOT"},
		WideCells: func(d dumped) []string {
			snapshot := ""
			if d.Snapshot {
				snapshot = "snapshot"
			}
			return []string{d.File, fmt.Sprint(d.Offset), snapshot}
		},
	}
}

// payloadOf is a payload as JSON, without passwords. What is not JSON becomes a
// text.
func payloadOf(data []byte) json.RawMessage {
	if len(data) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		value = string(data)
		if low := bytes.ToLower(data); bytes.Contains(low, []byte("password")) || bytes.Contains(low, []byte(`"kg"`)) {
			value = "redacted"
		}
	}
	if !redact(value) && json.Valid(data) {
		return zoned().ReplaceAllFunc(data, toUTC)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return json.RawMessage(`"unreadable"`)
	}
	return zoned().ReplaceAllFunc(text, toUTC)
}

// zoned finds the times of a payload that are not in UTC.
var zoned = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d`)
})

func toUTC(found []byte) []byte {
	t, err := time.Parse(time.RFC3339Nano, string(found))
	if err != nil {
		return found
	}
	return []byte(t.UTC().Format(time.RFC3339Nano))
}

// redact takes the values of all fields named password or kg away and reports whether
// there were any.
func redact(value any) (found bool) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if (strings.EqualFold(key, "password") || strings.EqualFold(key, "kg")) && inner != "" {
				v[key] = "redacted"
				found = true
			} else if redact(inner) {
				found = true
			}
		}
	case []any:
		for _, inner := range v {
			found = redact(inner) || found
		}
	}
	return found
}

// verified is the report on one journal.
type verified struct {
	Journal string `json:"journal"`
	Damaged bool   `json:"damaged"`
	journal.Report
}

func verifyJournal(c *cli.Context) error {
	p, err := newPrinter(c)
	if err != nil {
		return err
	}
	dirs, err := journalDirs(c.Args().First())
	if err != nil {
		return err
	}
	var rows []verified
	damages := 0
	for _, dir := range dirs {
		report, err := journal.Verify(dir, nil)
		if err != nil {
			return readProblem(err)
		}
		damages += len(report.Damage())
		rows = append(rows, verified{Journal: dir, Damaged: len(report.Damage()) > 0, Report: report})
	}
	if p.People() {
		for _, row := range rows {
			tellReport(p, row)
		}
	} else if err := printer.Show(p, printer.Listing[verified]{Rows: rows, Name: func(v verified) string { return v.Journal }}); err != nil {
		return err
	}
	if damages > 0 {
		return settings.Exit(settings.ExitFailed, "the journal is damaged in %s", power.Count(damages, "place"))
	}
	return nil
}

func tellReport(p printer.Printer, v verified) {
	records, torn := 0, int64(0)
	for _, s := range v.Segments {
		records += s.Records
		torn += s.TornBytes
	}
	p.Say("%s: agent %s, opened %s, %s in %s, last LSN %d, %d live", term.Clean(v.Journal), term.Clean(v.Owner),
		power.Count(int(v.Epoch), "time"), power.Count(records, "record"), power.Count(len(v.Segments), "segment"), v.LSN, v.Live)
	if torn > 0 {
		p.Say("  %d bytes of a write that was cut off and never acknowledged", torn)
	}
	for _, d := range v.Damage() {
		p.Say("  damage: %s", term.Clean(d.String()))
	}
	for _, kept := range v.Kept {
		p.Say("  put aside earlier: %s", term.Clean(kept))
	}
	if !v.Damaged {
		p.Say("  no damage")
	}
}
