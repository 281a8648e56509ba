package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/gossip"
)

// secretReader reads passwords and keys: from files, from stdin, from the terminal.
type secretReader struct {
	ctx    context.Context
	in     io.Reader // stdin
	person bool      // somebody is there to be asked
	printer.Printer
}

// readSecrets is the reader of a command.
func readSecrets(c *cli.Context, p printer.Printer) secretReader {
	return secretReader{ctx: c.Context, in: c.App.Reader, person: asks(c), Printer: p}
}

// password reads a password from the first line of a file, of stdin, or from a
// person.
func (r secretReader) password(file string) (string, error) {
	return r.secret(file, "the password", "BMC password: ")
}

// secret is password of another secret; prompt is for a person.
func (r secretReader) secret(file, what, prompt string) (string, error) {
	var line string
	switch {
	case file != "-":
		return r.inFile(file, what)
	case r.person:
		var err error
		if line, err = r.typed(what, prompt); err != nil {
			return "", err
		}
	default:
		var err error
		if line, err = firstLine(r.in); err != nil {
			return "", settings.Exit(settings.ExitUsage, "cannot read %s: %v", what, err)
		}
	}
	return line, notEmpty(line, file, what)
}

// secretIn reads the first line of a file; what it holds is said where that fails.
func (r secretReader) inFile(file, what string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", settings.Exit(settings.ExitUsage, "cannot read %s: %v", what, err)
	}
	defer f.Close()
	r.warnReadable(f, what)
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

// typed asks a person, without echo. The terminal echoes again afterwards, interrupted or
// not.
func (r secretReader) typed(what, prompt string) (string, error) {
	read, restore := term.ReadPassword()
	defer restore()
	fmt.Fprint(r.Err, prompt)
	defer fmt.Fprintln(r.Err)
	text, err := typed(r.ctx, read)
	switch {
	case err == nil:
		return text, nil
	case interrupted(r.ctx, err):
		return "", settings.Exit(settings.ExitFailed, "interrupted")
	default:
		return "", settings.Exit(settings.ExitUsage, "cannot read %s: %v", what, err)
	}
}

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimRight(line, "\r\n"), "\uFEFF"), nil // editors put a mark in front
}

// warnReadable says that others on this machine can read a file with a secret.
func (r secretReader) warnReadable(f *os.File, what string) {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o044 != 0 {
		r.Warn("warning: %s holds %s and others can read it (mode %04o): chmod 600 %s", f.Name(), what, info.Mode().Perm(), f.Name())
	}
}

// gossipKey reads a key from a file, or from stdin.
func (r secretReader) gossipKey(file string) (string, error) {
	text, err := "", error(nil)
	if file == "-" {
		text, err = firstLine(r.in)
	} else if text, err = r.inFile(file, "the key"); err != nil {
		return "", err
	}
	if err != nil {
		return "", settings.Exit(settings.ExitUsage, "cannot read the key: %v", err)
	}
	if _, err := gossip.ParseKey(text); err != nil {
		return "", settings.Usage("%v", err)
	}
	return text, nil
}
