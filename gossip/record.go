package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"rackpower/power"
)

// The messages, one user event each. All numbers are unsigned varints but the
// digest, which is 8 bytes, big endian.
//
//	+---+------+-------+-------+-------+--------+-------+- - - - -
//	| 1 | kind | len   | agent | total | digest | body
//	+---+------+-------+-------+-------+--------+-------+- - - - -
//
//	kind 1, power:  epoch | since | seq | part | cell ...
//	kind 2, names:  first | count | name ...
//
//	cell:  op<<5 | reach<<2 | state  (1 byte)   age in seconds + 1, 0: never read
//	name:  bytes shared with the name before | length of the rest | rest
//
// total is the number of nodes of the agent, digest that of their sorted names. A
// power message holds the cells [part*partSize, (part+1)*partSize) of them, a
// names message the names from first on.
const (
	formatVersion = 1
	kindPower     = 1
	kindNames     = 2

	partSize   = 200  // cells in a power message
	maxNodes   = 5000 // of one agent
	namesBytes = 800  // from which on a names message is full
	// maxPayload keeps a message within one packet (1,400 bytes) with all that Serf,
	// encryption and memberlist put around it.
	maxPayload = 1250
	maxAge     = 1<<21 - 2 // seconds, 24 days: 3 bytes
)

// Reasons for which a message is dropped.
var (
	errMalformed = errors.New("malformed record")
	errOversized = errors.New("oversized record")
)

// version says which list of nodes a power message speaks of: the run of the
// agent, and the sequence from which on the list holds.
type version struct{ epoch, since, digest uint64 }

func (v version) less(w version) bool {
	switch {
	case v.epoch != w.epoch:
		return v.epoch < w.epoch
	case v.since != w.since:
		return v.since < w.since
	default:
		return v.digest < w.digest // only after two runs with one epoch
	}
}

// cell is one node in a power message.
type cell struct {
	code byte
	age  uint64 // seconds + 1, 0: never read
}

// message is one decoded user event.
type message struct {
	kind   byte
	agent  string
	total  int
	digest uint64
	// of power
	epoch, since, seq uint64
	part              int
	cells             []cell
	// of names
	first int
	names []string
}

func (m message) version() version { return version{m.epoch, m.since, m.digest} }

func (m message) encode() []byte {
	b := []byte{formatVersion, m.kind}
	b = appendText(b, m.agent)
	b = binary.AppendUvarint(b, uint64(m.total))
	b = binary.BigEndian.AppendUint64(b, m.digest)
	if m.kind == kindNames {
		b = binary.AppendUvarint(b, uint64(m.first))
		b = binary.AppendUvarint(b, uint64(len(m.names)))
		prev := ""
		for _, name := range m.names {
			b = appendName(b, prev, name)
			prev = name
		}
		return b
	}
	for _, x := range []uint64{m.epoch, m.since, m.seq, uint64(m.part)} {
		b = binary.AppendUvarint(b, x)
	}
	for _, c := range m.cells {
		b = binary.AppendUvarint(append(b, c.code), c.age)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendName(b []byte, prev, name string) []byte {
	shared := 0
	for shared < min(len(prev), len(name)) && prev[shared] == name[shared] {
		shared++
	}
	return appendText(binary.AppendUvarint(b, uint64(shared)), name[shared:])
}

// decode reads a message. Whatever it returns without error may be merged and
// encoded again.
func decode(data []byte) (message, error) {
	if len(data) > maxPayload {
		return message{}, errOversized
	}
	r := reader{rest: data}
	if v := r.byte(); v != formatVersion && r.err == nil {
		return message{}, fmt.Errorf("%w: format %d, want %d", errMalformed, v, formatVersion)
	}
	m := message{kind: r.byte(), agent: r.text(maxMember), total: int(r.number(maxNodes)), digest: r.fixed64()}
	switch {
	case r.err == nil && !readable(m.agent):
		r.fail()
	case m.kind == kindPower:
		r.power(&m)
	case m.kind == kindNames:
		r.names(&m)
	default:
		r.fail()
	}
	if len(r.rest) > 0 {
		r.fail()
	}
	if r.err != nil {
		return message{}, r.err
	}
	return m, nil
}

// reader takes a message apart; after the first error it yields zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = errMalformed
	}
	r.rest = nil
}

func (r *reader) byte() byte {
	if len(r.rest) < 1 {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// number reads a varint of at most limit.
func (r *reader) number(limit uint64) uint64 {
	x, n := binary.Uvarint(r.rest)
	if n <= 0 || x > limit {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return x
}

func (r *reader) fixed64() uint64 {
	if len(r.rest) < 8 {
		r.fail()
		return 0
	}
	x := binary.BigEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return x
}

func (r *reader) fixed32() uint32 {
	if len(r.rest) < 4 {
		r.fail()
		return 0
	}
	x := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	return x
}

// shared reads a name that begins like the one before.
func (r *reader) shared(prev string, limit int) string {
	n := int(r.number(uint64(limit)))
	tail := r.text(uint64(limit))
	if n > len(prev) || n+len(tail) > limit {
		r.fail()
		return ""
	}
	return prev[:n] + tail
}

// readable reports whether a name may be shown: UTF-8 without control characters,
// not empty.
func readable(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

func (r *reader) text(limit uint64) string {
	n := int(r.number(limit))
	if n > len(r.rest) {
		r.fail()
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) power(m *message) {
	m.epoch, m.since, m.seq = r.number(1<<63), r.number(maxSeq), r.number(maxSeq)
	m.part = int(r.number(maxNodes))
	size := partLen(m.total, m.part)
	if r.err == nil && (m.since > m.seq || size < 0) {
		r.fail()
	}
	for i := 0; i < size && r.err == nil; i++ {
		c := cell{code: r.byte(), age: r.number(maxAge + 1)}
		if _, ok := c.open(); !ok {
			r.fail()
		}
		m.cells = append(m.cells, c)
	}
}

// partLen is the number of cells in a part, negative when there is no such part.
// An agent without nodes has one empty part.
func partLen(total, part int) int {
	if total == 0 && part == 0 {
		return 0
	}
	if part*partSize >= total {
		return -1
	}
	return min(partSize, total-part*partSize)
}

func (r *reader) names(m *message) {
	m.first = int(r.number(maxNodes))
	count := int(r.number(maxNodes))
	if r.err == nil && (count == 0 || m.first+count > m.total) {
		r.fail()
	}
	prev := ""
	for i := 0; i < count && r.err == nil; i++ {
		name := r.shared(prev, maxName)
		if name <= prev || !readable(name) { // sorted, unique, not empty
			r.fail()
			return
		}
		m.names, prev = append(m.names, name), name
	}
}

// The numbers of states, reaches and actions in a cell. They are for ever. A cap has none: the
// eight that there is room for are taken, and it leaves the power, of which cells speak, as it is.
var (
	cellStates  = []power.State{power.Unknown, power.Off, power.On}
	cellReaches = []power.Reach{
		power.ReachNever, power.ReachOK, power.ReachUnreachable, power.ReachAuthFailed, power.ReachUnsupported, power.ReachUnconfigured,
		power.ReachBusy, power.ReachPrivilege,
	}
	cellOps = []power.Action{"", power.ActOn, power.ActOff, power.ActSoftOff, power.ActCycle, power.ActReset, power.ActDiag, power.ActBMCReset}
)

// seal makes the cell of a node; a word that has no number counts as unknown.
func seal(n NodePower) cell {
	c := cell{code: index(cellOps, n.Op)<<5 | index(cellReaches, n.Reach)<<2 | index(cellStates, n.State)}
	if n.Age >= 0 {
		c.age = min(uint64(n.Age/time.Second), maxAge) + 1
	}
	return c
}

// open is the inverse of seal, but for the name.
func (c cell) open() (NodePower, bool) {
	state, reach, op := int(c.code&3), int(c.code>>2&7), int(c.code>>5)
	if state >= len(cellStates) || reach >= len(cellReaches) {
		return NodePower{}, false
	}
	n := NodePower{State: cellStates[state], Reach: cellReaches[reach], Op: cellOps[op], Age: -1}
	if c.age > 0 {
		n.Age = time.Duration(c.age-1) * time.Second
	}
	return n, true
}

func index[T comparable](list []T, x T) byte {
	for i, y := range list {
		if x == y {
			return byte(i)
		}
	}
	return 0
}

// digestOf is the digest of a sorted list of names.
func digestOf(names []string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(strings.Join(names, "\x00")))
	return h.Sum64()
}

// nameMessages cuts a list of names into messages.
func nameMessages(agent string, names []string, digest uint64) []message {
	var all []message
	for first := 0; first < len(names); {
		m := message{kind: kindNames, agent: agent, total: len(names), digest: digest, first: first}
		size, prev := 0, ""
		for _, name := range names[first:] {
			if size > namesBytes {
				break
			}
			size += len(appendName(nil, prev, name))
			m.names, prev = append(m.names, name), name
		}
		all, first = append(all, m), first+len(m.names)
	}
	return all
}
