package agent

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"rackpower/central/api"
	"rackpower/internal/lock"
	"rackpower/power"
)

// outbox holds the latest word on every operation that central has not
// acknowledged, and remembers ended ones for a while after that. What it holds of
// accepted operations can be made again from the journal.
type outbox struct {
	keep time.Duration

	mu    lock.Mutex[lock.Outbox]
	items map[string]*outboxItem
	dirty map[string]*outboxItem // those whose word central does not have yet
	swept time.Time              // when old ones were forgotten
	rev   int64
	news  chan struct{} // closed and replaced at every change
	bell  bell

	refused []string // keys of requests that were refused, oldest first; some may be gone
	dropped int      // of those, for want of room, before central had word of them
}

// maxRefused is how many refused requests are kept for central. They are in memory only,
// and as many as somebody asks for while central is away.
const maxRefused = 10_000

type outboxItem struct {
	report api.OpReport
	first  int64 // rev of the first word on it
	rev    int64
	told   bool      // central has had a word of it
	acked  time.Time // when central had the end; zero: not yet
}

func newOutbox(keep time.Duration) *outbox {
	return &outbox{keep: keep, items: map[string]*outboxItem{}, dirty: map[string]*outboxItem{}, news: make(chan struct{}), bell: newBell()}
}

// put replaces the word on an operation. Somebody may wait for the first word and for the end.
func (o *outbox) put(r api.OpReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rev++
	key := o.key(r)
	first, told := o.rev, false
	if it := o.items[key]; it != nil {
		if it.report.End != nil && r.End == nil {
			return // an end is the last word
		}
		first, told = it.first, it.told
	}
	it := &outboxItem{report: r, first: first, rev: o.rev, told: told}
	o.items[key], o.dirty[key] = it, it
	if r.Verdict == power.VerdictRefuse {
		o.keepRefused(key)
	}
	o.bell.ring(first == o.rev || r.End != nil)
	close(o.news)
	o.news = make(chan struct{})
}

// keepRefused makes room for a refusal: the oldest goes.
func (o *outbox) keepRefused(key string) {
	o.refused = append(o.refused, key)
	if len(o.refused) <= maxRefused {
		return
	}
	oldest := o.refused[0]
	o.refused = o.refused[1:]
	if it := o.items[oldest]; it != nil && oldest != key && it.report.Verdict == power.VerdictRefuse {
		if it.acked.IsZero() {
			o.dropped++
		}
		delete(o.items, oldest)
		delete(o.dirty, oldest)
	}
}

// lost is how many refusals central was not told of since it was asked last.
func (o *outbox) lost() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, o.dropped = o.dropped, 0
	return n
}

// key is where the word on an operation is kept: at its id, and, where a request is
// refused because its id is another operation's, beside that.
func (o *outbox) key(r api.OpReport) string {
	if it := o.items[r.Op.ID]; it != nil && !it.report.Op.Is(r.Op) && r.Verdict == power.VerdictRefuse {
		return r.Op.ID + " " + string(r.Op.Action) + " " + r.Op.Node
	}
	return r.Op.ID
}

// overrule replaces the end of an operation by the one that central has.
func (o *outbox) overrule(r api.OpReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if it := o.items[r.Op.ID]; it != nil {
		o.rev++
		it.report, it.rev = r, o.rev
		close(o.news)
		o.news = make(chan struct{})
	}
}

// again marks the word on an operation as unsent: central asks. It reports false
// when there is no word on it here.
func (o *outbox) again(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	it := o.items[id]
	if it == nil {
		return false
	}
	o.dirty[id] = it
	o.bell.ring(true)
	close(o.news)
	o.news = make(chan struct{})
	return true
}

// setAside counts a word as sent that central refuses. A newer one, or another session,
// is sent all the same.
func (o *outbox) setAside(r api.OpReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if it := o.items[o.key(r)]; it != nil && it.report.LSN == r.LSN && it.report.Phase == r.Phase {
		delete(o.dirty, o.key(r))
	}
}

// unack takes back what acked returned: the journal still holds those ends, so
// they are reported, and taken out of it, once more.
func (o *outbox) unack(ended []api.OpReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range ended {
		if it := o.items[o.key(r)]; it != nil {
			o.dirty[o.key(r)], it.acked = it, time.Time{}
		}
	}
}

// allAgain marks all that central has not acknowledged the end of: a new session.
func (o *outbox) allAgain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, it := range o.items {
		if it.acked.IsZero() {
			o.dirty[key], it.told = it, false
		}
	}
}

func (o *outbox) find(id string) (api.OpReport, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	it, ok := o.items[id]
	if !ok {
		return api.OpReport{}, false
	}
	return it.report, true
}

// take returns up to limit unsent words, in the order of their sequences. Where there are more,
// those that somebody may wait for come first: the first word of an operation, then the last.
func (o *outbox) take(limit int) []api.OpReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	items := slices.Collect(maps.Values(o.dirty))
	if len(items) > limit {
		slices.SortFunc(items, func(a, b *outboxItem) int {
			return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.report.Op.Seq, b.report.Op.Seq))
		})
		items = items[:limit]
	}
	list := make([]api.OpReport, len(items))
	for i, it := range items {
		list[i] = it.report
	}
	sortReports(list)
	return list
}

// rank is how soon a word is told where not all can be.
func (it *outboxItem) rank() int {
	switch {
	case !it.told:
		return 0
	case it.report.End != nil:
		return 1
	default:
		return 2
	}
}

// acked notes that central has these words and returns those that were the end of
// an operation and had not been acknowledged before.
func (o *outbox) acked(sent []api.OpReport, now time.Time) (ended []api.OpReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range sent {
		it := o.items[o.key(r)]
		if it == nil {
			continue
		}
		it.told = true
		if it.report.LSN == r.LSN && it.report.Phase == r.Phase {
			delete(o.dirty, o.key(r))
		}
		if r.End != nil && it.acked.IsZero() {
			it.acked = now
			ended = append(ended, r)
		}
	}
	if now.Sub(o.swept) >= sweepEvery {
		o.sweep(now)
	}
	return ended
}

// sweepEvery is how often what was kept for long enough is looked for.
const sweepEvery = time.Minute

// sweep forgets ends that central has had for long enough.
func (o *outbox) sweep(now time.Time) {
	o.swept = now
	for key, it := range o.items {
		if !it.acked.IsZero() && o.dirty[key] == nil && now.Sub(it.acked) > o.keep {
			delete(o.items, key)
		}
	}
}

// unacknowledged lists the ids of all operations whose end central does not have.
func (o *outbox) unacknowledged() []string {
	ids := []string{}
	for _, r := range o.outstanding() {
		ids = append(ids, r.ID)
	}
	return ids
}

// outstanding names all operations whose end central does not have, by id.
func (o *outbox) outstanding() []api.OpRef {
	o.mu.Lock()
	defer o.mu.Unlock()
	refs := []api.OpRef{}
	for _, it := range o.items {
		if it.acked.IsZero() {
			refs = append(refs, api.OpRef{ID: it.report.Op.ID, Node: it.report.Op.Node, Action: it.report.Op.Action})
		}
	}
	slices.SortFunc(refs, func(a, b api.OpRef) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Node, b.Node)) })
	return refs
}

// running are the operations that have not ended, by node: the one that runs, and those
// that wait behind it. A lane has the same list, and is locked while the journal flushes.
func (o *outbox) running() map[string][]api.OpReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	var items []*outboxItem
	for _, it := range o.items {
		if r := it.report; r.End == nil && r.Joined == "" {
			items = append(items, it)
		}
	}
	slices.SortFunc(items, func(a, b *outboxItem) int { return cmp.Compare(a.first, b.first) })
	byNode := map[string][]api.OpReport{}
	for _, it := range items {
		byNode[it.report.Op.Node] = append(byNode[it.report.Op.Node], it.report)
	}
	return byNode
}

// after returns what changed after rev and a channel that is closed by the next
// change. A rev that is not reached yet is one of before the last start.
func (o *outbox) after(rev int64) (list []api.OpReport, now int64, news <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if rev > o.rev {
		rev = 0
	}
	for _, it := range o.items {
		if it.rev > rev {
			list = append(list, it.report)
		}
	}
	sortReports(list)
	return list, o.rev, o.news
}

// changed returns a channel that is closed by the next change.
func (o *outbox) changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.news
}

func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, it := range o.items {
		if it.acked.IsZero() {
			n++
		}
	}
	return n
}

func sortReports(list []api.OpReport) {
	slices.SortFunc(list, func(a, b api.OpReport) int {
		return cmp.Or(cmp.Compare(a.Op.Seq, b.Op.Seq), cmp.Compare(a.Op.ID, b.Op.ID))
	})
}
