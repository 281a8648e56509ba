package agent

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"rackpower/power"
)

// reachWithin bounds the look at a BMC that another member asks for.
const reachWithin = time.Second

// CanReach answers another member's question whether this agent can reach the BMC of
// a node: "NODE", or "NODE HOST:PORT" where the asker knows the address. Of its own
// nodes it says what the last reading was; the BMC of another's node it asks for a
// sign of life, which needs no password. It takes a second at most.
func (a *Agent) CanReach(question string) (how string, ok bool) {
	node, addr, _ := strings.Cut(question, " ")
	if _, mine := a.assigned.get(node); mine {
		r := a.readings.get(node)
		return "read " + power.Ago(time.Since(r.ObservedAt)) + " ago", r.Reach == power.ReachOK
	}
	host, port, err := net.SplitHostPort(addr)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || host == "" || a.cfg.Probe == nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(a.ctx, reachWithin)
	defer cancel()
	began := time.Now()
	if a.cfg.Probe(ctx, power.Endpoint{Scheme: "ipmi", Host: host, Port: int(n)}) != nil {
		return "", false
	}
	return "it answered a probe in " + time.Since(began).Round(100*time.Microsecond).String(), true
}
