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
	usage := "`TEXT` for the audit trail"
	if required {
		usage += " and for whoever wonders"
	}
	return &cli.StringFlag{Name: "reason", Usage: usage, Required: required}
}

func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask, however many nodes it concerns"}
}

// lastingFlag is how long something is to last; until says what ends it otherwise.
func lastingFlag(name, until string) cli.Flag {
	return &cli.DurationFlag{Name: name, Usage: "let it end by itself after this `LONG` (90m, 2h)", DefaultText: until}
}

// reason is what --reason says, where one is wanted.
func (s *session) reason() (string, error) {
	text := strings.TrimSpace(s.c.String("reason"))
	if text == "" {
		return "", settings.Usage("--reason is empty: others will want to know why")
	}
	return text, nil
}

// lasting is the duration of a lastingFlag, 0 when it has none.
func (s *session) lasting(flag string) (time.Duration, error) {
	d := s.c.Duration(flag)
	if s.c.IsSet(flag) && d <= 0 {
		return 0, settings.Usage("--%s: %s is no time; leave it out for no end", flag, d)
	}
	return d, nil
}
