package agentd

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"rackpower/gossip"
	"rackpower/internal/backoff"
)

// membersName is the file in an agent's data directory that keeps the addresses of other
// members, so that agents that all start again find each other while central is away.
const membersName = "gossip.members"

const (
	// maxKept is how many addresses are kept, maxSeeds how many of them are tried.
	maxKept  = 64
	maxSeeds = 16
	// keepEvery is the time between two looks at whether the members are others.
	keepEvery = 5 * time.Second
)

// seedKnown has the cluster join at addresses that were kept. A file that cannot be
// read is as good as none.
func (d *service) seedKnown(dir string, cluster *gossip.Cluster) {
	var addrs []string
	raw, err := os.ReadFile(filepath.Join(dir, membersName))
	if err == nil {
		err = json.Unmarshal(raw, &addrs)
	}
	if err != nil {
		d.logger.Debug("no members are known from before", "err", err)
		return
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	for _, addr := range addrs[:min(len(addrs), maxSeeds)] {
		if err := cluster.Seed(addr); err != nil {
			d.logger.Debug("cannot join a member known from before", "address", addr, "err", err)
		}
	}
}

// keepKnown keeps the addresses of the live members until ctx ends.
func (d *service) keepKnown(ctx context.Context, dir string, cluster *gossip.Cluster) {
	var kept []string
	for wait := time.Second; backoff.Sleep(ctx, wait) == nil; wait = keepEvery {
		addrs := others(cluster)
		if len(addrs) == 0 || slices.Equal(addrs, kept) {
			continue // when nobody is left, those of before are worth more
		}
		if err := writeKnown(filepath.Join(dir, membersName), addrs); err != nil {
			d.logger.Warn("cannot keep the addresses of the gossip cluster", "err", err)
			continue
		}
		kept = addrs
	}
}

// others lists the addresses of the other live members.
func others(cluster *gossip.Cluster) []string {
	var addrs []string
	for _, m := range cluster.Members() {
		addr := net.JoinHostPort(m.Addr, strconv.Itoa(m.Port))
		if m.Status == gossip.StatusAlive && addr != cluster.Addr() {
			addrs = append(addrs, addr)
		}
	}
	return addrs[:min(len(addrs), maxKept)]
}

func writeKnown(path string, addrs []string) error {
	raw, err := json.Marshal(addrs)
	if err != nil {
		return err
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, path)
}
