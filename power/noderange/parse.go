package noderange

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxNames bounds what the patterns of an expression may expand to together.
const MaxNames = 100_000

// maxName bounds a name, in bytes.
const maxName = 253

// maxPatterns bounds the names with * or ? of an expression: each is held against every node.
const maxPatterns = 200

// SyntaxError says where an expression makes no sense and what would.
type SyntaxError struct {
	Expr string
	Pos  int // byte within Expr, from 0
	Want string
}

// Error points at the place.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("cannot read node range %q at character %d: %s", e.Expr, e.Pos+1, e.Want)
}

// Expr is a parsed expression. It may be used by many goroutines.
type Expr struct {
	root node
}

// node is one operation of an expression: it selects from a source. The set is the caller's to change.
type node interface {
	pick(s Source) (set, error)
}

type (
	union     []node // with exclusions taken out in order
	exclude   struct{ node }
	intersect []node
	everyone  struct{}
	group     struct{ key, value, text string }
	names     struct {
		text string
		list []string
	}
)

// Parse reads an expression. Errors are *SyntaxError.
func Parse(text string) (*Expr, error) {
	p := &parser{text: text}
	root, err := p.union()
	if err != nil {
		return nil, err
	}
	if p.pos < len(p.text) {
		return nil, p.fail("unexpected %q", p.text[p.pos])
	}
	return &Expr{root}, nil
}

// Expand lists the names of a pattern such as "r1n[01-03]" or "a,b", in the
// order in which they are written. It knows no nodes, and therefore no * and ?.
func Expand(pattern string) ([]string, error) {
	var all []string
	p := &parser{text: pattern}
	for {
		p.peek()
		start := p.pos
		n, err := p.name()
		if err != nil {
			return nil, err
		}
		if strings.ContainsAny(n.text, wildcards) {
			p.pos = start
			return nil, p.fail("a name is wanted, without * and ?")
		}
		all = append(all, n.list...)
		if p.peek() != ',' {
			break
		}
		p.pos++
	}
	if p.pos < len(p.text) {
		return nil, p.fail("unexpected %q", p.text[p.pos])
	}
	return all, nil
}

type parser struct {
	text  string
	pos   int
	depth int
	named int // names so far
	wild  int // those of them with * or ?
}

func (p *parser) fail(format string, args ...any) error {
	return &SyntaxError{Expr: p.text, Pos: min(p.pos, len(p.text)), Want: fmt.Sprintf(format, args...)}
}

func (p *parser) peek() byte {
	for p.pos < len(p.text) && p.text[p.pos] == ' ' {
		p.pos++
	}
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *parser) union() (node, error) {
	var u union
	for {
		// Exclusions may follow without a comma: "r1n[1-9]!r1n3".
		n, err := p.term()
		if err != nil {
			return nil, err
		}
		u = append(u, n)
		switch p.peek() {
		case ',':
			p.pos++
		case '!':
		default:
			return u, nil
		}
	}
}

func (p *parser) term() (node, error) {
	if p.peek() == '!' {
		p.pos++
		n, err := p.both()
		return exclude{n}, err
	}
	return p.both()
}

func (p *parser) both() (node, error) {
	first, err := p.atom()
	if err != nil {
		return nil, err
	}
	list := intersect{first}
	for p.peek() == '&' {
		p.pos++
		negated := p.peek() == '!'
		if negated {
			p.pos++
		}
		n, err := p.atom()
		if err != nil {
			return nil, err
		}
		if negated {
			n = union{exclude{n}}
		}
		list = append(list, n)
	}
	return list, nil
}

func (p *parser) atom() (node, error) {
	switch p.peek() {
	case 0:
		return nil, p.fail("a node name, a range, @group or all is missing")
	case '(':
		if p.depth++; p.depth > 50 {
			return nil, p.fail("too many parentheses")
		}
		p.pos++
		n, err := p.union()
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.fail("the closing ) is missing")
		}
		p.pos++
		p.depth--
		return n, nil
	case '@':
		return p.group()
	}
	n, err := p.name()
	if err == nil && len(n.list) == 1 && n.list[0] == "all" {
		return everyone{}, nil
	}
	return n, err
}

func (p *parser) group() (node, error) {
	start := p.pos
	p.pos++
	word := p.word()
	key, value, has := strings.Cut(word, ":")
	switch {
	case word == "":
		return nil, p.fail("a rack, status:NAME, state:NAME or label:KEY is missing after @")
	case !has:
		return group{key: "rack", value: word, text: p.text[start:p.pos]}, nil
	case key != "rack" && key != "status" && key != "state" && key != "label":
		p.pos = start + 1
		return nil, p.fail("unknown group %q: want @RACK, @rack:NAME, @status:NAME, @state:NAME or @label:KEY", key)
	case value == "":
		return nil, p.fail("a name is missing after @%s:", key)
	case key == "state" && !among(states, value):
		p.pos -= len(value)
		return nil, p.fail("unknown state %q: want one of %s", value, strings.Join(states, ", "))
	case key == "status" && !among(statuses, value):
		p.pos -= len(value)
		return nil, p.fail("unknown status %q: want one of %s", value, strings.Join(statuses, ", "))
	}
	if key == "label" && p.pos < len(p.text) && p.text[p.pos] == '=' {
		p.pos++
		value += "=" + p.word()
	}
	if key == "status" {
		value = strings.ReplaceAll(value, "-", "_")
	}
	return group{key: key, value: value, text: p.text[start:p.pos]}, nil
}

// The words that a group may go by, as package power spells them. A mistyped one
// is an error: excluding a status that does not exist would exclude nothing.
var (
	states   = []string{"on", "off", "unknown"}
	statuses = []string{
		"NEW", "COMMISSIONING", "FAILED_COMMISSIONING", "MISSING", "READY", "RESERVED", "ALLOCATED", "RETIRED", "BROKEN",
		"DEPLOYING", "DEPLOYED", "FAILED_DEPLOYMENT", "RELEASING", "FAILED_RELEASING", "DISK_ERASING", "FAILED_DISK_ERASING",
		"ENTERING_RESCUE_MODE", "RESCUE_MODE", "TESTING", "EXITING_RESCUE_MODE", "FAILED_ENTERING_RESCUE_MODE",
		"FAILED_EXITING_RESCUE_MODE", "FAILED_TESTING",
	}
)

// among finds a word in any case, with - for _.
func among(words []string, word string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, strings.ReplaceAll(word, "-", "_")) })
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':'
}

func (p *parser) word() string { return p.run(nameByte) }

// run reads the bytes that belong to it.
func (p *parser) run(belongs func(byte) bool) string {
	start := p.pos
	for p.pos < len(p.text) && belongs(p.text[p.pos]) {
		p.pos++
	}
	return p.text[start:p.pos]
}

// name reads one name with its brackets and expands it.
func (p *parser) name() (names, error) {
	p.peek()
	start := p.pos
	list, longest := []string{""}, 0
	for p.pos < len(p.text) {
		var parts []string
		if p.text[p.pos] == '[' {
			var err error
			if parts, err = p.brackets(); err != nil {
				return names{}, err
			}
		} else if w := p.run(func(c byte) bool { return nameByte(c) || strings.IndexByte(wildcards, c) >= 0 }); w != "" {
			parts = []string{w}
		} else {
			break
		}
		longest += len(slices.MaxFunc(parts, func(a, b string) int { return len(a) - len(b) }))
		switch {
		case longest > maxName:
			p.pos = start
			return names{}, p.fail("a name of more than %d bytes", maxName)
		case p.named+len(list)*len(parts) > MaxNames:
			p.pos = start
			return names{}, p.fail("more than %d names", MaxNames)
		}
		list = cross(list, parts)
	}
	switch {
	case p.pos == start && p.pos < len(p.text):
		return names{}, p.fail("unexpected %q", p.text[p.pos])
	case p.pos == start:
		return names{}, p.fail("a node name is missing")
	}
	p.named += len(list)
	if strings.ContainsAny(p.text[start:p.pos], wildcards) {
		if p.wild += len(list); p.wild > maxPatterns {
			p.pos = start
			return names{}, p.fail("more than %d names with * or ?", maxPatterns)
		}
	}
	return names{text: p.text[start:p.pos], list: list}, nil
}

func cross(list, parts []string) []string {
	out := make([]string, 0, len(list)*len(parts))
	for _, head := range list {
		for _, tail := range parts {
			out = append(out, head+tail)
		}
	}
	return out
}

// brackets reads "[01-40,44]".
func (p *parser) brackets() ([]string, error) {
	p.pos++
	var parts []string
	for {
		low, err := p.number()
		if err != nil {
			return nil, err
		}
		high := low
		if p.peek() == '-' {
			p.pos++
			if high, err = p.number(); err != nil {
				return nil, err
			}
		}
		if parts, err = p.numbers(parts, low, high); err != nil {
			return nil, err
		}
		switch p.peek() {
		case ',':
			p.pos++
		case ']':
			p.pos++
			return parts, nil
		default:
			return nil, p.fail("the closing ] is missing, or a comma")
		}
	}
}

func (p *parser) number() (string, error) {
	p.peek()
	start := p.pos
	for p.pos < len(p.text) && p.text[p.pos] >= '0' && p.text[p.pos] <= '9' {
		p.pos++
	}
	digits := p.text[start:p.pos]
	if digits == "" || len(digits) > 9 {
		p.pos = start
		return "", p.fail("a number of at most 9 digits is missing")
	}
	return digits, nil
}

func (p *parser) numbers(parts []string, low, high string) ([]string, error) {
	from, _ := strconv.Atoi(low)
	to, _ := strconv.Atoi(high)
	switch {
	case to < from:
		return nil, p.fail("the range %s-%s goes down", low, high)
	case len(low) > 1 && low[0] == '0' && len(high) != len(low):
		return nil, p.fail("the range %s-%s has ends of different width", low, high)
	case to-from+1+len(parts) > MaxNames:
		return nil, p.fail("more than %d names", MaxNames)
	}
	width := 0
	if low[0] == '0' {
		width = len(low)
	}
	for n := from; n <= to; n++ {
		parts = append(parts, fmt.Sprintf("%0*d", width, n))
	}
	return parts, nil
}
