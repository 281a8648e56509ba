package agent

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// edit replaces one place of a file.
type edit struct{ file, old, new string }

// mutation is a way to break a rule in the code.
type mutation struct {
	what  string
	edits []edit
}

// mutations break the rules one by one. The text of each old place stands once in
// its file; where the code has moved on, the mutation follows it.
var mutations = []mutation{
	{"any central is trusted", []edit{{"agent/trust.go", "return m != meetOlder && m != meetUnknown", "return true"}}},
	{
		"ends that were acknowledged are not kept for a restored central",
		[]edit{{"agent/trust.go", "\t\tfor _, d := range l.done {", "\t\tfor _, d := range l.done[:0] {"}},
	},
	{
		"a restored central is not told what was asked",
		[]edit{{
			"agent/records.go", "\t\tID: r.Op.ID, Action: r.Op.Action, Seq: r.Op.Seq, Op: r.Op,",
			"\t\tID: r.Op.ID, Action: r.Op.Action, Seq: r.Op.Seq,",
		}},
	},
	{"act on a cached state", []edit{
		{
			"agent/execute.go", "func (x *execution) reach(ctx context.Context, target power.State, cmd power.Command) (power.Reason, error) " +
				"{\n\tstate, err := x.read(ctx)",
			"func (x *execution) reach(ctx context.Context, target power.State, cmd power.Command) (power.Reason, error) {\n\tstate, err := " +
				"x.a.readings.get(x.l.node).State, error(nil)\n\tif state == power.Unknown {\n\t\tstate, err = x.read(ctx)\n\t}",
		},
		{
			"agent/execute.go", "func (x *execution) on(ctx context.Context) (power.Reason, error) {\n\tstate, err := x.read(ctx)",
			"func (x *execution) on(ctx context.Context) (power.Reason, error) {\n\tstate, err := x.a.readings.get(x.l.node).State, " +
				"error(nil)\n\tif state == power.Unknown {\n\t\tstate, err = x.read(ctx)\n\t}",
		},
	}},
	{"reset without a read", []edit{{
		"agent/execute.go", "func (x *execution) once(ctx context.Context, cmd power.Command) (power.Reason, error) {\n\tstate, err := " +
			"x.read(ctx)",
		"func (x *execution) once(ctx context.Context, cmd power.Command) (power.Reason, error) {\n\tstate, err := power.On, ctx.Err()",
	}}},
	{
		"off of a node that is off sends a command",
		[]edit{{
			"agent/execute.go", "\tif state == target {\n\t\treturn x.there(), nil\n",
			"\tif state == target && x.h.attempts > 0 {\n\t\treturn x.there(), nil\n",
		}},
	},
	{
		"reset of a node that is off sends a command",
		[]edit{{
			"agent/execute.go", "if state == power.Off {\n\t\t\treturn \"\", fail(power.ReasonNodeOff",
			"if state == power.Off && false {\n\t\t\treturn \"\", fail(power.ReasonNodeOff",
		}},
	},
	{
		"sending is journaled after sending",
		[]edit{
			{"agent/execute.go", "\tif err := x.record(kindSending,", "\terr = d.Do(ctx, cmd)\n\tif err := x.record(kindSending,"},
			{"agent/execute.go", "\tx.h.sending(cmd, now)\n\terr = d.Do(ctx, cmd)\n", "\tx.h.sending(cmd, now)\n"},
		},
	},
	{
		"sending is not durable and the command leaves",
		[]edit{{
			"agent/execute.go", "At: now}); err != nil {\n\t\tx.a.journalFailed()",
			"At: now}); err != nil && false {\n\t\tx.a.journalFailed()",
		}},
	},
	{
		"the answer of a command is not journaled",
		[]edit{{"agent/execute.go", "jerr := x.record(kindSent, answer); jerr != nil", "jerr := error(nil); jerr != nil"}},
	},
	{
		"a reset interrupted by a crash is taken for done",
		[]edit{{"agent/execute.go", "if !x.op.Action.Once() || x.h.pending == \"\" && x.h.refused == nil {", "if true {"}},
	},
	{
		"a reset interrupted by a crash is sent again",
		[]edit{
			{"agent/execute.go", "if !x.op.Action.Once() || x.h.pending == \"\" && x.h.refused == nil {", "if true {"},
			{"agent/execute.go", "\tif x.h.sendings[cmd] == 0 {\n\t\tif state", "\tif true {\n\t\tif state"},
		},
	},
	{
		"a reset that was not answered is sent again",
		[]edit{{
			"agent/execute.go", "\t\treturn endError{power.End{\n\t\t\tOutcome: power.Indeterminate, Reason: power.ReasonUnanswered,",
			"\t\tx.h.sendings[cmd] = 0\n\t\treturn x.send(context.WithoutCancel(x.a.ctx), cmd)\n\t\treturn endError{power.End{\n\t\t\tOutcome: " +
				"power.Indeterminate, Reason: power.ReasonUnanswered,",
		}},
	},
	{
		"a refused reset counts as acknowledged",
		[]edit{{"agent/execute.go", "case cmd.Repeatable() && (kind ==", "case kind == power.KindRefused, cmd.Repeatable() && (kind =="}},
	},
	{"commands of before a crash are forgotten", []edit{{"agent/replay.go", "t.history.sending(rec.Command, rec.At)", "_ = rec"}}},
	{
		"superseded although the final state is the same",
		[]edit{{"power/decide.go", "\tcase h.Op.Action.Final() == req.Action.Final():\n\t\td.Verdict, d.Reason = VerdictFollow, ReasonMore\n", ""}},
	},
	{"an on joins nothing but an on", []edit{{
		"power/decide.go",
		"return out.Action == ActOn || out.Action == ActCycle || out.Action == ActReset", "return out.Action == ActOn",
	}}},
	{
		"a cycle is content with a reset",
		[]edit{{
			"power/decide.go", "\t\treturn out.Action == ActCycle\n\tcase ActSoftOff",
			"\t\treturn out.Action == ActCycle || out.Action == ActReset\n\tcase ActSoftOff",
		}},
	},
	{
		"joined without regard to the boot device",
		[]edit{{"power/decide.go", "if req.Boot != BootNone && req.Boot != out.Boot {", "if false {"}},
	},
	{"a request follows what is not cancelled as if it were", []edit{{"power/decide.go", "\tcase h.Cancelling:\n", "\tcase h.Running:\n"}}},
	{"joins what is being cancelled", []edit{{"agent/task.go", "Cancelling: t.stopped != nil || t.concluding", "Cancelling: false"}}},
	{"no sequence check", []edit{{"power/decide.go", "if req.Seq < lane.LastSeq {", "if false {"}}},
	{"the sequence is forgotten at a restart", []edit{{"agent/replay.go", "\t\tl.seqs.Load(last.Seq)\n", ""}}},
	{"refuse waits in the queue", []edit{{"power/decide.go", "case req.IfBusy == Refuse && !equal:", "case false:"}}},
	{"queue supersedes", []edit{{"power/decide.go", "case req.IfBusy == Queue:", "case false:"}}},
	{"last in, first out", []edit{{
		"agent/lane.go", "\tl.tasks = append(l.tasks, t)\n\tl.a.outbox",
		"\tl.tasks = slices.Insert(l.tasks, min(1, len(l.tasks)), t)\n\tl.a.outbox",
	}}},
	{
		"the follower is forgotten at a restart",
		[]edit{{
			"agent/replay.go", "\t\tcase t.joined == \"\" || tasks[t.joined] == nil:\n",
			"\t\tcase len(l.tasks) > 0:\n\t\tcase t.joined == \"\" || tasks[t.joined] == nil:\n",
		}},
	},
	{"what has ended runs again after a restart", []edit{{"agent/replay.go", "\t\tcase t.end != nil:\n\t\t\tl.remember(t)\n", ""}}},
	{
		"a superseded follower ends in memory only",
		[]edit{{
			"agent/lane.go", "entries = append(entries, endEntries(f, supersededBy(t, now, \"it had not started\"), &room)...)",
			"_, _ = f, room",
		}},
	},
	{
		"accepted is answered before it is durable",
		[]edit{{
			"agent/lane.go", "\tlsn, err := l.a.log.Append(l.acceptEntries(t, now)...)\n\tif err != nil {",
			"\tlsn, err := l.a.log.Append(l.acceptEntries(t, now)...)\n\tif err != nil && false {",
		}},
	},
	{
		"acceptance and what it does to others are two writes",
		[]edit{{
			"agent/lane.go", "\tlsn, err := l.a.log.Append(l.acceptEntries(t, now)...)\n",
			"\tall := l.acceptEntries(t, now)\n\tif len(all) > 1 {\n\t\tl.a.log.Append(all[:len(all)-1]...)\n\t}\n\tlsn, err := " +
				"l.a.log.Append(all[len(all)-1:]...)\n",
		}},
	},
	{
		"an operation runs before started is durable",
		[]edit{{
			"agent/lane.go", "startedRecord{At: now}))\n\t\tif err == nil {",
			"startedRecord{At: now}))\n\t\tif err == nil || !l.a.stopping() {",
		}},
	},
	{"joiners get no end", []edit{{
		"agent/lane.go", "for _, j := range now {\n\t\tentries = append(entries, entry(journal.Add, kindEnded",
		"for _, j := range now[:0] {\n\t\tentries = append(entries, entry(journal.Add, kindEnded",
	}}},
	{"joiners are lost at a restart", []edit{{"agent/replay.go", "target.joiners = append(target.joiners, t)", "_ = target"}}},
	{
		"a joiner is told another outcome",
		[]edit{{
			"agent/lane.go", "\tt.end, t.lsn, t.running = &end, lsn, false\n",
			"\tif t.joined != \"\" {\n\t\tend.Outcome = power.Superseded\n\t}\n\tt.end, t.lsn, t.running = &end, lsn, false\n",
		}},
	},
	{
		"an end is told before it is durable",
		[]edit{{
			"agent/lane.go", "func (l *lane) finish(t *task, end power.End) bool {\n",
			"func (l *lane) finish(t *task, end power.End) bool {\n\tearly := t.report()\n\tearly.End = &end\n\tl.a.outbox.put(early)\n",
		}},
	},
	{"ends of joiners wait for a start", []edit{
		{"agent/task.go", "n := min(len(t.joiners), *room)", "n := 0"},
		{"agent/lane.go", "\t\tn := min(len(l.owed), power.MaxJoined)\n", "\t\tn := 0\n"},
	}},
	{"two ends for one operation", []edit{{
		"agent/lane.go", "\tl.remove(t)\n\troom = power.MaxJoined\n",
		"\troom = power.MaxJoined\n\tif t.stopped != nil {\n\t\tend.Outcome = power.Failed\n\t\tl.a.log.Append(endEntries(t, end, " +
			"&room)...)\n\t}\n\tl.remove(t)\n\troom = power.MaxJoined\n",
	}}},
	{"off-seen is not journaled", []edit{{
		"agent/execute.go", "\t\terr := x.record(kindOffSeen, startedRecord{At: now})",
		"\t\terr := error(nil)",
	}}},
	{"off-seen is forgotten at a restart", []edit{{"agent/replay.go", "\t\tt.history.offSeen = rec.At\n", ""}}},
	{
		"a cycle does not wait until off is seen",
		[]edit{{
			"agent/execute.go", "if _, err := x.reach(ctx, power.Off, power.PowerOff); err != nil {",
			"if err := x.send(ctx, power.PowerOff); err != nil {",
		}},
	},
	{"no minimum off time", []edit{{"agent/execute.go", "wait(ctx, time.Until(x.h.offSeen.Add(x.time.MinOff)))", "wait(ctx, 0)"}}},
	{"the minimum off time ends with the process", []edit{{
		"agent/execute.go", "if x.h.offSeen.IsZero() && x.h.sendings[power.PowerOn] == 0 {",
		"if !x.h.offSeen.IsZero() {\n\t\tx.h.offSeen = x.h.offSeen.Add(-x.time.MinOff)\n\t}\n\tif x.h.offSeen.IsZero() && " +
			"x.h.sendings[power.PowerOn] == 0 {",
	}}},
	{"resend without reading", []edit{{
		"agent/execute.go",
		"reached, err := x.await(ctx, target, min(window, time.Until(x.h.lastSent.Add(window))))",
		"reached, err := false, wait(ctx, time.Until(x.h.lastSent.Add(window)))",
	}}},
	{"resend at once", []edit{{"agent/execute.go", "min(window, time.Until(x.h.lastSent.Add(window))))", "min(window, time.Second))"}}},
	{"resend without end", []edit{{"agent/execute.go", "if n >= len(x.time.Verify) {", "if n > len(x.time.Verify) {"}}},
	{"no deadline in the queue", []edit{
		{"agent/lane.go", "if t.running || t.op.Deadline.After(now) {", "if true {"},
		{"agent/lane.go", "\t\tif !t.running {\n\t\t\tnext = min(", "\t\tif false {\n\t\t\tnext = min("},
	}},
	{
		"no deadline while waiting behind a running one",
		[]edit{{"agent/lane.go", "\t\tif !t.running {\n\t\t\tnext = min(", "\t\tif false {\n\t\t\tnext = min("}},
	},
	{"no deadline once running", []edit{{
		"agent/lane.go", "context.WithDeadlineCause(ctx, t.op.Deadline, errDeadline)",
		"context.WithDeadlineCause(ctx, t.op.Deadline.Add(time.Hour), errDeadline)",
	}}},
	{"two exchanges on one BMC", []edit{{"agent/bmc.go", "return s.byKey(ep.Key())", "return s.byKey(ep.Key() + ep.User)"}}},
	{
		"what an earlier command may still do is not waited for",
		[]edit{{"agent/execute.go", "if left == nil || x.h.attempts > 0 {", "if true {"}},
	},
	{
		"what an earlier command may still do is forgotten at a restart",
		[]edit{{"agent/replay.go", "a.lane(t.op.Node).leaves(t.op, *t.end)", "_ = t.end"}},
	},
	{"what was cancelled keeps going", []edit{{
		"agent/lane.go", "\tif t.cancel != nil {\n\t\tt.cancel(stopError{why})",
		"\tif false {\n\t\tt.cancel(stopError{why})",
	}}},
	{
		"a command leaves after its operation was told to stop",
		[]edit{{
			"agent/bmc.go", "\tif ctx.Err() != nil {\n\t\treturn context.Cause(ctx)\n\t}\n\terr := fn(inner, b.driver)",
			"\terr := fn(inner, b.driver)",
		}, {
			"agent/bmc.go",
			"\tif ctx.Err() != nil {\n\t\tb.release()\n\t\treturn context.Cause(ctx)\n\t}\n\treturn nil", "\treturn nil",
		}},
	},
	{"a cancelling is not journaled", []edit{{"agent/lane.go", "\tif d.Cancels != \"\" {\n", "\tif false {\n"}}},
	{
		"a cancelling is forgotten at a restart",
		[]edit{{
			"agent/replay.go", "\t\tt.stopped = new(cancelRecord)\n\t\treturn json.Unmarshal(r.Payload, t.stopped)",
			"\t\treturn json.Unmarshal(r.Payload, new(cancelRecord))",
		}},
	},
	{
		"cancelling is confirmed and not journaled",
		[]edit{{"agent/lane.go", "lsn, err := l.a.log.Append(entry(journal.Add, kindCancel, t.op.ID, why))", "lsn, err := t.lsn, error(nil)"}},
	},
	{"hastening does nothing", []edit{{"agent/lane.go", "\t\t\ta.setHastened()\n", ""}}},
	{"hastening is forgotten at a restart", []edit{{"agent/replay.go", "\t\tt.setHastened()\n", ""}}},
	{"no grace", []edit{{"agent/execute.go", "\t\tif left <= 0 {\n", "\t\tif left <= time.Hour {\n"}}},
	{"the grace begins anew at a restart", []edit{{
		"agent/execute.go", "\tif x.h.sendings[power.PressSoftOff] == 0 {\n\t\terr := x.send",
		"\tif x.h.pending == \"\" {\n\t\tx.h.softOff = time.Now()\n\t}\n\tif x.h.sendings[power.PressSoftOff] == 0 {\n\t\terr := x.send",
	}}},
	{"escalated against the asker's wish", []edit{{"agent/execute.go", "if x.op.NoEscalate && !x.isHastened() {", "if false {"}}},
	{"the boot device is not set", []edit{{"agent/execute.go", "if x.op.Boot == power.BootNone || x.h.sendings", "if true || x.h.sendings"}}},
	{
		"refused log-ins are tried again",
		[]edit{
			{
				"agent/execute.go", "kind != power.KindUnreachable && kind != power.KindBusy && kind != power.KindRefused ||",
				"kind != power.KindUnreachable && kind != power.KindBusy && kind != power.KindRefused && kind != power.KindAuth ||",
			},
			{"agent/bmc.go", "r.times >= authFailuresToOpen && !force", "false"},
		},
	},
	{
		"a refusal counts as one of a log-in when it names the password only",
		[]edit{
			{"agent/breaker.go", "(de.Refused || de.Kind == power.KindAuth)", "de.Kind == power.KindAuth"},
			{"agent/bmc.go", "r.times >= authFailuresToOpen && !force", "r.times >= authFailuresToOpen && !force && r.kind == power.KindAuth"},
		},
	},
	{
		"an answer that leaves open whether the BMC acted is a success",
		[]edit{{"agent/execute.go", "case kind == power.KindUncertain && !cmd.Repeatable():", "case false:"}},
	},
	{
		"a command that could not leave is tried again by an old reading",
		[]edit{{
			"agent/execute.go", "\tif cmd == power.ResetBMC {\n\t\treturn nil\n\t}\n\tstate, err := x.read(ctx)\n",
			"\tif cmd != \"\" {\n\t\treturn nil\n\t}\n\tstate, err := x.read(ctx)\n",
		}},
	},
	{"the breaker never opens", []edit{{"agent/bmc.go", "r.times >= authFailuresToOpen && !force", "false"}}},
	{"the monitor acts against the desired state", []edit{{"agent/execute.go", "if persons || x.a.wants(x.op) {", "if persons || true {"}}},
	{
		"an end is not reported after a restart",
		[]edit{{"agent/replay.go", "\t\ta.outbox.put(t.report())\n", "\t\tif t.end == nil {\n\t\t\ta.outbox.put(t.report())\n\t\t}\n"}},
	},
	{
		"what was reported stays in the journal",
		[]edit{{
			"agent/replay.go", "entries = append(entries, entry(journal.Drop, kindReported, id, startedRecord{At: time.Now()}))",
			"_, _ = id, time.Now",
		}},
	},
	{
		"a request asked again is carried out again",
		[]edit{{
			"agent/lane.go", "\tif r, ok := l.a.outbox.find(id); ok {\n\t\treturn r, true\n\t}\n\tfor _, d := range l.done {",
			"\tfor _, d := range l.done[:0] {",
		}},
	},
	{"the newest runs first", []edit{{"agent/lane.go", "\t\tt := l.tasks[0]\n", "\t\tt := l.tasks[len(l.tasks)-1]\n"}}},
	{
		"what was cancelled while it waited runs",
		[]edit{{
			"agent/lane.go", "\tl.remove(t)\n\troom = power.MaxJoined\n",
			"\tif t.running {\n\t\tl.remove(t)\n\t}\n\troom = power.MaxJoined\n",
		}},
	},
	{"the clock begins anew at a restart", []edit{
		{"agent/replay.go", "\t\ta.clock.Load(last.Seq)\n", ""},
		{"agent/replay.go", "\ta.clock.Load(rec.Op.Seq)\n", ""},
	}},
	{
		"the sequence of a joined request does not count",
		[]edit{{
			"agent/lane.go", "\tl.raise(t.op)\n\td, room := t.decision, power.MaxJoined\n",
			"\td, room := t.decision, power.MaxJoined\n\tif !d.Verdict.Joined() {\n\t\tl.raise(t.op)\n\t}\n",
		}},
	},
	{
		"the sequence of the monitor counts",
		[]edit{{"agent/lane.go", "if op.Origin != power.FromMonitor {\n\t\tl.seqs", "if true {\n\t\tl.seqs"}},
	},
	{"what never left counts as sent", []edit{{"agent/task.go", "if !r.NotLeft {", "if true {"}}},
	{
		"soft-off is pressed again after a restart",
		[]edit{{"agent/execute.go", "\tif x.h.sendings[power.PressSoftOff] == 0 {\n\t\terr := x.send", "\tif true {\n\t\terr := x.send"}},
	},
	{"bmc-reset does not look first", []edit{{
		"agent/execute.go", "\t\tstate, err := x.bmc.state(ctx, x.ep, x.force)\n\t\tx.force = false\n",
		"\t\tstate, err := power.On, ctx.Err()\n\t\tx.force = false\n",
	}}},
	{
		"an expired operation ends as failed",
		[]edit{{
			"agent/lane.go", "err := l.end(t, expired(now, \"it had not started\"))",
			"err := l.end(t, power.End{Outcome: power.Failed, Reason: power.ReasonDeadline, At: now})",
		}},
	},
	{
		"the journal acknowledges before it flushes",
		[]edit{{"journal/commit.go", "\tif err := j.cur.file.Sync(); err != nil {\n\t\treturn err\n\t}\n", ""}},
	},
	{"the journal takes half a group", []edit{{
		"journal/segment.go", "\t\toff = r.group[0].off\n\t\tr.group = r.group[:0]\n",
		"\t\t_ = r.release()\n",
	}}},
	{
		"a snapshot loses the records of one batch",
		[]edit{{
			"journal/commit.go", "\t\tif err == nil && r.typ == frameRecord {\n\t\t\tj.applyRequest(r)",
			"\t\tif err == nil && r.typ == frameRecord && !b.rotate {\n\t\t\tj.applyRequest(r)",
		}},
	},
}

// TestMutations shows that the proof has teeth: each mutation is made in a copy of the
// tree, and TestProof there must find it, or TestHall where it breaks the monitor. It
// takes some minutes and runs where PROOF_MUTATIONS is set: to "all", to the name of one
// of the two tests, or to a part of the names of those wanted.
func TestMutations(t *testing.T) {
	want := os.Getenv("PROOF_MUTATIONS")
	if want == "" {
		t.Skip("set PROOF_MUTATIONS=all to run it (make mutations)")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := copyTree(root, dir); err != nil {
		t.Fatal(err)
	}
	caught, tried := 0, 0
	for test, list := range map[string][]mutation{"TestProof": mutations, "TestHall": hallMutations, "TestDamage": damageMutations} {
		for _, m := range list {
			if want != "all" && want != test && !strings.Contains(m.what, want) {
				continue
			}
			tried++
			word, by := m.run(t, test, root, dir)
			if word != "survived" {
				caught++
			} else {
				t.Errorf("survived: %s", m.what)
			}
			fmt.Printf("| %s | %s | %s | %s |\n", test, m.what, word, by)
		}
	}
	fmt.Printf("%d of %d mutations caught\n", caught, tried)
}

// mutated returns the files that a mutation touches, with its edits.
func (m mutation) mutated(t *testing.T) map[string]string {
	files := map[string]string{}
	for _, e := range m.edits {
		file := filepath.Join("..", e.file)
		if files[file] == "" {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			files[file] = string(text)
		}
		if n := strings.Count(files[file], e.old); n != 1 {
			t.Errorf("%s: its place stands %d times in %s", m.what, n, e.file)
		}
		files[file] = strings.Replace(files[file], e.old, e.new, 1)
	}
	return files
}

// TestMutationsApply: code that was changed must not leave a mutation without its place.
func TestMutationsApply(t *testing.T) {
	for _, m := range slices.Concat(mutations, hallMutations, damageMutations) {
		m.mutated(t)
	}
}

// TestMutationsCompile: nor one that does not compile any more.
func TestMutationsCompile(t *testing.T) {
	if raceEnabled {
		t.Skip("it says the same without the race detector, in less time")
	}
	check := newTypeChecker(t)
	for _, m := range slices.Concat(mutations, hallMutations, damageMutations) {
		files := m.mutated(t)
		for file := range files {
			if err := check.dir(filepath.Dir(file), files); err != nil {
				t.Errorf("%s does not compile: %v", m.what, err)
			}
		}
	}
}

// typeChecker checks packages some files of which are replaced.
type typeChecker struct {
	fset    *token.FileSet
	imports types.Importer
	parsed  map[string]*ast.File
}

// newTypeChecker has the compiler tell where the types of all that the packages import are.
func newTypeChecker(t *testing.T) typeChecker {
	out, err := exec.Command("go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	fset := token.NewFileSet()
	open := func(path string) (io.ReadCloser, error) { return os.Open(files[path]) }
	return typeChecker{fset, importer.ForCompiler(fset, "gc", open), map[string]*ast.File{}}
}

func (c typeChecker) dir(dir string, replaced map[string]string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	var files []*ast.File
	for _, name := range names {
		if ok, err := build.Default.MatchFile(dir, filepath.Base(name)); err != nil || !ok || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file := c.parsed[name]
		if text, ok := replaced[name]; ok {
			file, err = parser.ParseFile(c.fset, name, text, parser.SkipObjectResolution)
		} else if file == nil {
			file, err = parser.ParseFile(c.fset, name, nil, parser.SkipObjectResolution)
			c.parsed[name] = file
		}
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	_, err = (&types.Config{Importer: c.imports}).Check(dir, c.fset, files, nil)
	return err
}

var foundIn = regexp.MustCompile(`history (\d+) of seed \d+ broke a rule:\s+at [0-9.]+s ([^:\n]+)`)

// run tells after how many histories the test found the mutation, and by which rule.
func (m mutation) run(t *testing.T, test, root, dir string) (word, by string) {
	touched := map[string][]byte{}
	defer func() {
		for file, text := range touched {
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}()
	for _, e := range m.edits {
		text, err := os.ReadFile(filepath.Join(dir, e.file))
		if err != nil {
			t.Fatal(err)
		}
		if touched[e.file] == nil {
			touched[e.file] = text
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			t.Errorf("%s: its place stands %d times in %s", m.what, n, e.file)
			return "survived", "it does not apply"
		}
		if err := os.WriteFile(filepath.Join(dir, e.file), []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "proof.test")
	build := exec.Command("go", "test", "-vet=off", "-c", "-o", bin, "./agent")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("%s does not compile: %s", m.what, out)
		return "survived", "it does not compile"
	}
	// Histories end by themselves, and the run of them by PROOF_TIME: what is at work after
	// that spins in one moment of simulated time. What it heaps up meanwhile is bounded, or it
	// would take all the memory that the machine has.
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	play := func(tests string) ([]byte, error) {
		run := exec.CommandContext(ctx, "sh", "-c", `ulimit -v 4000000; exec "$0" "$@"`, bin, "-test.run", tests)
		run.Dir = filepath.Join(dir, "agent")
		run.Env = append(os.Environ(), "PROOF_SHRINK=0", "PROOF_TIME=3m", "GOGC=400",
			fmt.Sprintf("PROOF_HISTORIES=%d", envNumber(t, "PROOF_HISTORIES", 20000)))
		return run.CombinedOutput()
	}
	out, err := play("^" + test + "$")
	switch found := foundIn.FindSubmatch(out); {
	case found != nil:
		return string(found[1]), string(found[2])
	case ctx.Err() != nil || strings.Contains(string(out), "out of memory"):
		return "hung", "the histories did not end"
	case err != nil && strings.Contains(string(out), "panic:"):
		_, why, _ := strings.Cut(string(out), "panic: ")
		why, _, _ = strings.Cut(why, "\n")
		return "panic", why
	case err != nil:
		t.Errorf("%s: %v\n%s", m.what, err, out)
	}
	if out, err := play("^TestProofTranscripts$"); err != nil && strings.Contains(string(out), "BROKEN") {
		return "transcript", "by one of testdata/proof only"
	}
	return "survived", ""
}

// copyTree copies the sources of the module.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == ".git" || rel == "bin" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() || d.Name() == ".git" {
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
}
