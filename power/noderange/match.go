package noderange

import "strings"

// wildcards stand for other characters in a name: * for any number of them, ? for one.
const wildcards = "*?"

// match adds the nodes whose names are as the pattern says, and reports whether there are any.
func match(s Source, pattern string, out set) (found bool, err error) {
	candidates, err := s.Prefixed(pattern[:strings.IndexAny(pattern, wildcards)])
	least := len(pattern) - strings.Count(pattern, "*") // that a name has to have
	for _, name := range candidates {
		if len(name) >= least && matches(pattern, name) {
			out[name], found = true, true
		}
	}
	return found, err
}

// matches holds a name against a pattern. Only the last * is ever tried again with more
// characters, so that it takes no longer than the product of both lengths.
func matches(pattern, name string) bool {
	star, from := -1, 0 // the last *, and what follows the characters that it stands for
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
