package daemon

import (
	"rackpower/gossip"
	"rackpower/internal/metrics"
)

// What a member of the gossip cluster counts, as it sees the cluster.
var (
	figures metrics.Set

	members   = figures.Gauge("rackpower_gossip_members", "Members of the cluster by status.", "status")
	recordAge = figures.Gauge("rackpower_gossip_oldest_record_age_seconds", "Age of the oldest record of an agent that is alive; 0: none.")
	received  = figures.Counter("rackpower_gossip_messages_received_total", "Messages that could be read.")
	newsCame  = figures.Counter("rackpower_gossip_messages_news_total", "Messages that said something new.")
	dropped   = figures.Counter("rackpower_gossip_dropped_total", "Messages, streams and questions that were dropped or refused, by reason.",
		"reason")
	exchanges = figures.Counter("rackpower_gossip_exchanges_total", "Exchanges of all records that this member began.")
	failed    = figures.Counter("rackpower_gossip_exchanges_failed_total", "Exchanges that failed.")
	exchanged = figures.Counter("rackpower_gossip_exchanged_bytes_total", "Bytes of exchanges, both ways.")
	mends     = figures.Counter("rackpower_gossip_mends_total", "Exchanges with members that knew other members.")
	queues    = figures.Gauge("rackpower_gossip_queue", "Messages that wait for being spread, by kind.", "kind")
	health    = figures.Gauge("rackpower_gossip_health", "How badly this member thinks that it is doing: 0 is well, 8 is bad.")
)

// GossipMetrics lists what a cluster gives.
func GossipMetrics() metrics.Set { return figures }

// Collect gives a sink the numbers of the cluster.
func (g Cluster) Collect(s metrics.Sink) {
	by := map[string]int{gossip.StatusAlive: 0, gossip.StatusFailed: 0, gossip.StatusLeft: 0}
	for _, m := range g.Cluster.Members() {
		by[m.Status]++
	}
	for status, n := range by {
		s.Value(members, float64(n), status)
	}
	oldest := 0.0
	for _, p := range g.Cluster.Peers() {
		if p.Status == gossip.StatusAlive {
			oldest = max(oldest, p.Age.Seconds())
		}
	}
	s.Value(recordAge, oldest)
	st := g.Stats()
	s.Value(received, float64(st.Received))
	s.Value(newsCame, float64(st.News))
	for reason, n := range map[string]uint64{
		"malformed": st.Malformed, "oversized": st.Oversized, "absurd": st.Absurd, "no-room": st.NoRoom,
		"foreign-key": st.ForeignKey, "plain": st.Plain, "queue-full": st.Dropped,
	} {
		s.Value(dropped, float64(n), reason)
	}
	s.Value(exchanges, float64(st.Exchanges))
	s.Value(failed, float64(st.ExchangesFailed))
	s.Value(exchanged, float64(st.ExchangeBytes))
	s.Value(mends, float64(st.Mends))
	for kind, n := range map[string]int{"event": st.EventsWaiting, "query": st.QueriesWaiting, "intent": st.IntentsWaiting} {
		s.Value(queues, float64(n), kind)
	}
	s.Value(health, float64(st.Health))
}
