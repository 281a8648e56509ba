package gossip

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"time"
)

// The frames of an exchange. Numbers are unsigned varints, sums 8 bytes, marks 4,
// big endian.
//
//	hello:   1 | flags | sum | members | member sum
//	same:    2 | members | member sum
//	digest:  3 | members | member sum | count | brief ...
//	delta:   4 | flags | item ...
//
//	brief:   bytes of the agent's name shared with the one before | length of the rest | rest
//	         | epoch | since | list mark | flags | parts | per part: seq - since + 1, 0: not here
//	         | mark | held in seconds | status | status age in seconds
//	item:    held in milliseconds | length | message
//
// The caller sends hello. When the sum of its table is that of the called one, and
// it did not ask for everything (flag 1), the answer is same; else it is a digest,
// the caller sends its own digest and the delta, and gets one. A delta has flag 1
// when it was cut off at maxDelta; the called one's has flag 2 when it learned.
const (
	frameHello  = 1
	frameSame   = 2
	frameDigest = 3
	frameDelta  = 4

	flagFull   = 1 // hello: skip the sum
	flagMore   = 1 // delta: there is more
	flagTaught = 2 // delta of the called one: what the caller sent was news
	flagNamed  = 1 // brief: the names are here

	// maxDelta bounds what one exchange carries in one direction, in bytes.
	maxDelta = 256 << 10
	maxHeld  = 1 << 22 // seconds, 48 days
	maxSeq   = 1 << 56
)

// crowd says in short who is alive in the eyes of a member.
type crowd struct {
	alive int
	sum   uint64
}

// brief says in short what is known of one agent.
type brief struct {
	agent        string
	epoch, since uint64
	list         uint32 // of the digest of the names: differs after two runs with one epoch only
	named        bool
	seqs         []uint64 // per part; 0: not here
	mark         uint32   // of the bytes of all parts
	held         time.Duration
	// What the agent is as a member. Hearsay for those who joined after it was gone.
	status    byte // index in briefStatuses
	statusAge time.Duration
}

var briefStatuses = []string{StatusUnknown, StatusAlive, StatusLeaving, StatusLeft, StatusFailed}

// item is a message on its way, with the time since its agent sent it.
type item struct {
	held time.Duration
	data []byte
}

// brief makes the brief of an agent's newest record.
func (e *entry) brief(agent string, now time.Time) brief {
	r := e.newest
	b := brief{
		agent: agent, epoch: r.epoch, since: r.since, list: fold(r.digest), named: e.named(r) != nil,
		seqs: make([]uint64, partsOf(r.total)), held: max(now.Sub(r.latest()), 0),
	}
	sum := uint64(0)
	for i, p := range r.parts {
		b.seqs[i] = p.seq
		sum += p.mark // the order of the map must not matter
	}
	b.mark = fold(sum)
	return b
}

func fold(sum uint64) uint32 { return uint32(sum) ^ uint32(sum>>32) }

// partsOf is the number of parts of a record.
func partsOf(total int) int { return max(1, (total+partSize-1)/partSize) }

// briefs lists the briefs of all agents, sorted by name.
func (t *table) briefs(now time.Time) []brief {
	all := make([]brief, 0, len(t.agents))
	for name, e := range t.agents {
		if e.newest != nil {
			all = append(all, e.brief(name, now))
		}
	}
	slices.SortFunc(all, func(a, b brief) int { return cmp.Compare(a.agent, b.agent) })
	return all
}

// sumOf is equal for two tables that show the same, but for ages.
func sumOf(all []brief) uint64 {
	h := fnv.New64a()
	for _, b := range all {
		status := briefStatuses[b.status]
		b.held, b.status, b.statusAge = 0, 0, 0
		if status == StatusFailed || status == StatusLeft {
			b.status = 1 // a member that does not know that it is gone has something to hear
		}
		h.Write(b.encode(nil, ""))
	}
	return h.Sum64()
}

// delta lists what another table lacks whose brief of the same agent is theirs;
// nil: it does not know the agent.
func (e *entry) delta(mine brief, theirs *brief, now time.Time) []item {
	r := e.newest
	whole, names := true, mine.named
	switch {
	case theirs == nil || theirs.before(mine):
	case mine.before(*theirs):
		return nil
	default:
		whole = mine.list != theirs.list || mine.mark != theirs.mark && slices.Equal(mine.seqs, theirs.seqs)
		names = mine.named && (!theirs.named || whole)
	}
	var items []item
	for i := range mine.seqs {
		p, ok := r.parts[i]
		if ok && (whole || i >= len(theirs.seqs) || p.seq > theirs.seqs[i]) {
			items = append(items, item{max(now.Sub(p.at), 0), p.bytes})
		}
	}
	if names {
		for _, m := range nameMessages(mine.agent, e.named(r), r.digest) {
			items = append(items, item{0, m.encode()})
		}
	}
	return items
}

// before orders the runs of one agent.
func (b brief) before(c brief) bool {
	return b.epoch < c.epoch || b.epoch == c.epoch && b.since < c.since
}

// lacking lists what theirs lacks of this table, and whether that was cut off. The
// agents come in random order, so that all get through in time when it was.
func (t *table) lacking(theirs []brief, now time.Time) (items []item, more bool) {
	known := make(map[string]*brief, len(theirs))
	for i := range theirs {
		known[theirs[i].agent] = &theirs[i]
	}
	size := 0
	for name, e := range t.agents { // in random order
		if e.newest == nil {
			continue
		}
		for _, it := range e.delta(e.brief(name, now), known[name], now) {
			if size += len(it.data) + 8; size > maxDelta {
				return items, true
			}
			items = append(items, it)
		}
	}
	return items, false
}

func (b brief) encode(to []byte, prev string) []byte {
	to = appendName(to, prev, b.agent)
	to = binary.AppendUvarint(to, b.epoch)
	to = binary.AppendUvarint(to, b.since)
	to = binary.BigEndian.AppendUint32(to, b.list)
	flags := byte(0)
	if b.named {
		flags |= flagNamed
	}
	to = binary.AppendUvarint(append(to, flags), uint64(len(b.seqs)))
	for _, seq := range b.seqs {
		if seq > 0 {
			seq = seq - b.since + 1
		}
		to = binary.AppendUvarint(to, seq)
	}
	to = binary.BigEndian.AppendUint32(to, b.mark)
	to = binary.AppendUvarint(to, seconds(b.held))
	return binary.AppendUvarint(append(to, b.status), seconds(b.statusAge))
}

func seconds(d time.Duration) uint64 { return min(uint64(max(d, 0)/time.Second), maxHeld) }

func (c crowd) encode(to []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.AppendUvarint(to, uint64(c.alive)), c.sum)
}

func encodeHello(full bool, sum uint64, c crowd) []byte {
	frame := []byte{frameHello, 0}
	if full {
		frame[1] = flagFull
	}
	return c.encode(binary.BigEndian.AppendUint64(frame, sum))
}

func encodeSame(c crowd) []byte { return c.encode([]byte{frameSame}) }

func encodeDigest(c crowd, all []brief) []byte {
	frame := binary.AppendUvarint(c.encode([]byte{frameDigest}), uint64(len(all)))
	prev := ""
	for _, b := range all {
		frame = b.encode(frame, prev)
		prev = b.agent
	}
	return frame
}

func encodeDelta(items []item, more, taught bool) []byte {
	frame := []byte{frameDelta, 0}
	if more {
		frame[1] |= flagMore
	}
	if taught {
		frame[1] |= flagTaught
	}
	for _, it := range items {
		frame = binary.AppendUvarint(frame, min(uint64(max(it.held, 0)/time.Millisecond), maxHeld*1000))
		frame = append(binary.AppendUvarint(frame, uint64(len(it.data))), it.data...)
	}
	return frame
}

// frame is a decoded frame.
type frame struct {
	kind   byte
	full   bool
	more   bool
	taught bool
	sum    uint64
	crowd  crowd
	briefs []brief
	items  []item
}

// decodeFrame reads a frame. What it returns without error may be acted on; the
// messages of items are still to be decoded.
func decodeFrame(data []byte) (frame, error) {
	r := reader{rest: data}
	f := frame{kind: r.byte()}
	switch f.kind {
	case frameHello:
		f.full = r.byte()&flagFull != 0
		f.sum, f.crowd = r.fixed64(), r.crowd()
	case frameSame:
		f.crowd = r.crowd()
	case frameDigest:
		f.crowd = r.crowd()
		f.briefs = r.briefs()
	case frameDelta:
		flags := r.byte()
		f.more, f.taught = flags&flagMore != 0, flags&flagTaught != 0
		f.items = r.items()
	default:
		r.fail()
	}
	if len(r.rest) > 0 {
		r.fail()
	}
	if r.err != nil {
		return frame{}, fmt.Errorf("%w: frame of kind %d", errFrame, f.kind)
	}
	return f, nil
}

func (r *reader) crowd() crowd { return crowd{int(r.number(1 << 20)), r.fixed64()} }

func (r *reader) briefs() []brief {
	count := int(r.number(maxAgents))
	var all []brief
	prev := ""
	for i := 0; i < count && r.err == nil; i++ {
		b := r.brief(prev)
		if b.agent <= prev {
			r.fail()
		}
		all, prev = append(all, b), b.agent
	}
	return all
}

func (r *reader) brief(prev string) brief {
	b := brief{agent: r.shared(prev, maxMember)}
	b.epoch, b.since = r.number(1<<63), r.number(maxSeq)
	b.list = r.fixed32()
	b.named = r.byte()&flagNamed != 0
	parts := int(r.number(uint64(partsOf(maxNodes))))
	for i := 0; i < parts && r.err == nil; i++ {
		seq := r.number(maxSeq)
		if seq > 0 {
			seq += b.since - 1
		}
		b.seqs = append(b.seqs, seq)
	}
	b.mark = r.fixed32()
	b.held = time.Duration(r.number(maxHeld)) * time.Second
	if b.status = r.byte(); int(b.status) >= len(briefStatuses) {
		r.fail()
	}
	b.statusAge = time.Duration(r.number(maxHeld)) * time.Second
	return b
}

func (r *reader) items() []item {
	var all []item
	for len(r.rest) > 0 && r.err == nil {
		held := time.Duration(r.number(maxHeld*1000)) * time.Millisecond
		if data := r.text(maxPayload); r.err == nil {
			all = append(all, item{held, []byte(data)})
		}
	}
	return all
}
