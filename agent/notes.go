package agent

import (
	"encoding/json"
	"slices"
	"strings"

	"rackpower/internal/lock"
	"rackpower/journal"
	"rackpower/power"
)

// bmcNotes keep what drivers must know after a crash, in the log of the assignment. It is
// power.Notes.
type bmcNotes struct {
	log appender

	mu lock.Mutex[lock.Notes]
	of map[string][]byte // by Endpoint.Key
}

const notePrefix = "note/"

// loadNotes takes the notes of before the start. Those of BMCs that no node has any more go.
func loadNotes(log appender, live []journal.Record, used map[string]bool) (*bmcNotes, error) {
	n := &bmcNotes{log: log, of: map[string][]byte{}}
	var gone []journal.Entry
	for _, r := range live {
		bmc, is := strings.CutPrefix(r.Key, notePrefix)
		switch {
		case r.Kind != kindNote || !is:
		case used[bmc]:
			n.of[bmc] = slices.Clone(r.Payload)
		default:
			gone = append(gone, entry(journal.Drop, kindNote, r.Key, nil))
		}
	}
	if len(gone) > 0 {
		if _, err := log.Append(gone...); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Note implements power.Notes.
func (n *bmcNotes) Note(bmc string) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.of[bmc]
}

// Keep implements power.Notes. A note that the log does not take holds until the agent ends.
func (n *bmcNotes) Keep(bmc string, note []byte) error {
	n.mu.Lock()
	was := n.of[bmc]
	if len(note) == 0 {
		delete(n.of, bmc)
	} else {
		n.of[bmc] = note
	}
	n.mu.Unlock()
	switch {
	case string(was) == string(note):
		return nil
	case len(note) == 0:
		_, err := n.log.Append(entry(journal.Drop, kindNote, notePrefix+bmc, nil))
		return err
	}
	_, err := n.log.Append(entry(journal.Put, kindNote, notePrefix+bmc, json.RawMessage(note)))
	return err
}

// keepNotes gives the drivers the notes of the BMCs that nodes have.
func (a *Agent) keepNotes(live []journal.Record) error {
	if a.cfg.UseNotes == nil {
		return nil
	}
	used := map[string]bool{}
	for _, p := range a.places() {
		used[p.Key()] = true
	}
	n, err := loadNotes(a.assignLg, live, used)
	if err == nil {
		a.cfg.UseNotes(n)
	}
	return err
}

var _ power.Notes = (*bmcNotes)(nil)
