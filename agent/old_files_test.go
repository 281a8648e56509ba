package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"rackpower/agent/bmcpool"
	"rackpower/agent/monitor"
	"rackpower/central/api"
	"rackpower/journal"
	"rackpower/power"
	"rackpower/power/powertest"
)

// oldFiles is a data directory as an agent of November 2026 left it, with a record of each
// kind in which every field has a value.
func oldFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/files-2026-11")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// renamed holds, by kind of record, the fields that have another name now.
var renamed = map[journal.Kind]map[string]string{
	kindAccepted: {"says": "message"},
	kindLastSeq:  {"says": "message"},
	kindBrake:    {"says": "message", "of": "total"},
	kindTrust:    {"told": "reported"},
	kindMemory:   {"fell": "reverted", "fell_op": "reverted_op", "fell_at": "reverted_at"},
}

// rename gives the fields of a value their present names.
func rename(v any, names map[string]string) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			if now, ok := names[key]; ok {
				key = now
			}
			out[key] = rename(value, names)
		}
		return out
	case []any:
		for i := range v {
			v[i] = rename(v[i], names)
		}
	}
	return v
}

// recordOf is a new value of what a record of the kind holds; nil: nothing.
func recordOf(kind journal.Kind) any {
	switch kind {
	case kindAccepted, kindAdded:
		return new(acceptedRecord)
	case kindStarted, kindOffSeen:
		return new(startedRecord)
	case kindSending, kindSent:
		return new(commandRecord)
	case kindEnded:
		return new(power.End)
	case kindCancel, kindHastened:
		return new(cancelRecord)
	case kindLastSeq:
		return new(lastRecord)
	case kindNode:
		return new(api.AssignedNode)
	case kindSync:
		return new(syncRecord)
	case kindMemory:
		return new(monitor.Memory)
	case kindRack:
		return new(api.RackSettings)
	case kindBrake:
		return new(brakeRecord)
	case kindHold:
		return new(power.Hold)
	case kindRefused:
		return new(bmcpool.Refusal)
	case kindDoubt:
		return new(doubt)
	case kindAlarm:
		return new(api.Alarm)
	case kindTrust:
		return new(trustRecord)
	case kindContact:
		return new(contactRecord)
	}
	return nil
}

// TestOldRecordsKeepEveryField reads each old record, writes it as records are written now,
// and compares: but for names nothing may differ.
func TestOldRecordsKeepEveryField(t *testing.T) {
	seen := map[journal.Kind]bool{}
	for _, sub := range []string{journalDir, assignedDir} {
		j, err := journal.Open(journal.Config{Dir: filepath.Join(oldFiles(t), sub), Owner: "r1"})
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		for _, r := range j.Live() {
			seen[r.Kind] = true
			into := recordOf(r.Kind)
			if len(r.Payload) == 0 || into == nil {
				continue
			}
			if err := json.Unmarshal(r.Payload, into); err != nil {
				t.Errorf("%s: %v", KindName(uint8(r.Kind)), err)
				continue
			}
			var old, now any
			written := entry(journal.Put, r.Kind, r.Key, into).Payload
			if json.Unmarshal(r.Payload, &old) != nil || json.Unmarshal(written, &now) != nil {
				t.Fatalf("%s or %s is no JSON", r.Payload, written)
			}
			if old = rename(old, renamed[r.Kind]); !reflect.DeepEqual(old, now) {
				t.Errorf("%s %s\nold %v\nnow %v", KindName(uint8(r.Kind)), r.Key, old, now)
			}
		}
	}
	since := []journal.Kind{kindNote, kindAdded, kindLeased, kindEpoch}
	for kind := range kindNames {
		if !seen[kind] && kind != kindReported && !slices.Contains(since, kind) { // it takes its operation out of the log
			t.Errorf("no record of kind %s", KindName(uint8(kind)))
		}
	}
}

// TestOldFilesStartAnAgent looks at what an agent makes of old files.
func TestOldFilesStartAnAgent(t *testing.T) {
	a, err := New(Config{Name: "r1", Dir: oldFiles(t), Dial: powertest.NewFake().Dial, Central: unreachable(t), Monitor: MonitorOff})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for id, want := range map[string]string{
		"op-soft": "starts now", "op-joined": "joins what runs", "op-boot": "boots from the network", "op-over": "was on",
	} {
		if got, ok := a.outbox.find(id); !ok || got.Message != want {
			t.Errorf("operation %s: %+v, %t", id, got, ok)
		}
	}
	done := a.lane("n1").done
	if i := slices.IndexFunc(done, func(d doneRecord) bool { return d.ID == "op-done" }); i < 0 || done[i].Message != "joined and over" {
		t.Errorf("ended operations of n1: %+v", done)
	}
	if b := a.assigned.brake; b == nil || b.ID != "brake-1" || b.Message != "2 of 4 nodes would lose power" {
		t.Errorf("brake %+v", b)
	}
	m := a.assigned.memories["n1"]
	if m.Failures != 3 || m.Left != power.On || m.LeftOp != "op-done" || m.Reverted != "it went off again" || m.Lost != 2 {
		t.Errorf("memory of n1: %+v", m)
	}
	if got := len(a.assigned.all()); got != 4 {
		t.Errorf("%d nodes", got)
	}
}
