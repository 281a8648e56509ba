package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
)

// chain gives entries the ids from an id on, and their hashes.
func chain(before string, from int64, n int) (all []api.AuditEntry) {
	for i := range int64(n) {
		e := api.AuditEntry{
			ID: from + i, At: time.Date(2026, 3, 1, 12, 0, int(i), 5, time.UTC), Who: "bob", What: "asked", Via: "token", Address: "192.0.2.1",
			Before: before,
		}
		e.Hash = e.Sum(before)
		before = e.Hash
		all = append(all, e)
	}
	return all
}

// TestAnExportIsVerifiedAlone: as it was written, from any entry on, and changed.
func TestAnExportIsVerifiedAlone(t *testing.T) {
	f := newFake(t)
	f.trail = chain("", 1, 4)
	got := f.run("audit export")
	if got.exit != 0 || strings.Count(got.out, "\n") != 4 {
		t.Fatalf("%+v", got)
	}
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	verify := func(what, text, args string, exit int, out, errs string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, what, f.run("audit verify --file "+file+args), exit, out, errs)
	}
	lines := strings.SplitAfter(got.out, "\n")
	verify("all", got.out, "", 0, "4 entries from 1 to 4 are unchanged; head "+f.trail[3].Hash, "")
	verify("from an entry on", f.run("audit export --after 2").out, "", 0, "2 entries from 3 to 4 are unchanged; head ", "")
	verify("a known head", got.out, " --head "+f.trail[1].Hash, 0, "4 entries", "")
	verify("the end is missing", lines[0]+lines[1], " --head "+f.trail[3].Hash, 1, "", "no entry has the hash "+f.trail[3].Hash)
	verify("one is missing", lines[0]+lines[2]+lines[3], "", 1, "", "entry 3 does not fit: entries between 1 and it are missing; an export by")
	verify("one is changed", strings.Replace(got.out, `"id":2`, `"id":7`, 1), "", 1, "", "entry 7 does not fit")
	verify("the first is changed", strings.Replace(got.out, "bob", "ann", 1), "", 1, "", "entry 1 does not fit")
	verify("others may come first", `{"id":1,"at":"2026-03-01T12:00:00Z","who":"x","what":"y"}`+"\n"+f.run("audit export --after 2").out, "", 0,
		"1 of before there were hashes cannot be checked", "")
	verify("no JSON", "x", "", 1, "", "entry 1 of the file: ")
	verify("nothing", "", "", 0, "no entries with hashes", "")
	f.trail = append(f.trail[:1:1], f.trail[2:]...) // the second is beyond the scope of who asks
	expect(t, "with a gap", f.run("audit export"), 0, `"id":3`, "1 gap, where entries are beyond your scope")
	expect(t, "no file", f.run("audit verify --file /nowhere/x"), 2, "", "--file: ")
	expect(t, "a negative id", f.run("audit export --after -1"), 2, "", "--after: -1")
}

// TestAuditVerify shows what central found.
func TestAuditVerify(t *testing.T) {
	f := newFake(t)
	f.check = api.AuditCheck{Entries: 3, First: 2, Last: 4, Head: "abc"}
	expect(t, "fits", f.run("audit verify"), 0, "3 entries from 2 to 4 are unchanged; head abc\n", "")
	expect(t, "for programs", f.run("audit verify -o jsonl"), 0, `{"entries":3,"first":2,"last":4,"head":"abc"}`, "")
	f.check.Wrong, f.check.Why = 5, "it has no hash"
	expect(t, "does not fit", f.run("audit verify"), 1, "", "entry 5 does not fit: it has no hash; 3 entries before it are unchanged")
}

// TestAuditFilters: what is asked of central, and what the wide table shows.
func TestAuditFilters(t *testing.T) {
	f := newFake(t)
	f.trail = chain("", 1, 1)
	expect(t, "wide", f.run("audit -o wide --who bob --what asked --since 2h --until 2026-03-01T12:00:00Z"), 0, "token  192.0.2.1  1", "")
	for _, want := range []string{"who=bob", "what=asked", "since=2", "until=2026-03-01T12%3A00%3A00Z"} {
		if !strings.Contains(f.question, want) {
			t.Errorf("asked %s, want %s", f.question, want)
		}
	}
	expect(t, "a bad time", f.run("audit --since yesterday"), 2, "", `--since: "yesterday" is neither`)
	expect(t, "a node", f.run("audit r1n01"), 0, "bob", "")
}
