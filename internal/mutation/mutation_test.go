package mutation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const patch = `nobody waits
Found by: TestA|TestB

--- a/x.go
+++ b/x.go
@@ -1,2 +1,2 @@
 two
-three
+drei
@@ -9 +9,0 @@
-five
`

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestApply(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.patch"), patch)
	all, err := Read(dir)
	if err != nil || len(all) != 1 || all[0].Breaks != "nobody waits" || all[0].FoundBy != "TestA|TestB" {
		t.Fatalf("%+v, %v", all, err)
	}
	for text, want := range map[string]string{
		"one\ntwo\nthree\nfour\nfive\nsix\n":    "one\ntwo\ndrei\nfour\nsix\n",
		"two\nthree\nfive\n":                    "two\ndrei\n",
		"two\nthree\nfive\ntwo\nthree\n":        "", // which?
		"two\nfour\nfive\n":                     "", // gone
		"twenty-two\nthree\nfive\n":             "", // whole lines only
		"one\ntwo\nthree\nfour\nfive\nsix\nsix": "one\ntwo\ndrei\nfour\nsix\nsix",
	} {
		write(t, filepath.Join(dir, "x.go"), text)
		files, err := all[0].Apply(dir)
		if got := files["x.go"]; got != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for what, text := range map[string]string{
		"empty": "", "no test": strings.Replace(patch, "Found by", "By", 1), "no diff": "x\nFound by: TestA\n",
		"a strange line": patch + "*five\n",
	} {
		if m, err := parse(text); err == nil {
			t.Errorf("%s: %+v", what, m)
		}
	}
	if all, err := Read(t.TempDir()); err == nil {
		t.Errorf("an empty directory: %+v", all)
	}
}
