package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"sync/atomic"
)

// bridge carries the lines that Serf and memberlist log into slog: what they call
// a warning or an error is a warning here, as nothing they meet ends the daemon;
// all else is for debugging.
type bridge struct {
	logger   *slog.Logger
	warnings *atomic.Uint64
}

func newBridge(logger *slog.Logger, warnings *atomic.Uint64) *log.Logger {
	return log.New(&bridge{logger: logger, warnings: warnings}, "", 0)
}

// Write takes one line, "[WARN] serf: ...".
func (b *bridge) Write(line []byte) (int, error) {
	level, text := slog.LevelDebug, string(bytes.TrimSpace(line))
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if tag, rest, ok := strings.Cut(rest, "] "); ok {
			text = rest
			if strings.HasPrefix(tag, "WARN") || strings.HasPrefix(tag, "ERR") {
				level = slog.LevelWarn
				b.warnings.Add(1)
			}
		}
	}
	b.logger.Log(context.Background(), level, text)
	return len(line), nil
}
