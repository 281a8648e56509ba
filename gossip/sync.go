package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"
)

// protocolTag is the tag by which members know who takes part in exchanges; its
// value is the version of their format.
const (
	protocolTag     = "rp"
	protocolVersion = "1"
)

const (
	// quickPace is the gap between two exchanges of a member that is behind, and
	// quickEach what each member adds to it.
	quickPace = 250 * time.Millisecond
	quickEach = 2 * time.Millisecond
	// exchangeWithin bounds an exchange, dialWithin its begin.
	exchangeWithin = 5 * time.Second
	dialWithin     = 2 * time.Second
	// maxExchanges is how many exchanges others may have with this member at once.
	maxExchanges = 16
	// hearsayNewer is how much later a failure must lie than the one that is known to be
	// another one: ages travel in whole seconds, and what is heard is told on.
	hearsayNewer = 10 * time.Second
	// calmAfter is the number of exchanges in a row without news after which a member
	// that was behind is so no more.
	calmAfter = 3
	// apartLimit is the number of exchanges in a row that found another set of
	// members, beyond which that is no reason to hurry any more.
	apartLimit = 40
	// mendEvery is the least time between two exchanges of all that Serf knows which
	// are made because two members see different sets of members.
	mendEvery = 2 * time.Second
)

// syncLoop compares this table with that of a random member: every cfg.Sync at
// rest, every quickPace while this member knows that it lacks something, or that
// it has something that others lack.
func (c *Cluster) syncLoop() {
	last, spread := time.Time{}, 1.0
	for {
		timer := time.NewTimer(time.Until(last.Add(time.Duration(spread * float64(c.gap())))))
		select {
		case <-c.ctx.Done():
			timer.Stop()
			return
		case <-c.nudged:
			timer.Stop()
			continue
		case <-timer.C:
		}
		if c.hurry(c.behind.Swap(false)) {
			c.behind.Store(true)
		}
		c.keepHouse()
		last, spread = time.Now(), 0.75+rand.Float64()/2
	}
}

// hurry makes an exchange and says whether another should follow soon. Who was
// behind rests after some that taught nothing: the other may lack the same.
func (c *Cluster) hurry(behind bool) bool {
	c.flurry.Store(0)
	if !behind {
		c.calm = calmAfter
	} else if c.calm >= calmAfter {
		c.calm = 0
	}
	if c.exchange() {
		c.calm = 0
		return true
	}
	c.calm++
	return behind && c.calm < calmAfter
}

// gap is the time between two exchanges.
func (c *Cluster) gap() time.Duration {
	if !c.behind.Load() || c.cfg.tuning.noSync {
		return c.cfg.Sync
	}
	return min(c.cfg.Sync, quickPace+time.Duration(c.serf.NumNodes())*quickEach)
}

// nudge asks for an exchange soon.
func (c *Cluster) nudge() {
	if !c.behind.Swap(true) {
		signal(c.nudged)
	}
}

// exchange makes one exchange with a random member that is alive, and says whether
// another should follow soon.
func (c *Cluster) exchange() (again bool) {
	peer, ok := c.anyPeer()
	if !ok || c.cfg.tuning.noSync {
		return false
	}
	key := c.primary()
	got, err := c.exchangeWith(peer.hostPort(), c.fresh)
	if err != nil {
		c.exchangesFailed.Add(1)
		c.log.Debug("exchange failed", "member", peer.Name, "err", err)
		c.missed++
		return c.missed < 5 // the next one is another member
	}
	c.exchanges.Add(1)
	c.missed, c.fresh = 0, false
	if bytes.Equal(key, c.primary()) { // it was this one that the other accepted
		c.forgetStale()
	}
	return c.compare(peer, got.crowd) || got.again
}

// compare holds the peer's set of members against the own one. When they differ
// twice in a row, the two are made to exchange all that Serf knows: a member whose
// coming was told in a lost packet would else be missed for a long time.
func (c *Cluster) compare(peer Member, theirs crowd) (apart bool) {
	if theirs == c.crowd() {
		c.apart = 0
		return false
	}
	c.apart++
	if c.apart >= 2 && time.Since(c.mended) > mendEvery {
		c.mended = time.Now()
		c.mends.Add(1)
		if _, err := c.serf.Join([]string{peer.hostPort()}, false); err != nil {
			c.log.Debug("cannot compare members", "member", peer.Name, "err", err)
		}
	}
	return c.apart < apartLimit
}

// anyPeer picks a live member that takes part in exchanges.
func (c *Cluster) anyPeer() (Member, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.live.peers) == 0 {
		return Member{}, false
	}
	return c.live.peers[rand.IntN(len(c.live.peers))], true
}

func (c *Cluster) crowd() crowd {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live.crowd
}

// live is what standing says about the members that are alive.
type live struct {
	crowd crowd
	peers []Member // that take part in exchanges, without this one
}

// census counts the members that are alive. The caller holds mu.
func (c *Cluster) census() {
	var names []string
	c.live.peers = nil
	for name, s := range c.standing {
		if s.status != StatusAlive {
			continue
		}
		names = append(names, name)
		if name != c.cfg.Name && s.member.Tags[protocolTag] != "" {
			c.live.peers = append(c.live.peers, s.member)
		}
	}
	slices.Sort(names)
	c.live.crowd = crowd{len(names), digestOf(names)}
}

// outcome is what an exchange came to.
type outcome struct {
	crowd crowd // of the other one
	again bool  // one of the two learned something, or there is more
}

// exchangeWith makes an exchange with the member at the address. full: compare
// even when the sums are equal.
func (c *Cluster) exchangeWith(addr string, full bool) (outcome, error) {
	conn, err := c.transport.DialTimeout(addr, dialWithin)
	if err != nil {
		return outcome{}, err
	}
	defer c.bound(conn)()
	briefs := c.briefs()
	ch, err := call(conn, c.primary(), encodeHello(full, sumOf(briefs), c.crowd()))
	if err != nil {
		return outcome{}, err
	}
	defer func() { c.exchangeBytes.Add(uint64(ch.bytes)) }()
	f, err := expect(ch, frameSame, frameDigest)
	if err != nil || f.kind == frameSame {
		return outcome{crowd: f.crowd}, err
	}
	items, more := c.lacking(f.briefs)
	if err := ch.send(encodeDigest(c.crowd(), briefs)); err != nil {
		return outcome{}, err
	}
	if err := ch.send(encodeDelta(items, more, false)); err != nil {
		return outcome{}, err
	}
	delta, err := expect(ch, frameDelta)
	if err != nil {
		return outcome{}, err
	}
	learned := c.learn(delta.items)
	c.hear(f.briefs)
	return outcome{crowd: f.crowd, again: learned || more || delta.more || delta.taught}, nil
}

// serve answers an exchange and closes the stream.
func (c *Cluster) serve(conn net.Conn) {
	defer c.bound(conn)()
	select {
	case c.room <- struct{}{}:
		defer func() { <-c.room }()
	default:
		c.streamsFull.Add(1)
		conn.Write(append([]byte(exchangeMagic), statusBusy))
		return
	}
	select {
	case <-c.ready:
	case <-c.ctx.Done():
		return
	}
	if err := c.answer(conn); err != nil {
		c.exchangesFailed.Add(1)
		c.log.Debug("exchange failed", "from", conn.RemoteAddr().String(), "err", err)
		if errors.Is(err, ErrForeignKey) || errors.Is(err, ErrPlain) {
			c.turnAway(conn.RemoteAddr().String(), err)
		}
	}
}

func (c *Cluster) answer(conn net.Conn) error {
	keys := c.keys()
	if len(keys) == 0 && !isLoopback(conn.RemoteAddr()) {
		return errors.New("a plain exchange from beyond the loopback")
	}
	ch, first, err := answer(conn, keys)
	if err != nil {
		return err
	}
	defer func() { c.exchangeBytes.Add(uint64(ch.bytes)) }()
	hello, err := decodeFrame(first)
	if err != nil || hello.kind != frameHello {
		c.malformed.Add(1)
		return errFrame
	}
	briefs := c.briefs()
	if !hello.full && hello.sum == sumOf(briefs) {
		return ch.send(encodeSame(c.crowd()))
	}
	if err := ch.send(encodeDigest(c.crowd(), briefs)); err != nil {
		return err
	}
	theirs, err := expect(ch, frameDigest)
	if err != nil {
		return err
	}
	delta, err := expect(ch, frameDelta)
	if err != nil {
		return err
	}
	items, more := c.lacking(theirs.briefs) // before learning: not back what came
	taught := c.learn(delta.items)
	c.hear(theirs.briefs)
	if taught || more || delta.more {
		c.nudge()
	}
	return ch.send(encodeDelta(items, more, taught))
}

// expect receives a frame of one of the kinds.
func expect(ch *channel, kinds ...byte) (frame, error) {
	raw, err := ch.receive()
	if err != nil {
		return frame{}, err
	}
	f, err := decodeFrame(raw)
	if err == nil && !slices.Contains(kinds, f.kind) {
		err = fmt.Errorf("%w: frame of kind %d", errFrame, f.kind)
	}
	return f, err
}

// bound limits a stream to exchangeWithin and to the life of the cluster; the
// returned function closes it.
func (c *Cluster) bound(conn net.Conn) func() {
	conn.SetDeadline(time.Now().Add(exchangeWithin))
	stop := context.AfterFunc(c.ctx, func() { conn.Close() })
	return func() { stop(); conn.Close() }
}

func isLoopback(addr net.Addr) bool {
	host, _, err := net.SplitHostPort(addr.String())
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// briefs lists what is known in short, with what the agents are as members.
func (c *Cluster) briefs() []brief {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.table.briefs(now)
	for i := range all {
		s, ok := c.standing[all[i].agent]
		if !ok {
			s = c.hearsay[all[i].agent]
		}
		all[i].status = byte(max(0, slices.Index(briefStatuses, s.status)))
		if all[i].status > 0 {
			all[i].statusAge = max(now.Sub(s.since), 0)
		}
	}
	return all
}

func (c *Cluster) lacking(theirs []brief) ([]item, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table.lacking(theirs, time.Now())
}

// hear takes from another member's briefs, once its records are here, how old they
// are, and when agents failed or left that are no members here.
func (c *Cluster) hear(theirs []brief) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range theirs {
		if b.agent == c.cfg.Name {
			continue
		}
		c.table.date(b, now)
		status, since := briefStatuses[b.status], now.Add(-b.statusAge)
		_, member := c.standing[b.agent]
		known, ok := c.hearsay[b.agent]
		gone := status == StatusFailed || status == StatusLeft
		// That it left it said itself; that it failed is what others made of its silence.
		said := status == StatusLeft && known.status == StatusFailed && since.After(known.since.Add(-hearsayNewer))
		if !member && gone && c.table.agents[b.agent] != nil && (!ok || said || since.After(known.since.Add(hearsayNewer))) {
			s := standing{status: status, since: since}
			c.hearsay[b.agent] = s
			c.tellOf(s.heard(b.agent, now))
		}
	}
}

// learn merges what came and says whether it changes what is shown.
func (c *Cluster) learn(items []item) bool {
	now, learned := time.Now(), false
	for _, it := range items {
		learned = c.receive(it.data, now.Add(-it.held)) == news || learned
	}
	return learned
}

// keepHouse forgets, now and then, agents that are gone for longer than Serf keeps
// its tombstones, and tells of new keys.
func (c *Cluster) keepHouse() {
	c.watchKeys()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table.expire(now, c.cfg.tuning.tombstone, func(agent string) bool {
		_, member := c.standing[agent]
		return agent == c.cfg.Name || member // Serf says when it forgets it
	})
	for name := range c.hearsay {
		if c.table.agents[name] == nil {
			delete(c.hearsay, name)
		}
	}
}
