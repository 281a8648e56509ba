package agentd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"rackpower/central/api"
	"rackpower/cmd/daemon"
	"rackpower/power"
)

// CredentialsCredential is the name of the systemd credential that holds credentials of the
// rack's own.
const CredentialsCredential = "credentials"

// ownCredentials are credentials in a file on the rack, which central never sees. The file is
// read again when it changes; one that is no good changes nothing.
type ownCredentials struct {
	path   string
	strict bool // nobody else may read it
	logger *slog.Logger

	mu     sync.Mutex
	looked time.Time
	seen   os.FileInfo
	logins map[string]power.Login
}

// lookEvery is how often it is looked whether the file has changed.
const lookEvery = time.Second

// openCredentials reads the file; without one there are none. That others may not read it is
// checked where it is not one of the service manager's.
func openCredentials(path string, strict bool, logger *slog.Logger) (func(string) (power.Login, bool), error) {
	if path == "" {
		return nil, nil
	}
	c := &ownCredentials{path: path, strict: strict, logger: logger}
	if err := c.read(); err != nil {
		return nil, err
	}
	return c.get, nil
}

func (c *ownCredentials) get(name string) (power.Login, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) > lookEvery {
		c.looked = time.Now()
		if info, err := os.Stat(c.path); err != nil || !sameFile(c.seen, info) {
			switch err := c.read(); {
			case err != nil:
				c.logger.Error("credentials of the rack were not read again: those of before stay", "err", err)
			default:
				c.logger.Info("credentials of the rack were read again", "file", c.path, "credentials", len(c.logins))
			}
		}
	}
	login, found := c.logins[name]
	return login, found
}

func sameFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// read reads the file. What it looked like is noted even where it is no good, so that this is
// said once.
func (c *ownCredentials) read() error {
	f, err := os.Open(c.path)
	if err != nil {
		return fmt.Errorf("cannot read credentials: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("cannot read credentials: %w", err)
	}
	c.seen, c.looked = info, time.Now()
	if c.strict && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others can read or change %s (mode %04o): chmod 600 %s", c.path, info.Mode().Perm(), c.path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return fmt.Errorf("cannot read credentials: %w", err)
	}
	logins, err := parseCredentials(text, filepath.Dir(c.path))
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.logins = logins
	return nil
}

// fileCredentials is an item of the file. Secrets may be in files of their own, whose names
// are relative to it.
type fileCredentials struct {
	Name         string `yaml:"name"`
	User         string `yaml:"user"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
	KG           string `yaml:"kg"`
	KGFile       string `yaml:"kg_file"`
}

// parseCredentials reads a list of credentials in YAML. No error repeats what is in it but
// names: one of the YAML decoder would.
func parseCredentials(text []byte, dir string) (map[string]power.Login, error) {
	var list []fileCredentials
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New("want a YAML list of name, user, password or password_file, and kg or kg_file where there is a key K_g")
	}
	logins := map[string]power.Login{}
	for i, c := range list {
		login, err := c.login(dir)
		if _, twice := logins[c.Name]; err == nil && twice {
			err = errors.New("the name is given twice")
		}
		if err != nil {
			return nil, fmt.Errorf("credentials %d (%q): %w", i+1, c.Name, err)
		}
		logins[c.Name] = login
	}
	return logins, nil
}

func (c fileCredentials) login(dir string) (power.Login, error) {
	var none power.Login
	for _, s := range []struct {
		text *string
		file string
		what string
	}{{&c.Password, c.PasswordFile, "password"}, {&c.KG, c.KGFile, "kg"}} {
		switch {
		case s.file == "":
			continue
		case *s.text != "":
			return none, fmt.Errorf("%s and %s_file exclude each other", s.what, s.what)
		case !filepath.IsAbs(s.file):
			s.file = filepath.Join(dir, s.file)
		}
		text, err := daemon.SecretIn(s.file)
		if err != nil {
			return none, fmt.Errorf("%s_file: %w", s.what, err)
		}
		*s.text = text
	}
	in := api.SetCredentials{User: c.User, Password: c.Password, KG: c.KG}
	if err := errors.Join(api.CheckName(c.Name), in.Validate()); err != nil {
		return none, err
	}
	return power.Login{User: c.User, Password: power.Secret(c.Password), KG: power.Secret(c.KG)}, nil
}
