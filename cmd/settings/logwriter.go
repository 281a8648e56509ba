package settings

import (
	"io"
	"sync"
	"time"
)

const (
	logPatience = time.Second
	logKept     = 4096 // lines
)

// logWriter writes each line at once, and lets nobody wait who logs when nothing is
// taken any more, as by a pager, a full pipe or a journal that is halted: a daemon does
// not stop acting because nobody reads what it says. Lines wait then, and those beyond
// a bound are dropped and counted.
type logWriter struct {
	to      io.Writer
	missing func(lines int) // says so, where they are missing
	lines   chan logLine

	mu      sync.Mutex
	stuck   bool // the last line was not taken within logPatience
	dropped int
}

type logLine struct {
	text    []byte
	written chan struct{}
}

func newLogWriter(to io.Writer, missing func(lines int)) *logWriter {
	w := &logWriter{to: to, missing: missing, lines: make(chan logLine, logKept)}
	go w.run()
	return w
}

func (w *logWriter) run() {
	for line := range w.lines {
		_, _ = w.to.Write(line.text)
		close(line.written)
		w.mu.Lock()
		n := w.dropped
		if len(w.lines) == 0 {
			w.stuck, w.dropped = false, 0
		} else {
			n = 0
		}
		w.mu.Unlock()
		if n > 0 {
			w.missing(n)
		}
	}
}

// Write takes a line. It returns when the line is written, or when it seems not to be.
func (w *logWriter) Write(p []byte) (int, error) {
	line := logLine{append([]byte(nil), p...), make(chan struct{})}
	w.mu.Lock()
	stuck := w.stuck
	select {
	case w.lines <- line:
	default:
		w.dropped++
		stuck = true
	}
	w.mu.Unlock()
	if stuck {
		return len(p), nil
	}
	timer := time.NewTimer(logPatience)
	defer timer.Stop()
	select {
	case <-line.written:
	case <-timer.C:
		w.mu.Lock()
		defer w.mu.Unlock()
		select {
		case <-line.written:
		default:
			w.stuck = true
		}
	}
	return len(p), nil
}
