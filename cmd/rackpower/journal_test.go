package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rackpower/journal"
)

func TestJournalDumpAndVerify(t *testing.T) {
	f := newFake(t)
	dir := writeJournal(t)
	for _, path := range []string{dir, filepath.Join(dir, "journal")} {
		got := f.run("journal dump " + path)
		if got.exit != 0 || !strings.Contains(got.out, "op-1") || !strings.Contains(got.out, `"node":"r1n01"`) ||
			strings.Contains(got.out, "hush") {
			t.Errorf("%+v", got)
		}
		expect(t, "verify", f.run("journal verify "+path), 0, "no damage\n", "")
		expect(t, "verify", f.run("journal verify "+path), 0, "opened 1 time, ", "")
	}
	var row map[string]any
	if err := json.Unmarshal([]byte(strings.Split(f.run("journal dump -o jsonl "+dir).out, "\n")[0]), &row); err != nil ||
		row["key"] != "op-1" {
		t.Errorf("%v %v", row, err)
	}
	empty := t.TempDir()
	expect(t, "empty", f.run("journal dump "+empty), 2, "", "there is no journal in "+empty)
	expect(t, "missing", f.run("journal verify "+empty+"/none"), 2, "", empty+"/none")
	expect(t, "a file", f.run("journal dump /dev/null"), 2, "", "/dev/null is not a directory")
	if left, _ := os.ReadDir(empty); len(left) != 0 {
		t.Errorf("reading made %v", left)
	}
}

func TestJournalVerifyFindsDamage(t *testing.T) {
	f := newFake(t)
	dir := writeJournal(t)
	files, _ := filepath.Glob(filepath.Join(dir, "journal", "*.jnl"))
	hit := false
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if i := strings.Index(string(data), "op-1"); i > 0 {
			data[i] ^= 1
			hit = true
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !hit {
		t.Fatal("the record is in no file")
	}
	expect(t, "verify", f.run("journal verify "+dir), 1, "damage:", "the journal is damaged in 1 place\n")
	expect(t, "dump", f.run("journal dump "+dir), 1, "", "the journal is damaged\n")
}

// writeJournal makes an agent's directory with two records.
func writeJournal(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal"), Owner: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(journal.Entry{
		Op: journal.Put, Kind: 1, Key: "op-1",
		Payload: []byte(`{"node":"r1n01","password":"hush","kg":"hush"}`),
	}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}
