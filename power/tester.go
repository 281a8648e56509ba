package power

import (
	"context"
	"time"
)

// Tester is a Driver that can say more of its BMC than the power of a node.
type Tester interface {
	// Test asks the BMC what it is and how it stands, and changes nothing. What the BMC
	// does not answer is left out of the result, or is one of its remarks; an error says
	// that the BMC gave no power state, and the result has what is known nevertheless.
	Test(ctx context.Context) (TestResult, error)
}

// TestResult is what a BMC says of itself. What is not known is empty.
type TestResult struct {
	Protocol string `json:"protocol,omitempty"` // spoken in the session: "IPMI 2.0", "Redfish 1.15.1"
	Security string `json:"security,omitempty"` // of the session: "cipher suite 17", "TLS 1.3"
	Key      string `json:"key,omitempty"`      // public key that the BMC showed, as a pin has it
	Role     string `json:"role,omitempty"`     // that the user has, as the BMC names it

	Vendor   string `json:"vendor,omitempty"`
	Model    string `json:"model,omitempty"`
	Firmware string `json:"firmware,omitempty"` // of the BMC

	State   State    `json:"state,omitempty"`
	Systems []string `json:"systems,omitempty"` // that the BMC manages, as its own addresses name them
	Allowed []string `json:"allowed,omitempty"` // ways to change the power that it offers, in its own words

	Sessions    int `json:"sessions,omitempty"`     // open now, this one too
	MaxSessions int `json:"max_sessions,omitempty"` // that may be open at once; 0: not known

	Clock     time.Time     `json:"clock,omitzero"`          // what the BMC's clock showed; zero: not known
	ClockSkew time.Duration `json:"clock_skew_ns,omitempty"` // by which it is ahead of ours

	// Remarks are what is odd, a sentence each, without full stop.
	Remarks []string `json:"remarks,omitempty"`
}
