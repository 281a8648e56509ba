package power

import (
	"strings"
	"testing"
	"time"
)

func TestProtection(t *testing.T) {
	p := Protection{By: "alice", Reason: "database", Since: time.Date(2026, 3, 1, 19, 0, 0, 0, time.UTC)}
	for action, forbidden := range map[Action]bool{
		ActOn: false, ActOff: true, ActSoftOff: true, ActCycle: true, ActReset: true, ActDiag: true, ActBMCReset: false,
	} {
		if p.Forbids(action) != forbidden || (Protection{}).Forbids(action) {
			t.Errorf("%s of a protected node is forbidden: %t, of another: %t", action, p.Forbids(action), Protection{}.Forbids(action))
		}
	}
	for command, forbidden := range map[Command]bool{
		PowerOn: false, PowerOff: true, PressSoftOff: true, HardReset: true, PulseDiag: true, ResetBMC: false,
	} {
		if p.ForbidsCommand(command) != forbidden || (Protection{}).ForbidsCommand(command) {
			t.Errorf("%s to a protected node is forbidden: %t", command, p.ForbidsCommand(command))
		}
	}
	text := p.Refusal("n1")
	for _, part := range []string{"protected by alice", "2026-03-01T19:00:00Z", "database", "rackpower node unprotect n1"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
}
