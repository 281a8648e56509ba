package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rackpower/central/api"
	"rackpower/power"
)

func TestNodeSetSendsWhatIsSet(t *testing.T) {
	f := newFake(t, hall(3, power.On)...)
	f.nodes[0].Labels = []string{"gpu"}
	expect(t, "labels", f.run("node set all --label model=h100,gpu- --label spare --exclude @label:gpu"), 0, "r1n[02-03] set\n", "")
	expect(t, "fields", f.run("node set r1n01 --domain= --credentials lab"), 0, "r1n01 set\n", "")
	if len(f.added) != 2 || len(f.added[0].Nodes) != 2 {
		t.Fatalf("%+v", f.added)
	}
	n, m := f.added[0].Nodes[1], f.added[1].Nodes[0]
	if n.Name != "r1n03" || !slices.Equal(n.Labels, []string{"model=h100", "gpu-", "spare"}) || !f.added[0].Update || n.Clear != nil {
		t.Errorf("%+v", n)
	}
	if m.Credentials != "lab" || !slices.Equal(m.Clear, []string{"domain"}) || len(m.Labels) != 0 {
		t.Errorf("%+v", m)
	}
	for args, errs := range map[string]string{
		"node set all":                        "nothing is to be set",
		"node set all --label=a/b":            `label "a/b": want KEY or KEY=VALUE`,
		"node set --label a":                  "NODES is missing",
		"node set @label:x --label y":         `no node matches "@label:x"`,
		"node add n1 --rack r1 --label a=b=c": `label "a=b=c"`,
		"status @label:":                      "a name is missing after @label:",
	} {
		expect(t, args, f.run(args), 2, "", errs)
	}
	if len(f.added) != 2 {
		t.Errorf("%+v", f.added)
	}
}

func TestNodeListShowsWhatWasSet(t *testing.T) {
	f := newFake(t, hall(2, power.On)...)
	f.nodes[1].Labels, f.nodes[1].Domain = []string{"gpu", "model=h100"}, "feedA"
	expectExactly(t, "node list", f.run("node list"), 0,
		"NODE   RACK  STATUS  DOMAIN  LABELS\nr1n01  r1    READY\nr1n02  r1    READY   feedA   gpu, model=h100\n")
	expect(t, "selected", f.run("node list @label:model=h100 -o name"), 0, "r1n02\n", "")
	expect(t, "none", f.run("node list @state:off"), 0, "", "no node matches")
}

// TestLabelsComeFromFiles has a row's labels be all that the node has then, and a row
// without any say nothing of them.
func TestLabelsComeFromFiles(t *testing.T) {
	both := []string{"gpu", "model=h100"}
	for name, c := range map[string]struct {
		text   string
		labels []string
		clear  []string
	}{
		"a.yaml": {"- {name: n1, rack: r1, labels: [gpu, model=h100]}\n", both, []string{"labels"}},
		"b.yaml": {"- {name: n1, rack: r1, labels: 'gpu, model=h100'}\n", both, []string{"labels"}},
		"c.yaml": {"- {name: n1, rack: r1, labels: []}\n", nil, []string{"labels"}},
		"d.yaml": {"- {name: n1, rack: r1}\n", nil, nil},
		"e.json": {`[{"name": "n1", "rack": "r1", "labels": ["gpu", "model=h100"]}]`, both, []string{"labels"}},
		"f.json": {`[{"name": "n1", "rack": "r1", "labels": "gpu,model=h100"}]`, both, []string{"labels"}},
		"g.csv":  {"name,rack,labels\nn1,r1,\"gpu,model=h100\"\n", both, []string{"labels"}},
		"h.csv":  {"name,rack,labels\nn1,r1,\n", nil, nil},
	} {
		f := newFake(t)
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := f.run("node import " + path)
		if got.exit != 0 || len(f.added) != 1 {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if n := f.added[0].Nodes[0]; !slices.Equal(n.Labels, c.labels) || !slices.Equal(n.Clear, c.clear) {
			t.Errorf("%s: %+v", name, n)
		}
	}
	for text, errs := range map[string]string{
		"- {name: n1, rack: r1, labels: [a b]}":                `label "a b"`,
		"- {name: n1, rack: r1, labels: [[a]]}":                "labels: want a list of texts",
		"- {name: n1, rack: r1, domain: [a]}":                  "domain: want a text",
		`[{"name": "n1", "rack": "r1", "domain": ["a"]}]`:      "domain: want a text",
		`[{"name": "n1", "rack": "r1", "labels": {"a": "b"}}]`: "a list of texts for labels",
		`[{"name": "n1", "labels": ["a"], "labels": ["b"]}]`:   "labels is given twice",
	} {
		f := newFake(t)
		expect(t, text, f.run("node import -", text), 2, "", errs)
	}
	f := newFake(t)
	f.export = []api.NodeSpec{{Name: "n1", Rack: "r1", Labels: both}}
	expect(t, "as YAML", f.run("node export"), 0, "- name: n1\n  rack: r1\n  labels:\n    - gpu\n    - model=h100\n", "")
	expect(t, "as CSV", f.run("node export -o csv"), 0, `n1,r1,,,,"gpu,model=h100",,`, "")
}
