package simtest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"rackpower/journal/faultfs"
)

// Trace is what a model writes down of a history: the rules that were broken, what it
// met, and, where that is wanted, all that happened.
type Trace struct {
	mu       sync.Mutex // of the whole model
	met      map[string]int
	breaches []string
	verbose  bool
	lines    []string
	began    time.Time
}

func newTrace(verbose bool) Trace {
	return Trace{met: map[string]int{}, verbose: verbose, began: time.Now()}
}

// breach notes that a rule was broken. The lock is held.
func (c *Trace) breach(rule, format string, args ...any) {
	text := fmt.Sprintf("%s: %s", rule, fmt.Sprintf(format, args...))
	if len(c.breaches) < 5 {
		c.breaches = append(c.breaches, fmt.Sprintf("at %.3fs %s", time.Since(c.began).Seconds(), text))
	}
	c.note("BROKEN %s", text)
}

// Fail notes that a rule was broken.
func (c *Trace) Fail(rule, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.breach(rule, format, args...)
}

func (c *Trace) note(format string, args ...any) {
	if c.verbose {
		c.lines = append(c.lines, fmt.Sprintf("| %9.3fs  %s", time.Since(c.began).Seconds(), strings.ReplaceAll(fmt.Sprintf(format, args...),
			"\n", "; ")))
	}
}

// Tracef writes a line into the trace.
func (c *Trace) Tracef(format string, args ...any) {
	if c.verbose {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.note(format, args...)
	}
}

// Broken reports whether a rule was broken.
func (c *Trace) Broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.breaches) > 0
}

// Result is what became of the history.
func (c *Trace) Result(fatal []faultfs.Call) Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Result{
		Broken: strings.Join(c.breaches, "\n"), Trace: strings.Join(c.lines, "\n"), Fatal: fatal, Met: c.met,
	}
}

// Saw counts something that was met.
func (c *Trace) Saw(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met[what]++
}
