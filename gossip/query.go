package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/serf/serf"

	"rackpower/power"
)

const (
	// whoQuery asks "can you reach the BMC of this node?".
	whoQuery = "rp-who"
	// pingQuery is what every member of a Serf cluster acknowledges by itself.
	pingQuery = serf.InternalQueryPrefix + "ping"
	// askWithin is how long answers are waited for when ctx has no earlier end.
	askWithin = 3 * time.Second
	// maxReach bounds the text of an answer, in bytes, maxQuestion that of a question:
	// a node's name, and the address of its BMC.
	maxReach    = 64
	maxQuestion = 2*maxName + 7
	// maxQuestions is how many questions may wait for Config.CanReach; more are
	// dropped and counted.
	maxQuestions = 64

	answerNo  = 0
	answerYes = 1
)

// ErrNoMember says that no member of that name is known.
var ErrNoMember = errors.New("no such member")

// Ping asks one member for a sign of life by a gossip query and returns the time
// until it came. The request travels by gossip, so that among many members the
// time is some gossip intervals, not that of a packet. It ends with ctx, else after
// 3 s; a member that is known to have failed or left is not asked.
func (c *Cluster) Ping(ctx context.Context, name string) (time.Duration, error) {
	m, ok := c.member(name)
	if !ok {
		return 0, fmt.Errorf("cannot ping %s: %w", name, ErrNoMember)
	}
	if m.Status == StatusFailed || m.Status == StatusLeft {
		return 0, fmt.Errorf("cannot ping %s: it %s %s ago", name, m.Status, power.Ago(m.StatusAge))
	}
	began := time.Now()
	resp, err := c.serf.Query(pingQuery, nil, &serf.QueryParam{
		FilterNodes: []string{name}, RequestAck: true, RelayFactor: 1, Timeout: within(ctx),
	})
	if err != nil {
		return 0, fmt.Errorf("cannot ping %s: %w", name, err)
	}
	defer resp.Close()
	for {
		select {
		case from, open := <-resp.AckCh():
			if !open {
				return 0, fmt.Errorf("%s did not answer within %v", name, time.Since(began).Round(100*time.Millisecond))
			}
			if from == name {
				return time.Since(began), nil
			}
		case <-ctx.Done():
			return 0, fmt.Errorf("cannot ping %s: %w", name, context.Cause(ctx))
		case <-c.ctx.Done():
			return 0, fmt.Errorf("cannot ping %s: gossip has ended", name)
		}
	}
}

// Reachable is what an agent answered about a node's BMC.
type Reachable struct {
	Agent string
	Reach string // as its CanReach said
	Took  time.Duration
}

// Whose says who owns a node and who can reach its BMC.
type Whose struct {
	Node string
	// Owners are the agents whose newest records have the node, best first: alive
	// before gone, then the record that came last. Their Nodes hold this node only.
	Owners []Peer
	// Reach lists the agents that said that they can reach the BMC, by name.
	Reach []Reachable
	// Asked is how many agents were asked, Answered how many answered at all.
	Asked, Answered int
}

// Who asks all live agents who can reach the BMC of a node, and looks the owner up
// in the records. It returns when all have answered, when ctx ends or after 4.5 s;
// that some are silent is no error. Agents whose package is older do not answer.
// addr, where it is not empty, is the BMC's address: it travels with the question,
// behind a space, for agents that do not have the node.
func (c *Cluster) Who(ctx context.Context, node, addr string) (Whose, error) {
	w := Whose{Node: node, Owners: c.owners(node)}
	question := node
	if addr != "" {
		question += " " + addr
	}
	if len(question) > maxQuestion || !readable(question) {
		return w, fmt.Errorf("cannot ask for node %q: no such name or address is possible", node)
	}
	silent := map[string]bool{}
	for _, m := range c.Members() {
		if m.Status == StatusAlive && m.Tags[protocolTag] != "" {
			silent[m.Name] = true
		}
	}
	w.Asked = len(silent)
	began := time.Now()
	for range whoTries {
		if err := c.askWho(ctx, question, silent, began, &w); err != nil {
			return w.sorted(), err
		}
		if len(silent) == 0 || ctx.Err() != nil {
			break
		}
	}
	return w.sorted(), nil
}

const (
	// whoTries is how often the question who can reach a BMC is sent to those that are
	// silent: each may lose its packets.
	whoTries = 3
	// maxFiltered is how many members a question names at most that is for them alone.
	maxFiltered = 16
)

// askWho asks the silent members once, and takes those off that answer.
func (c *Cluster) askWho(ctx context.Context, question string, silent map[string]bool, began time.Time, w *Whose) error {
	param := &serf.QueryParam{RelayFactor: 1, Timeout: within(ctx) / 2}
	if len(silent) <= maxFiltered {
		param.FilterNodes = slices.Collect(maps.Keys(silent))
	}
	resp, err := c.serf.Query(whoQuery, []byte(question), param)
	if err != nil {
		return fmt.Errorf("cannot ask who can reach %s: %w", w.Node, err)
	}
	defer resp.Close()
	for len(silent) > 0 {
		select {
		case r, open := <-resp.ResponseCh():
			if !open {
				return nil
			}
			if silent[r.From] {
				delete(silent, r.From)
				w.take(r, time.Since(began))
			}
		case <-ctx.Done():
			return nil
		case <-c.ctx.Done():
			return errors.New("gossip has ended")
		}
	}
	return nil
}

func (w *Whose) take(r serf.NodeResponse, took time.Duration) {
	if len(r.Payload) == 0 || len(r.Payload) > 1+maxReach {
		return
	}
	w.Answered++
	if reach := string(r.Payload[1:]); r.Payload[0] == answerYes && readable(reach) {
		w.Reach = append(w.Reach, Reachable{Agent: r.From, Reach: reach, Took: took})
	}
}

func (w Whose) sorted() Whose {
	slices.SortFunc(w.Reach, func(a, b Reachable) int { return cmp.Compare(a.Agent, b.Agent) })
	return w
}

// owners lists the agents that have the node.
func (c *Cluster) owners(node string) []Peer {
	var found []Peer
	for _, p := range c.Peers() {
		i, ok := slices.BinarySearchFunc(p.Nodes, node, func(n NodePower, name string) int { return cmp.Compare(n.Name, name) })
		if ok {
			p.Nodes = p.Nodes[i : i+1 : i+1]
			found = append(found, p)
		}
	}
	slices.SortStableFunc(found, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(gone(a.Status), gone(b.Status)), cmp.Compare(a.Age, b.Age))
	})
	return found
}

func gone(status string) int {
	if status == StatusAlive {
		return 0
	}
	return 1
}

func within(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(max(time.Until(end), time.Millisecond), askWithin)
	}
	return askWithin
}

// ask queues a question of another member for the goroutine that may wait for
// CanReach.
func (c *Cluster) ask(q *serf.Query) {
	if q.Name != whoQuery || len(q.Payload) > maxQuestion || !readable(string(q.Payload)) {
		return
	}
	select {
	case c.questions <- q:
	default:
		c.questionsDropped.Add(1)
	}
}

// answerQuestions answers until the cluster is closed.
func (c *Cluster) answerQuestions() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case q := <-c.questions:
			if err := q.Respond(c.reach(string(q.Payload))); err != nil {
				c.log.Debug("cannot answer", "query", q.Name, "err", err)
			}
		}
	}
}

func (c *Cluster) reach(node string) []byte {
	if c.cfg.CanReach == nil {
		return []byte{answerNo}
	}
	reach, ok := c.cfg.CanReach(node)
	if !ok || !readable(reach) || len(reach) > maxReach {
		return []byte{answerNo}
	}
	return append([]byte{answerYes}, reach...)
}
