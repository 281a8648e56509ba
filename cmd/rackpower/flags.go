package main

import (
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/settings"
)

// Flags that many commands have. Each call makes new ones: the library writes into
// them.

func reasonFlag(required bool) cli.Flag {
	return &cli.StringFlag{Name: "reason", Usage: "`TEXT` for the audit trail", Required: required}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask for confirmation"}
}

// lastingFlag is how long something is to last; until says what ends it otherwise.
func lastingFlag(name, until string) cli.Flag {
	return &cli.DurationFlag{Name: name, Usage: "end it after `DURATION`, such as 90m or 2h", DefaultText: until}
}

// reason is what --reason says, where one is wanted.
func (s *session) reason() (string, error) {
	text := strings.TrimSpace(s.c.String("reason"))
	if text == "" {
		return "", settings.Usage("--reason is empty")
	}
	return text, nil
}

// lasting is the duration of a lastingFlag, 0 when it has none.
func (s *session) lasting(flag string) (time.Duration, error) {
	d := s.c.Duration(flag)
	if s.c.IsSet(flag) && d <= 0 {
		return 0, settings.Usage("--%s: %s is not longer than 0; leave the flag out for no end", flag, d)
	}
	return d, nil
}
