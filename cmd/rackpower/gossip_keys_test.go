package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/gossip"
)

func TestGossipKeys(t *testing.T) {
	m := newTalk(t)
	m.members = three()
	m.keys = api.GossipKeys{
		Keys: []api.GossipKey{{ID: "0badcafe", Members: 2, Primary: 2}}, Members: 3, Answered: 2, Problems: map[string]string{"r2": "no room"},
	}
	got := m.run("gossip keys list")
	if got.exit != 0 || !strings.Contains(got.out, "2 of 3") || !strings.Contains(got.errs, "r2: no room") ||
		!strings.Contains(got.errs, "1 of 3 members did not answer") {
		t.Errorf("%+v", got)
	}
	key := m.run("gossip keygen")
	if _, err := gossip.ParseKey(key.out); err != nil || key.exit != 0 {
		t.Fatalf("%v %+v", err, key)
	}
	dir := t.TempDir()
	file, bad := filepath.Join(dir, "new.key"), filepath.Join(dir, "bad.key")
	for path, text := range map[string]string{file: key.out, bad: "hush!\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.TrimSpace(key.out)
	if got := m.run("gossip keys install --key-file - ", text); got.exit != 0 {
		t.Errorf("%+v", got)
	}
	if got := m.run("gossip keys use 0badcafe"); !strings.Contains(got.errs, "r10 failed 40 s ago and was not asked") ||
		strings.Contains(got.errs, "r3 ") {
		t.Errorf("%+v", got)
	}
	m.run("gossip keys remove --key-file " + file)
	want := []api.ChangeKeys{{Action: "install", Key: text}, {Action: "use", ID: "0badcafe"}, {Action: "remove", Key: text}}
	if len(m.asked) != len(want) {
		t.Fatalf("%+v", m.asked)
	}
	for i := range want {
		if m.asked[i] != want[i] {
			t.Errorf("%+v, want %+v", m.asked[i], want[i])
		}
	}
	for args, says := range map[string]string{
		"gossip keys use": "name one key",
		"gossip keys use 0badcafe --key-file " + file:     "name one key",
		"gossip keys install --key-file " + bad:           "not base64",
		"gossip keys install --key-file " + dir + "/none": "cannot read the key: open",
		"gossip keys install":                             "--key-file",
	} {
		got := m.run(args)
		if got.exit != settings.ExitUsage || !strings.Contains(got.errs, says) || strings.Contains(got.errs, "hush") {
			t.Errorf("%s: %+v", args, got)
		}
	}
	m.problem = api.Problemf(api.CodeRefused, "cannot use the gossip key: 1 of 3 members do not have it")
	expect(t, "refused", m.run("gossip keys use 0badcafe"), settings.ExitRefused, "", "do not have it")
}
