package power

import (
	"fmt"
	"time"
)

// Protection keeps the power of a node from being taken away, whoever asks, until it is
// taken back. The zero Protection protects nothing.
type Protection struct {
	By     string    `json:"by,omitempty"` // who set it; "": the node is not protected
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// On reports whether the node is protected.
func (p Protection) On() bool { return p.By != "" }

// Forbids reports whether the action would take power, or the running system, from a
// protected node. A restart of its BMC does not.
func (p Protection) Forbids(a Action) bool { return p.On() && a.StopsSystem() }

// ForbidsCommand is Forbids for one command: the power-on of a cycle that has cut power
// already may leave.
func (p Protection) ForbidsCommand(c Command) bool {
	return p.On() && c != PowerOn && c != ResetBMC && c != SetLimit
}

// Text is "protected by alice since 2026-03-01T19:00:00Z: it runs the database"; empty
// where nothing is protected.
func (p Protection) Text() string {
	if !p.On() {
		return ""
	}
	text := fmt.Sprintf("protected by %s since %s", p.By, At(p.Since))
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// Refusal words why nothing takes power from the node, and what to do about it.
func (p Protection) Refusal(node string) string {
	return fmt.Sprintf("%s is %s; its power is not taken until an admin unprotects it (rackpower node unprotect %s --reason TEXT)", node,
		p.Text(), node)
}
