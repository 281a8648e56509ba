package simtest

import (
	"bufio"
	"fmt"
	"strings"
	"time"
)

// Step is one line of a history: what is done, to whom, and how long after
// the line before. Its text is what it is drawn as, printed as and replayed from:
//
//	0.250s ask a3 n1 cycle if_busy=queue deadline=40s
//
// The verbs are those that the world of the history plays. Everything by chance is in the text, the
// seeds of what a loss of power leaves included.
type Step struct {
	After time.Duration
	Verb  string
	Args  []string // operands first, then key=value
}

func (s Step) String() string {
	return strings.Join(append([]string{s.After.String(), s.Verb}, s.Args...), " ")
}

// Operand is the n-th argument that is no key=value.
func (s Step) Operand(n int) string {
	for _, a := range s.Args {
		if strings.Contains(a, "=") {
			continue
		}
		if n == 0 {
			return a
		}
		n--
	}
	return ""
}

// Get is the value of a key, "" when it is not there. A bare word is its own value.
func (s Step) Get(key string) string {
	for _, a := range s.Args {
		if v, ok := strings.CutPrefix(a, key+"="); ok {
			return v
		}
		if a == key {
			return key
		}
	}
	return ""
}

// Duration is the value of a key as a duration; 0 when it is none.
func (s Step) Duration(key string) time.Duration {
	d, _ := time.ParseDuration(s.Get(key))
	return d
}

// Number is the value of a key as a number; 0 when it is none.
func (s Step) Number(key string) int {
	n := 0
	_, _ = fmt.Sscan(s.Get(key), &n)
	return n
}

// Script is a history before it is Result.
type Script []Step

func (s Script) String() string {
	var b strings.Builder
	for _, x := range s {
		fmt.Fprintln(&b, x)
	}
	return b.String()
}

// Parse reads a transcript: the lines of the script, without those that
// begin with "#" or "|" (what the history did when it was printed).
func Parse(text string) (Script, error) {
	var s Script
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == '|' {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			return nil, fmt.Errorf("cannot read line %q: want PAUSE VERB and its words", line)
		}
		after, err := time.ParseDuration(words[0])
		if err != nil {
			return nil, fmt.Errorf("cannot read line %q: %w", line, err)
		}
		s = append(s, Step{After: after, Verb: words[1], Args: words[2:]})
	}
	return s, lines.Err()
}
