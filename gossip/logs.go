package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"regexp"
	"strings"
	"sync"
)

// bridge carries the lines that Serf and memberlist log into slog: what they call
// a warning or an error is a warning here, as nothing they meet ends the daemon;
// all else is for debugging.
type bridge struct{ c *Cluster }

func newBridge(c *Cluster) *log.Logger { return log.New(&bridge{c}, "", 0) }

// Lines by which memberlist says that it could not open what came. It has no other
// way to say so; a test fails when the words change.
var (
	foreignLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)no installed keys could decrypt the message.* from=(\S+)`)
	})
	plainLine = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`(?i)(?:remote state is not encrypted|remote state is encrypted|unsupported encryption version|` +
			`too small to decrypt).* from=(\S+)`)
	})
)

// Write takes one line, "[WARN] serf: ...".
func (b *bridge) Write(line []byte) (int, error) {
	level, text := slog.LevelDebug, string(bytes.TrimSpace(line))
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if tag, rest, ok := strings.Cut(rest, "] "); ok {
			text = rest
			if strings.HasPrefix(tag, "WARN") || strings.HasPrefix(tag, "ERR") {
				level = slog.LevelWarn
			}
		}
	}
	if level == slog.LevelWarn {
		b.c.warnings.Add(1)
		if b.refused(text) {
			level = slog.LevelDebug // it is said once a minute
		}
	}
	b.c.log.Log(context.Background(), level, text)
	return len(line), nil
}

// refused recognises what could not be decrypted.
func (b *bridge) refused(text string) bool {
	if m := foreignLine().FindStringSubmatch(text); m != nil {
		b.c.turnAway(m[1], ErrForeignKey)
		return true
	}
	if m := plainLine().FindStringSubmatch(text); m != nil {
		b.c.turnAway(m[1], ErrPlain)
		return true
	}
	return false
}
