package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"rackpower/internal/backoff"
)

const (
	maxRetry = 10 * time.Second // between two tries to join
	// lookupWithin bounds the resolving of a name.
	lookupWithin = 5 * time.Second
)

// maxSeeds bounds the addresses to join that are remembered beside those of the
// configuration: of more, the one that was named longest ago is forgotten.
const maxSeeds = 512

// seed is an address to join.
type seed struct {
	answered bool
	named    time.Time // zero: by the configuration
}

// Join asks the members at the addresses ("host:port") for their cluster, now, and
// returns nil when at least one answered. The addresses are remembered: those that
// did not answer are tried again in the background, all of them whenever no other
// member is alive.
func (c *Cluster) Join(addrs ...string) error {
	if err := c.Seed(addrs...); err != nil || len(addrs) == 0 {
		return err
	}
	return c.try(addrs)
}

// Seed is Join that does not wait: the addresses are tried in the background. It
// may be called again and again with the same ones.
func (c *Cluster) Seed(addrs ...string) error {
	for _, addr := range addrs {
		if err := c.joinable(addr); err != nil {
			return err
		}
	}
	c.mu.Lock()
	for _, addr := range addrs {
		c.remember(addr)
	}
	c.mu.Unlock()
	signal(c.wake)
	return nil
}

// remember takes an address up, or as one that has to be tried again. The caller holds
// Cluster.mu.
func (c *Cluster) remember(addr string) {
	s, known := c.seeds[addr]
	s.answered = s.answered && c.memberAt(addr)
	if !known || !s.named.IsZero() {
		s.named = time.Now()
	}
	c.seeds[addr] = s
	oldest, named := "", 0
	for a, s := range c.seeds {
		if s.named.IsZero() {
			continue
		}
		named++
		if oldest == "" || s.named.Before(c.seeds[oldest].named) {
			oldest = a
		}
	}
	if named > maxSeeds {
		delete(c.seeds, oldest)
	}
}

// try joins at each address and notes which answered.
func (c *Cluster) try(addrs []string) error {
	var failed error
	joined := 0
	for _, addr := range addrs {
		if c.ctx.Err() != nil {
			return errors.New("cannot join: gossip has ended")
		}
		if err := c.reachable(addr); err != nil {
			failed = err
			continue
		}
		if _, err := c.serf.Join([]string{addr}, true); err != nil { // old events: exchanges bring what is new
			failed = c.refusal(addr, err)
			continue
		}
		joined++
		c.mu.Lock()
		if s, ok := c.seeds[addr]; ok {
			s.answered = true
			c.seeds[addr] = s
		}
		c.mu.Unlock()
	}
	if joined == 0 && failed != nil {
		return fmt.Errorf("cannot join the gossip cluster: nobody answered at %v: %w", addrs, failed)
	}
	return nil
}

// refusal finds out whether a member at the address turned this one away, of which
// Serf only sees a closed stream: an exchange says why.
func (c *Cluster) refusal(addr string, failed error) error {
	_, err := c.exchangeWith(addr, false)
	if errors.Is(err, ErrForeignKey) || errors.Is(err, ErrPlain) {
		c.turnAway(addr, err)
		return fmt.Errorf("refused: %s %w", addr, err)
	}
	return failed
}

// due lists the addresses to try: those that never answered, and all when nobody
// else is there.
func (c *Cluster) due() []string {
	alone := c.alone()
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	for addr, s := range c.seeds {
		if addr != c.addr && (alone || !s.answered && !c.memberAt(addr)) {
			addrs = append(addrs, addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// joinLoop tries what is due, with growing waits while nothing answers.
func (c *Cluster) joinLoop() {
	retry := backoff.Doubling{First: c.cfg.tuning.retry, Most: maxRetry}
	for {
		if addrs := c.due(); len(addrs) > 0 {
			if err := c.try(addrs); err != nil {
				c.log.Debug("join", "err", err)
			} else {
				retry.Reset()
			}
		}
		wait := retry.Next()
		timer := time.NewTimer(wait + rand.N(wait/2))
		select {
		case <-c.ctx.Done():
			timer.Stop()
			return
		case <-c.wake:
			retry.Reset()
		case <-timer.C:
		}
		timer.Stop()
	}
}

// errUnknownName is why a name could not be looked up: that may change.
var errUnknownName = errors.New("its name is not known")

// joinable refuses addresses that unencrypted gossip must not reach. A name that
// cannot be looked up now is let through: the names may come back, and each try
// looks again.
func (c *Cluster) joinable(addr string) error {
	err := c.reachable(addr)
	if errors.Is(err, errUnknownName) {
		c.cfg.Logger.Warn("cannot look up a member to join, trying again later", "address", addr)
		return nil
	}
	return err
}

// reachable is joinable at this moment.
func (c *Cluster) reachable(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("cannot join %q: want HOST:PORT", addr)
	}
	if c.ring != nil || host == "localhost" {
		return nil
	}
	ip, err := resolve(host)
	if err != nil {
		return fmt.Errorf("cannot join %q: %w", addr, errUnknownName)
	}
	if !ip.IsLoopback() {
		return fmt.Errorf("joining %s is refused: gossip would leave this machine unencrypted; give a gossip key", addr)
	}
	return nil
}
