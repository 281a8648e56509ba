package main

import (
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
)

func TestSite(t *testing.T) {
	nobodyToAsk(t)
	f := newFake(t)
	expect(t, "never", f.run("site show"), 0, "central's database was never restored\n", "")
	expect(t, "nothing to confirm", f.run("site confirm --reason x"), 0, "central's database was never restored\n", "")
	f.site = api.Site{Restored: time.Now(), Of: time.Now().Add(-time.Hour), Untold: []string{"r2"}}
	expect(t, "untold", f.run("site show"), 0, "no difference is known between what was enforced and what is desired now\n", "")
	expect(t, "untold", f.run("site confirm --reason x"), 1, "not told:", "nothing was confirmed: no rack waits for it yet")
	on, off := power.Desired{Want: power.WantOn}, power.Desired{Want: power.WantOff}
	f.site.Waits = []string{"r1"}
	f.site.Differences = []api.Difference{
		{Node: "n1", Agent: "r1", Was: &on, WasFrom: "status TESTING", Is: &off, IsFrom: "status READY", State: power.On},
		{Node: "n2", Agent: "r1", Is: &off, IsFrom: "status READY"},
		{Node: "n3", Agent: "r1", Was: &on, WasFrom: "a hold of ann"},
		{Node: "n4", Agent: "r2", Was: &on, WasFrom: "status TESTING", Is: &on, IsFrom: "status TESTING", To: "r1", State: power.On},
	}
	want := `restored:      TIME
as of:         TIME
to confirm:    r1
not told:      r2: their agents have not told what they enforced (rackpower agents)

NODE  RACK  IS  WAS ENFORCED        DESIRED NOW
n1    r1    on  on, status TESTING  off, status READY
n2    r1    ?   not there           off, status READY
n3    r1    ?   on, a hold of ann   not in the backup: its agent goes on (rackpower local trust)
n4    r2    on  on, status TESTING  rack r1 has it: on, status TESTING
`
	expectExactly(t, "show", f.run("site show"), 0, want)
	expect(t, "no terminal", f.run("site confirm --reason x"), 2, "DESIRED NOW",
		"the monitors of racks r1 will enforce what is desired now, which is something else of 3 nodes; nothing was done: confirm with --yes")
	expect(t, "no reason", f.run("site confirm --yes"), 2, "", "--reason")
	token := f.site.Token()
	f.site.Differences[0].State = power.Off // while the person reads
	expect(t, "--yes", f.run("site confirm --reason x --yes"), 0, "the monitors of racks r1 go on\n", "racks r2 wait on")
	if len(f.confirms) != 1 || f.confirms[0].Shown != token || f.confirms[0].Reason != "x" {
		t.Errorf("%+v, want %s", f.confirms, token)
	}
}
