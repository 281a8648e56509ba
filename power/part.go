package power

import "strings"

// twins are the ends of Keys by which one BMC is known in two protocols: whoever has it by
// one has it by the other.
const (
	twinIPMI    = ":623"
	twinRedfish = ":443"
)

// Overlap lists the Parts, beside part itself, that may be the same node by another address:
// a Redfish BMC without System is any of its Systems, and a BMC at the usual ports of IPMI
// and Redfish is one. under is what all further ones begin with; "": there are none.
//
// What stands before the part, up to a blank, is kept in all of them.
func Overlap(part string) (exact []string, under string) {
	cut := strings.LastIndexByte(part, ' ') + 1
	before, rest := part[:cut], part[cut:]
	scheme, host, _ := strings.Cut(rest, "://")
	host, inner, isInner := strings.Cut(host, "/")
	switch scheme {
	case SchemeIPMI:
		name, usual := strings.CutSuffix(host, twinIPMI)
		if isInner || !usual {
			return nil, ""
		}
		whole := before + SchemeRedfish + "://" + name + twinRedfish
		return []string{whole}, whole + "/"
	case SchemeRedfish, SchemeRedfishHTTP:
		whole := before + scheme + "://" + host
		if isInner && inner != "" {
			exact = append(exact, whole)
		} else {
			under = whole + "/"
		}
		if name, usual := strings.CutSuffix(host, twinRedfish); usual && scheme == SchemeRedfish {
			exact = append(exact, before+SchemeIPMI+"://"+name+twinIPMI)
		}
	}
	return exact, under
}

// SamePart reports whether two Parts are, or may be, one node.
func SamePart(a, b string) bool {
	if a == b {
		return true
	}
	exact, under := Overlap(a)
	for _, e := range exact {
		if e == b {
			return true
		}
	}
	return under != "" && strings.HasPrefix(b, under)
}

// Parts are Parts of BMCs that are taken, and by whom.
type Parts struct {
	by   map[string]string
	some map[string]string // by what a Part lies under: who was the first there
}

// Take takes a part. It returns who has it, or one that may be the same, "" for nobody.
func (p *Parts) Take(part, who string) (other string) {
	if p.by == nil {
		p.by, p.some = map[string]string{}, map[string]string{}
	}
	exact, under := Overlap(part)
	for _, is := range append(exact, part) {
		if other := p.by[is]; other != "" {
			return other
		}
	}
	if other := p.some[under]; under != "" && other != "" {
		return other
	}
	p.by[part] = who
	if at := strings.LastIndexByte(part, '/') + 1; p.some[part[:at]] == "" {
		p.some[part[:at]] = who
	}
	return ""
}
