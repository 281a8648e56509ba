package power

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestDesired(t *testing.T) {
	rows := map[Status]Desired{
		"NEW": {WantOff, true, "", false}, "COMMISSIONING": {WantOn, true, "", false},
		"FAILED_COMMISSIONING": {Want: WantOff}, "MISSING": {Want: HandsOff}, "READY": {Want: WantOff},
		"RESERVED": {Want: WantOff}, "ALLOCATED": {Want: WantOff}, "RETIRED": {Want: HandsOff},
		"BROKEN": {Want: WantOff}, "DEPLOYING": {WantOn, true, "", false},
		"DEPLOYED": {HandsOff, false, On, false}, "FAILED_DEPLOYMENT": {Want: WantOff},
		"RELEASING": {Want: WantOff}, "FAILED_RELEASING": {Want: WantOff},
		"DISK_ERASING": {WantOn, false, "", true}, "FAILED_DISK_ERASING": {Want: WantOff},
		"ENTERING_RESCUE_MODE": {WantOn, true, "", false}, "RESCUE_MODE": {WantOn, true, "", false},
		"TESTING": {WantOn, true, "", false}, "EXITING_RESCUE_MODE": {Want: HandsOff},
		"FAILED_ENTERING_RESCUE_MODE": {Want: HandsOff}, "FAILED_EXITING_RESCUE_MODE": {Want: HandsOff},
		"FAILED_TESTING": {Want: HandsOff},
	}
	if len(Statuses()) != len(rows) {
		t.Errorf("%d statuses, want %d", len(Statuses()), len(rows))
	}
	for s, want := range rows {
		if got := s.Desired(); got != want {
			t.Errorf("%s: %+v, want %+v", s, got, want)
		}
		lower := strings.ToLower(strings.ReplaceAll(string(s), "_", "-"))
		if got, err := ParseStatus(lower); got != s || err != nil {
			t.Errorf("ParseStatus(%q) = %q, %v", lower, got, err)
		}
	}
	for _, s := range []Status{"", "SLEEPING"} {
		if got := s.Desired(); got != (Desired{Want: HandsOff}) {
			t.Errorf("%q: %+v", s, got)
		}
		if _, err := ParseStatus(string(s)); err == nil {
			t.Errorf("ParseStatus(%q) succeeded", s)
		}
	}
}

func TestConflicts(t *testing.T) {
	for _, c := range []struct {
		status Status
		action Action
		want   bool
	}{
		{"DEPLOYING", ActOff, true},
		{"DEPLOYING", ActSoftOff, true},
		{"DEPLOYING", ActCycle, false},
		{"READY", ActOn, true},
		{"READY", ActReset, true},
		{"READY", ActOff, false},
		{"READY", ActDiag, false},
		{"DEPLOYED", ActOff, false},
		{"MISSING", ActOn, false},
	} {
		if got := c.status.Desired().Conflicts(c.action); got != c.want {
			t.Errorf("%s on %s: %v", c.action, c.status, got)
		}
	}
}

func TestActions(t *testing.T) {
	finals := map[Action]State{
		"on": On, "off": Off, "soft-off": Off, "cycle": On, "reset": On, "diag": Unknown, "bmc-reset": Unknown,
		"cap": Unknown,
	}
	cuts := map[Action]bool{"off": true, "soft-off": true, "cycle": true, "reset": true}
	for _, a := range Actions {
		if a.Final() != finals[a] || a.CutsPower() != cuts[a] {
			t.Errorf("%s: final %s, cuts %v", a, a.Final(), a.CutsPower())
		}
	}
	if ActOn.Deadline(0) != 5*time.Minute || ActSoftOff.Deadline(0) != 15*time.Minute || ActSoftOff.Deadline(time.Hour) != 65*time.Minute {
		t.Error("deadlines")
	}
}

func TestOpValidate(t *testing.T) {
	good := Op{ID: "i", Node: "n", Action: ActOn, Options: Options{Boot: BootPXE}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Op{
		{Node: "n", Action: ActOn},
		{ID: "i", Action: ActOn},
		{ID: "i", Node: "n", Action: "explode"},
		{ID: "i", Node: "n", Action: ActOn, Options: Options{IfBusy: "x"}},
		{ID: "i", Node: "n", Action: ActOn, Options: Options{Boot: "x"}},
		{ID: "i", Node: "n", Action: ActOff, Options: Options{Boot: BootPXE}},
		{ID: "i", Node: "n", Action: ActOff, Options: Options{Grace: 1}},
		{ID: "i", Node: "n", Action: ActOff, NoEscalate: true},
		{ID: "i", Node: "n", Action: ActSoftOff, Options: Options{Grace: -1}},
		{ID: "i", Node: "n", Action: ActSoftOff, Options: Options{Grace: MaxGrace + 1}},
	} {
		if bad.Validate() == nil {
			t.Errorf("valid: %+v", bad)
		}
	}
	now := time.Unix(1000, 0)
	o := Op{Action: ActSoftOff}.WithDefaults(now)
	if o.IfBusy != Supersede || o.Grace != 3*time.Minute || !o.AskedAt.Equal(now) || !o.Deadline.Equal(now.Add(15*time.Minute)) {
		t.Errorf("%+v", o)
	}
	if again := o.WithDefaults(now.Add(time.Hour)); again != o {
		t.Errorf("changed to %+v", again)
	}
}

func TestSecretNeverShows(t *testing.T) {
	ep := Endpoint{Scheme: "ipmi", Host: "h", User: "u", Password: "hunter2"}
	var out bytes.Buffer
	for _, v := range []any{ep.Password, ep, &ep, []Secret{ep.Password}, struct{ P Secret }{ep.Password}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x\n", v, v, v, v, v, v)
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			t.Error(err)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
	}
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("leaked:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "redacted") {
		t.Error("nothing redacted")
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	e := &Error{Kind: KindBusy, Op: "power-on", Err: cause}
	w := fmt.Errorf("wrapped: %w", e)
	if e.Error() != "power-on: busy: cause" || !errors.Is(w, cause) || KindOf(w) != KindBusy || WasSent(w) {
		t.Errorf("%v", e)
	}
	e.Sent = true
	if !WasSent(w) || !WasSent(cause) || !WasSent(nil) || KindOf(cause) != KindUnreachable || KindOf(nil) != "" {
		t.Error("kinds")
	}
}

func TestSeqOnlyGrows(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	s := Seq(0).Next(now)
	if !s.Time().Equal(now) {
		t.Errorf("time %v", s.Time())
	}
	for _, at := range []time.Time{now, now.Add(-time.Hour), time.Unix(-9, 0), now.Add(time.Second)} {
		next := s.Next(at)
		if next <= s {
			t.Errorf("%d after %d", next, s)
		}
		s = next
	}
	if !s.Time().Equal(now.Add(time.Second)) {
		t.Errorf("clock not followed: %v", s.Time())
	}
}

func TestReading(t *testing.T) {
	at := time.Unix(1000, 0)
	r := Seen(On, at).Failed(ReachUnreachable, at.Add(time.Minute))
	if r.State != On || r.Reach != ReachUnreachable || !r.ObservedAt.Equal(at) || !r.TriedAt.Equal(at.Add(time.Minute)) {
		t.Errorf("%+v", r)
	}
	if r.Stale(at.Add(DefaultStale), DefaultStale) || !r.Stale(at.Add(DefaultStale+1), DefaultStale) {
		t.Error("stale bound")
	}
	if n := (Reading{}).Failed(ReachNever, at); n.State != Unknown || !n.Stale(at, DefaultStale) {
		t.Errorf("%+v", n)
	}
}

func TestSeqInJSON(t *testing.T) {
	for text, want := range map[string]Seq{
		`"116000000000000001"`: 116000000000000001, `116000000000000001`: 116000000000000001, `"0"`: 0,
		`0`: 0, `null`: 7, `18446744073709551615`: 1<<64 - 1,
	} {
		s := Seq(7)
		if err := json.Unmarshal([]byte(text), &s); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{`"x"`, `-1`, `1.5`, `"1`, `""`, `"18446744073709551616"`, `{}`, `true`, `"`} {
		s := Seq(7)
		if err := json.Unmarshal([]byte(text), &s); err == nil || s != 7 {
			t.Errorf("%s: %d", text, s)
		}
	}
	type record struct {
		Seq  Seq `json:"seq"`
		More Seq `json:"more,omitempty"`
	}
	if got, err := json.Marshal(record{Seq: 1<<63 + 1}); err != nil || string(got) != `{"seq":"9223372036854775809"}` {
		t.Errorf("%s, %v", got, err)
	}
}
