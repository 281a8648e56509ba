package agentd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent"
	"rackpower/central/api"
	"rackpower/cmd/daemon"
	"rackpower/gossip"
	"rackpower/internal/backoff"
)

// gossip joins the cluster and connects the agent with it: at once, or as soon as
// central has handed out the key.
func (d *service) gossip(c *cli.Context, a *agent.Agent, central *api.Client, cfg *gossip.Config) error {
	if cfg == nil {
		return nil
	}
	cfg.Epoch, cfg.CanReach = a.JournalEpoch(), a.CanReach
	if err := d.freePort(cfg, c.IsSet("gossip")); err != nil {
		return err
	}
	switch {
	case cfg.HasKey():
	case central != nil:
		d.gossipLater(c.Context, *cfg, c.IsSet("gossip"), a, central)
		return nil
	default:
		d.logger.Info("gossip has no key, as there is no central to hand one out: only members on this machine that have none take part")
	}
	return d.joinCluster(c.Context, *cfg, a, central)
}

// freePort has gossip use a free port where the usual one is taken. One that was asked for
// has to be free.
func (d *service) freePort(cfg *gossip.Config, asked bool) error {
	err := daemon.CheckFree("gossip", cfg.Bind)
	if err != nil && !asked {
		d.logger.Warn("the usual gossip port is taken, using a free one", "address", cfg.Bind)
		cfg.Bind, err = "127.0.0.1:0", nil
	}
	return err
}

// joinCluster joins. With central the agent gets other keys from there, when it has
// none of its own and nobody wants those that it has.
func (d *service) joinCluster(ctx context.Context, cfg gossip.Config, a *agent.Agent, central *api.Client) error {
	cluster, err := gossip.New(cfg)
	if err != nil {
		return err
	}
	d.later(cluster.Close)
	a.SetGossip(cluster2agent{daemon.Cluster{Cluster: cluster}})
	d.logger.Info("gossip", "address", cluster.Addr(), "join", cfg.Join, "encrypted", len(cluster.Ring()) > 0, "rpc", cluster.RPCAddr())
	dir := filepath.Dir(cfg.KeyringFile)
	d.seedKnown(dir, cluster)
	d.beside(ctx, func(ctx context.Context) { d.keepKnown(ctx, dir, cluster) })
	if central != nil && len(cluster.Ring()) > 0 {
		d.beside(ctx, func(ctx context.Context) { d.freshKeys(ctx, cfg.Name, cluster, a.Trusts, central) })
	}
	return nil
}

// beside runs f until the end of the daemon.
func (d *service) beside(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); f(ctx) }()
	d.later(func() error { cancel(); <-ended; return nil })
}

// lonely is how long an agent is without other members before it asks central whether
// they have another key by now.
const lonely = 5 * time.Second

// freshKeys asks central for the keys whenever nobody else is there, or members with
// another key are and central is not among those with this one: the others may have
// changed the key while this agent, and those that it sees, were away.
func (d *service) freshKeys(ctx context.Context, name string, cluster *gossip.Cluster, trusts trusting, central *api.Client) {
	known := uint64(0) // refusals for another key that were looked into
	pauses := backoff.Doubling{First: lonely, Most: 5 * time.Minute}
	for wait := pauses.Next(); backoff.Sleep(ctx, wait) == nil; {
		refused := cluster.Stats().ForeignKey
		switch {
		case seesCentral(cluster):
			pauses.Reset()
			wait, known = pauses.Next(), refused
			continue
		case len(others(cluster)) > 0 && refused == known:
			continue // as long again
		}
		wait, known = pauses.Next(), refused
		keys, join, err := askKeys(ctx, name, trusts, central)
		if err != nil {
			d.logger.Debug("alone in the gossip cluster", "err", err)
			continue
		}
		changed, err := cluster.Adopt(keys)
		switch {
		case err != nil:
			d.logger.Warn("cannot take the gossip keys from central", "err", err)
		case changed:
			d.logger.Warn("central does not answer with the gossip key that was kept: using the one that it hands out", "key", keys[0].ID())
		}
		if join != "" {
			if err := cluster.Seed(join); err != nil {
				d.logger.Debug("cannot join central", "err", err)
			}
		}
	}
}

// seesCentral reports whether central is a live member.
func seesCentral(cluster *gossip.Cluster) bool {
	return slices.ContainsFunc(cluster.Members(), func(m gossip.Member) bool {
		return m.Status == gossip.StatusAlive && m.Tags["role"] == gossip.RoleCentral
	})
}

// gossipLater asks central for the cluster's key, again and again, and joins when it
// has it. The end of the daemon ends it.
func (d *service) gossipLater(ctx context.Context, cfg gossip.Config, asked bool, a *agent.Agent, central *api.Client) {
	d.beside(ctx, func(ctx context.Context) {
		d.logger.Info("gossip waits for its key, which central hands out", "central", central.Target())
		keys, join := d.enrol(ctx, cfg.Name, a.Trusts, central)
		if len(keys) == 0 {
			return
		}
		cfg.Key, cfg.OtherKeys = keys[0], keys[1:]
		if join != "" {
			cfg.Join = append(cfg.Join, join)
		}
		err := d.freePort(&cfg, asked) // it may be taken by now
		if err == nil {
			err = d.joinCluster(ctx, cfg, a, central)
		}
		if err != nil {
			d.logger.Error("cannot gossip", "err", err)
		}
	})
}

// enrol returns the cluster's keys as central hands them out, nil when ctx ends.
func (d *service) enrol(ctx context.Context, name string, trusts trusting, central *api.Client) ([]gossip.Key, string) {
	said := ""
	for pauses := (backoff.Doubling{First: 250 * time.Millisecond, Most: 15 * time.Second}); ; {
		keys, join, err := askKeys(ctx, name, trusts, central)
		if err == nil {
			return keys, join
		}
		if ctx.Err() != nil || backoff.Sleep(ctx, pauses.Next()) != nil {
			return nil, ""
		}
		if text := err.Error(); text != said {
			d.logger.Warn("no gossip yet", "err", err)
			said = text
		}
	}
}

// trusting says which centrals an agent takes keys from.
type trusting func(api.Database) bool

func askKeys(ctx context.Context, name string, trusts trusting, central *api.Client) (keys []gossip.Key, join string, err error) {
	one, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := central.Enrol(one, name)
	if err != nil {
		return nil, "", fmt.Errorf("central hands out no gossip key: %w", err)
	}
	if !trusts(got.Database) {
		return nil, "", fmt.Errorf("no gossip key is taken from central %s, which is not trusted: see rackpower local trust", got.CentralID)
	}
	for _, text := range got.Keys {
		key, err := gossip.ParseKey(text)
		if err != nil {
			return nil, "", err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, "", errors.New("central is of a version that gossips without a key: start a newer one, or give both a key")
	}
	if got.Join != "" {
		if _, err := api.GossipAddr(got.Join); err != nil {
			return nil, "", fmt.Errorf("central names %.80q to gossip at: %w", got.Join, err)
		}
	}
	return keys, got.Join, nil
}

// cluster2agent shows the cluster as the agent wants it.
type cluster2agent struct{ daemon.Cluster }

// SetNodes publishes the rack's power.
func (g cluster2agent) SetNodes(views []agent.NodeView) {
	nodes := make([]gossip.NodePower, len(views))
	for i, v := range views {
		nodes[i] = gossip.NodePower{Name: v.Name, State: v.State, Reach: v.Reach, Age: -1, Op: v.Op}
		if !v.ObservedAt.IsZero() {
			nodes[i].Age = time.Since(v.ObservedAt)
		}
	}
	g.Cluster.Cluster.SetNodes(nodes)
}
