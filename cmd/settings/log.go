package settings

import (
	"io"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/term"
)

// LogFlags are the flags that Logger reads. Each call makes new ones.
func LogFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "log messages of `LEVEL` and above: debug, info, warn, error"},
		&cli.StringFlag{Name: "log-format", Value: "auto", Usage: "log `FORMAT`: text, json, or auto (text on a terminal)"},
	}
}

// Logger makes the log of a daemon on the app's ErrWriter.
func Logger(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, Usage("--log-level: unknown level %q: want debug, info, warn or error", c.String("log-level"))
	}
	text := term.Is(c.App.ErrWriter)
	switch c.String("log-format") {
	case "auto":
	case "text":
		text = true
	case "json":
		text = false
	default:
		return nil, Usage("--log-format: unknown format %q: want text, json or auto", c.String("log-format"))
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	handler := func(to io.Writer) slog.Handler {
		if text {
			return slog.NewTextHandler(to, options)
		}
		return slog.NewJSONHandler(to, options)
	}
	direct := slog.New(handler(c.App.ErrWriter))
	if _, file := c.App.ErrWriter.(*os.File); !file {
		return direct, nil
	}
	return slog.New(handler(newLogWriter(c.App.ErrWriter, func(n int) {
		direct.Warn("lines of the log are missing here: nobody took them", "lines", n)
	}))), nil
}

// readable writes durations as people do, "1.5s", in both formats: JSON would have
// nanoseconds, without a unit.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
