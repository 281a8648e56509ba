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
// nodes, and of nodes behind the BMC of one, it says what the last reading was; any
// other BMC it asks for a sign of life, which needs no password. It takes a second at
// most.
func (a *Agent) CanReach(question string) (how string, ok bool) {
	node, addr, _ := strings.Cut(question, " ")
	if _, mine := a.assigned.get(node); mine {
		return a.reached(node)
	}
	host, port, err := net.SplitHostPort(addr)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || host == "" || a.cfg.Probe == nil {
		return "", false
	}
	ep, err := power.ParseEndpoint(power.Endpoint{Scheme: "ipmi", Host: host, Port: int(n)}.String())
	if err != nil {
		return "", false
	}
	if mine := a.addresses.nodeAt(ep); mine != "" { // there is no second way to a BMC
		return a.reached(mine)
	}
	ctx, cancel := context.WithTimeout(a.ctx, reachWithin)
	defer cancel()
	began := time.Now()
	if a.cfg.Probe(ctx, ep) != nil {
		return "", false
	}
	return "it answered a probe in " + time.Since(began).Round(100*time.Microsecond).String(), true
}

// reached says what the last reading of a node of its own was.
func (a *Agent) reached(node string) (how string, ok bool) {
	r := a.readings.get(node)
	return "read " + power.Ago(time.Since(r.ObservedAt)) + " ago", r.Reach == power.ReachOK
}
