package main

import (
	"os"
	"path/filepath"
	"testing"

	"rackpower/cmd/settings"
	"rackpower/power"
)

func TestProfilesOfSeveralSites(t *testing.T) {
	f := newFake(t, hall(1, power.On)...)
	expect(t, "none", f.run("profile list"), 0, "there are none: rackpower login URL makes one\n", "")
	expect(t, "none, for programs", f.run("profile list -o json"), 0, "[]\n", "")
	for _, p := range []settings.Profile{
		{Name: settings.DefaultProfile, URL: "https://one:7620", User: "alice", Token: "rpt_secret"},
		{Name: "lab", URL: "https://two:7620", User: "anna"},
	} {
		if _, err := p.Save(); err != nil {
			t.Fatal(err)
		}
	}
	expectExactly(t, "list", f.run("profile list"), 0,
		"PROFILE  IN USE  USER   URL\ndefault  yes     alice  https://one:7620\nlab              anna   https://two:7620\n")
	expect(t, "use", f.run("context use lab"), 0, "commands ask https://two:7620 as anna from now on\n", "")
	expect(t, "list", f.run("profile list -o jsonl"), 0, `{"name":"lab","url":"https://two:7620","user":"anna","in_use":true}`+"\n", "")
	if got := settings.CurrentProfile(); got != "lab" {
		t.Errorf("%s is in use", got)
	}
	for args, errs := range map[string]string{
		"profile use other":       "there is no profile other: rackpower login URL --profile other",
		"profile use ../x":        "is no name of a profile",
		"profile use":             "NAME is missing",
		"status --profile other":  "there is no profile other",
		"logout --profile other":  "there is no profile other",
		"profile list everything": "unexpected operand",
	} {
		expect(t, args, f.run(args), 2, "", errs)
	}
	expect(t, "logout", f.run("logout"), 0, "profile lab is removed\n", "")
	if got := settings.CurrentProfile(); got != settings.DefaultProfile {
		t.Errorf("%s is in use after it was removed", got)
	}
	// What is in the file is no path that can be made use of.
	if err := os.WriteFile(filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "rackpower", "profile"), []byte("../../x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := settings.CurrentProfile(); got != settings.DefaultProfile {
		t.Errorf("%s is in use", got)
	}
}
