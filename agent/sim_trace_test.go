package agent

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// simTrace is what a model writes down of a history: the rules that were broken, what it
// met, and, where that is wanted, all that happened.
type simTrace struct {
	mu       sync.Mutex // of the whole model
	met      map[string]int
	breaches []string
	verbose  bool
	lines    []string
	began    time.Time
}

func newSimTrace(trace bool) simTrace {
	return simTrace{met: map[string]int{}, verbose: trace, began: time.Now()}
}

// breach notes that a rule was broken. The lock is held.
func (c *simTrace) breach(rule, format string, args ...any) {
	text := fmt.Sprintf("%s: %s", rule, fmt.Sprintf(format, args...))
	if len(c.breaches) < 5 {
		c.breaches = append(c.breaches, fmt.Sprintf("at %.3fs %s", time.Since(c.began).Seconds(), text))
	}
	c.note("BROKEN %s", text)
}

func (c *simTrace) fail(rule, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.breach(rule, format, args...)
}

func (c *simTrace) note(format string, args ...any) {
	if c.verbose {
		c.lines = append(c.lines, fmt.Sprintf("| %9.3fs  %s", time.Since(c.began).Seconds(), strings.ReplaceAll(fmt.Sprintf(format, args...),
			"\n", "; ")))
	}
}

func (c *simTrace) tracef(format string, args ...any) {
	if c.verbose {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.note(format, args...)
	}
}

func (c *simTrace) broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.breaches) > 0
}

func (c *simTrace) verdict() (broken, lines string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.breaches, "\n"), strings.Join(c.lines, "\n")
}

func (c *simTrace) saw(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met[what]++
}
