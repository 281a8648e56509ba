package redfish

import (
	"encoding/json"
	"slices"
	"time"
)

// note is what is kept of a BMC over a restart of the process.
type note struct {
	Pin string `json:"pin,omitempty"` // of power.PinFirst: the key that was seen first
	// Sessions are those that may be open: the one in use, and some that a crash has left or
	// that could not be ended.
	Sessions []string `json:"sessions,omitempty"`
	// Opening is when a session was asked for whose answer is not noted yet: it may be open,
	// under a name that is not known.
	Opening []time.Time `json:"opening,omitempty"`
}

// maxLeft bounds the sessions that are remembered, the oldest go: BMCs end them by themselves.
const maxLeft = 8

func (n note) empty() bool { return n.Pin == "" && len(n.Sessions) == 0 && len(n.Opening) == 0 }

func (n *note) addSession(path string) {
	n.dropSession(path)
	n.Sessions = last(append(n.Sessions, path))
}

func (n *note) dropSession(path string) {
	n.Sessions = slices.DeleteFunc(slices.Clone(n.Sessions), func(s string) bool { return s == path })
}

func (n *note) addOpening(at time.Time) { n.Opening = last(append(slices.Clone(n.Opening), at)) }

func (n *note) dropOpening(at time.Time) {
	n.Opening = slices.DeleteFunc(slices.Clone(n.Opening), func(t time.Time) bool { return t.Equal(at) })
}

func last[T any](all []T) []T {
	return all[max(0, len(all)-maxLeft):]
}

// note is what is kept of a BMC.
func (d *Dialer) note(bmc string) (n note) {
	d.mu.Lock()
	notes := d.cfg.Notes
	d.mu.Unlock()
	if notes == nil {
		return d.noteHere(bmc)
	}
	if data := notes.Note(bmc); len(data) > 0 && json.Unmarshal(data, &n) != nil {
		return note{}
	}
	return n
}

// own notes whether a session is one of this process.
func (d *Dialer) own(bmc, name string, is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if is {
		d.mine[bmc+" "+name] = true
	} else {
		delete(d.mine, bmc+" "+name)
	}
}

// left is what of a note a process of before has left, or this one could not end.
func (d *Dialer) left(bmc string) note {
	n := d.note(bmc)
	d.mu.Lock()
	defer d.mu.Unlock()
	n.Sessions = slices.DeleteFunc(slices.Clone(n.Sessions), func(path string) bool { return d.mine[bmc+" "+path] })
	n.Opening = slices.DeleteFunc(slices.Clone(n.Opening), func(at time.Time) bool { return d.mine[bmc+" "+at.String()] })
	return n
}

func (d *Dialer) noteHere(bmc string) note {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.notes[bmc]
}

// keep keeps it. A note that cannot be made durable must not keep anybody from controlling
// power: at worst a session is left until the BMC ends it.
func (d *Dialer) keep(bmc string, n note) {
	d.mu.Lock()
	notes := d.cfg.Notes
	if notes == nil {
		d.notes[bmc] = n
	}
	d.mu.Unlock()
	if notes == nil {
		return
	}
	var data []byte
	if !n.empty() {
		var err error
		if data, err = json.Marshal(n); err != nil {
			return
		}
	}
	if err := notes.Keep(bmc, data); err != nil {
		d.cfg.Log.Error("cannot keep the session of a BMC: one that a crash leaves is not ended", "bmc", bmc, "err", err)
	}
}
