package agent

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// chronicle is what a model writes down of a history: the rules that were broken, what it
// met, and, where that is wanted, all that happened.
type chronicle struct {
	mu       sync.Mutex // of the whole model
	met      map[string]int
	breaches []string
	trace    bool
	story    []string
	began    time.Time
}

func newChronicle(trace bool) chronicle {
	return chronicle{met: map[string]int{}, trace: trace, began: time.Now()}
}

// breach notes that a rule was broken. The lock is held.
func (c *chronicle) breach(rule, format string, args ...any) {
	text := fmt.Sprintf("%s: %s", rule, fmt.Sprintf(format, args...))
	if len(c.breaches) < 5 {
		c.breaches = append(c.breaches, fmt.Sprintf("at %.3fs %s", time.Since(c.began).Seconds(), text))
	}
	c.note("BROKEN %s", text)
}

func (c *chronicle) fail(rule, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.breach(rule, format, args...)
}

func (c *chronicle) note(format string, args ...any) {
	if c.trace {
		c.story = append(c.story, fmt.Sprintf("| %9.3fs  %s", time.Since(c.began).Seconds(), strings.ReplaceAll(fmt.Sprintf(format, args...),
			"\n", "; ")))
	}
}

func (c *chronicle) tracef(format string, args ...any) {
	if c.trace {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.note(format, args...)
	}
}

func (c *chronicle) broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.breaches) > 0
}

func (c *chronicle) verdict() (broken, story string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.breaches, "\n"), strings.Join(c.story, "\n")
}

func (c *chronicle) saw(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met[what]++
}
