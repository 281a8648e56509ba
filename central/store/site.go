package store

import (
	"encoding/json"
	"fmt"

	"rackpower/central/api"
)

const (
	sqlSitePause     = `SELECT pause FROM meta`
	sqlSaveSitePause = `UPDATE meta SET pause = $1`
)

// SitePause is the pause of the monitors of all racks, nil when there is none.
func (t *Tx) SitePause() (*api.Pause, error) {
	var text string
	if err := t.row(sqlSitePause).Scan(&text); err != nil {
		return nil, fmt.Errorf("cannot read the pause of all racks: %w", disk(err))
	}
	if text == "" {
		return nil, nil
	}
	p := new(api.Pause)
	if err := json.Unmarshal([]byte(text), p); err != nil {
		return nil, fmt.Errorf("cannot read the pause of all racks: %w", err)
	}
	return p, nil
}

// SaveSitePause stores the pause of the monitors of all racks; nil: they go on.
func (t *Tx) SaveSitePause(p *api.Pause) error {
	text := ""
	if p != nil {
		text = encode(p)
	}
	if _, err := t.exec(sqlSaveSitePause, text); err != nil {
		return fmt.Errorf("cannot save the pause of all racks: %w", err)
	}
	return nil
}
