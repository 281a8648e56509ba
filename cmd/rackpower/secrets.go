package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"rackpower/cmd/settings"
	"rackpower/cmd/term"
)

// password reads a password from the first line of a file, of stdin, or from a
// person.
func (s *session) password(file string) (string, error) {
	var line string
	switch {
	case file != "-":
		return s.secretIn(file, "the password")
	case asks(s.c):
		var err error
		if line, err = s.typedPassword(); err != nil {
			return "", s.explain(err)
		}
	default:
		var err error
		if line, err = firstLine(s.c.App.Reader); err != nil {
			return "", settings.Exit(settings.ExitUsage, "cannot read the password: %v", err)
		}
	}
	return line, notEmpty(line, file, "the password")
}

// secretIn reads the first line of a file; what it holds is said where that fails.
func (s *session) secretIn(file, what string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", settings.Exit(settings.ExitUsage, "cannot read %s: %v", what, err)
	}
	defer f.Close()
	s.warnReadable(f, what)
	line, err := firstLine(f)
	if err != nil {
		return "", settings.Exit(settings.ExitUsage, "cannot read %s: %v", what, err)
	}
	return line, notEmpty(line, file, what)
}

func notEmpty(secret, file, what string) error {
	if secret == "" {
		return settings.Exit(settings.ExitUsage, "%s in %s is empty", what, file)
	}
	return nil
}

// typedPassword asks a person, without echo. The terminal echoes again afterwards,
// interrupted or not.
func (s *session) typedPassword() (string, error) {
	read, restore := term.ReadPassword()
	defer restore()
	fmt.Fprint(s.err, "BMC password: ")
	defer fmt.Fprintln(s.err)
	text, err := typed(s.ctx, read)
	if err != nil && !s.interrupted(err) {
		err = settings.Exit(settings.ExitUsage, "cannot read the password: %v", err)
	}
	return text, err
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimRight(line, "\r\n"), "\uFEFF"), nil // editors put a mark in front
}

// warnReadable says that others on this machine can read a file with a secret.
func (s *session) warnReadable(f *os.File, what string) {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 {
		s.warn("warning: %s holds %s and others can read it (mode %04o): chmod 600 %s", f.Name(), what, info.Mode().Perm(), f.Name())
	}
}
