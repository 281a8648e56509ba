package agentd

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

func TestTheFileOfCredentials(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "own.yaml")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "pw"), []byte("from-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := "- {name: lab, user: admin, password_file: pw}\n- {name: other, user: root, password: 12345, kg: key}\n"
	for _, c := range []struct {
		text string
		mode os.FileMode
		says string // "": it is good
	}{
		{good, 0o600, ""},
		{good, 0o400, ""},
		{"", 0o600, ""},
		{good, 0o640, "others can read or change"},
		{good, 0o602, "others can read or change"},
		{"- {name: lab, user: admin}\n", 0o600, `"lab"): the password is missing`},
		{"- {name: lab, password: secret}\n", 0o600, "the user is missing"},
		{"- {name: 'a b', user: admin, password: secret}\n", 0o600, "name"},
		{"- {name: lab, user: admin, password: secret, password_file: pw}\n", 0o600, "exclude each other"},
		{"- {name: lab, user: admin, password_file: none}\n", 0o600, "password_file"},
		{good + good, 0o600, "given twice"},
		{"- {name: lab, user: admin, passwort: secret}\n", 0o600, "want a YAML list"},
		{"lab: secret\n", 0o600, "want a YAML list"},
		{"secret: [", 0o600, "want a YAML list"},
		{"- {name: lab, user: admin, password: " + strings.Repeat("secret", 60) + "}\n", 0o600, "longer than"},
	} {
		write(c.text, c.mode)
		get, err := openCredentials(path, true, slog.New(slog.DiscardHandler))
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q %o: %v, want %q", c.text, c.mode, err, c.says)
		}
		if err != nil || c.text != good {
			continue
		}
		lab, _ := get("lab")
		other, _ := get("other")
		if _, found := get("none"); found || lab != (power.Login{User: "admin", Password: "from-a-file"}) ||
			other != (power.Login{User: "root", Password: "12345", KG: "key"}) {
			t.Errorf("%v, %v", lab.User, other.User)
		}
	}
	if _, err := openCredentials(filepath.Join(dir, "none"), true, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file that is not there was read")
	}
	if get, err := openCredentials("", true, nil); get != nil || err != nil {
		t.Errorf("%v", err)
	}
}

// TestTheFileOfCredentialsIsReadAgain: what is good is taken; what is not leaves what was.
func TestTheFileOfCredentialsIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.yaml")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("- {name: lab, user: admin, password: one}\n")
	c := &ownCredentials{path: path, strict: true, logger: slog.New(slog.DiscardHandler)}
	if err := c.read(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ text, want string }{
		{"- {name: lab, user: admin, password: two-2}\n", "two-2"},
		{"- {name: lab, user: admin, password: }\n", "two-2"},
		{"- {name: lab, user: admin, password: three}\n", "three"},
	} {
		write(step.text)
		c.looked = time.Time{}
		if login, _ := c.get("lab"); string(login.Password) != step.want {
			t.Errorf("%q: another password than %q", step.text, step.want)
		}
	}
}
