package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/journal"
)

// openKeys reads the keys that seal passwords in the assignment's log, or makes the first.
func openKeys(cfg Config) (*seal.Ring, error) {
	if cfg.ring != nil {
		return cfg.ring, nil
	}
	path := cfg.SealKeyFile
	if path == "" {
		path = filepath.Join(cfg.Dir, seal.FileName)
	}
	ring, err := seal.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && cfg.SealKeyFile == "" {
		ring = seal.NewRing(seal.NewKey())
		err = ring.WriteFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the key that seals passwords: %w", err)
	}
	return ring, nil
}

// The purposes of what is sealed.
const (
	sealedPassword = "password"
	sealedKG       = "kg"
)

// sealedNode is the record of a node.
func sealedNode(ring *seal.Ring, n api.AssignedNode) journal.Entry {
	n.Password = ring.Seal(n.Password, sealedPassword, n.Name)
	n.KG = ring.Seal(n.KG, sealedKG, n.Name)
	return entry(journal.Put, kindNode, nodePrefix+n.Name, n)
}

// openNode makes plain what is sealed. A log of before has it plain.
func openNode(ring *seal.Ring, n *api.AssignedNode) error {
	for _, v := range []struct {
		value   *string
		purpose string
	}{{&n.Password, sealedPassword}, {&n.KG, sealedKG}} {
		if _, sealed := seal.KeyOf(*v.value); !sealed {
			continue
		}
		plain, err := ring.Open(*v.value, v.purpose, n.Name)
		if err != nil {
			return fmt.Errorf("cannot open the %s of node %s: %w", v.purpose, n.Name, err)
		}
		*v.value = plain
	}
	return nil
}

// resealed are new records of the nodes whose passwords are not sealed with the ring's first
// key; plain reports that some were not sealed at all.
func resealed(ring *seal.Ring, live []journal.Record) (entries []journal.Entry, plain bool) {
	for _, r := range live {
		var n api.AssignedNode
		if r.Kind != kindNode || json.Unmarshal(r.Payload, &n) != nil { // loadAssigned says so
			continue
		}
		current := true
		for _, text := range []string{n.Password, n.KG} {
			_, sealed := seal.KeyOf(text)
			plain = plain || text != "" && !sealed
			current = current && (text == "" || sealed && strings.HasPrefix(text, ring.Prefix()))
		}
		if !current && openNode(ring, &n) == nil {
			entries = append(entries, sealedNode(ring, n))
		}
	}
	return entries, plain
}
