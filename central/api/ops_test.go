package api

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"rackpower/power"
)

// noon is what fill sets times to.
var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// fill sets every field of a structure: texts to the names of their fields.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			if _, isTime := f.Interface().(time.Time); isTime {
				f.Set(reflect.ValueOf(noon))
			} else {
				fill(f)
			}
		case reflect.Pointer:
			f.Set(reflect.ValueOf(&noon))
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Uint64:
			f.SetUint(7)
		default:
			f.SetInt(7)
		}
	}
}

// TestFormsOfAnOperation holds the forms of an operation, on the wire and in journals, to
// the bytes that they have had.
func TestFormsOfAnOperation(t *testing.T) {
	const at = `"2026-11-26T12:00:00Z"`
	const zero = `"0001-01-01T00:00:00Z"`
	for _, tt := range []struct {
		form        any
		full, empty string
	}{
		{
			new(power.Op),
			`{"id":"ID","node":"Node","action":"Action","seq":"7","asked_by":"AskedBy","origin":"Origin","reason":"Reason","asked_at":` + at +
				`,"deadline":` + at + `,"if_busy":"IfBusy","boot":"Boot","grace":7,"limit":7,"no_escalate":true,"confirmed":true}`,
			`{"id":"","node":"","action":"","seq":"0","asked_by":"","origin":"","asked_at":` + zero + `,"deadline":` + zero + `}`,
		},
		{
			new(OpRequest),
			`{"id":"ID","node":"Node","action":"Action","if_busy":"IfBusy","boot":"Boot","grace":7,"limit":7,"no_escalate":true,"deadline":7,` +
				`"reason":"Reason","asked_by":"AskedBy","confirmed":true,"hold":true,"hold_for":7}`,
			`{"id":"","node":"","action":""}`,
		},
		{
			new(Op),
			`{"id":"ID","node":"Node","rack":"Rack","action":"Action","seq":"7","asked_by":"AskedBy","origin":"Origin","reason":"Reason",` +
				`"asked_at":` + at + `,"started_at":` + at + `,"ended_at":` + at + `,"outcome":"Outcome","detail":"Detail","already":true,` +
				`"superseded_by":"SupersededBy","joined":"Joined","attempts":7,"verdict":"Verdict","why":"Why","message":"Message",` +
				`"phase":"Phase","state":"State","deadline":` + at + `,"if_busy":"IfBusy","boot":"Boot","grace":7,"limit":7,` +
				`"cancel_by":"CancelBy","agent_note":"AgentNote","rev":7}`,
			`{"id":"","node":"","action":"","seq":"0","asked_by":"","origin":"","reason":"","asked_at":` + zero + `,"started_at":null,` +
				`"ended_at":null,"outcome":"","detail":"","already":false,"superseded_by":"","joined":"","attempts":0,"verdict":"","phase":"",` +
				`"deadline":` + zero + `,"rev":0}`,
		},
	} {
		if got, err := json.Marshal(tt.form); err != nil || string(got) != tt.empty {
			t.Errorf("%T, empty: %v\ngot  %s\nwant %s", tt.form, err, got, tt.empty)
		}
		fill(reflect.ValueOf(tt.form).Elem())
		if got, err := json.Marshal(tt.form); err != nil || string(got) != tt.full {
			t.Errorf("%T: %v\ngot  %s\nwant %s", tt.form, err, got, tt.full)
		}
	}
}

// TestNoPartOfARequestIsLost: each field of a request goes through all forms.
func TestNoPartOfARequestIsLost(t *testing.T) {
	var asked OpRequest
	fill(reflect.ValueOf(&asked).Elem())
	var want power.Op
	fill(reflect.ValueOf(&want).Elem())
	want.Deadline = noon.Add(asked.Deadline)
	got := asked.Op("AskedBy", "Origin", noon)
	got.Seq = want.Seq // is given where the request enters
	if got != want {
		t.Errorf("asked for:\ngot  %+v\nwant %+v", got, want)
	}
	o := NewOp(want, "r1")
	if got := o.Request(); got != want {
		t.Errorf("shown and taken again:\ngot  %+v\nwant %+v", got, want)
	}
}
