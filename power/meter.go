package power

import (
	"context"
	"fmt"
)

// Meter is a Driver that can say how much power a node takes, and limit that.
type Meter interface {
	// Consumption reads what the node takes, and its limit. It may be repeated freely. A BMC
	// that has no reading of the power has KindUnsupported, and the error names what was
	// looked for.
	Consumption(ctx context.Context) (Consumption, error)
	// SetLimit has the node take no more than so many watts; 0: as much as it wants. What the
	// BMC does at the limit stays as it is. It may be repeated; Error.Sent says whether the
	// limit may have been changed. A BMC that has no limit has KindUnsupported.
	SetLimit(ctx context.Context, watts int) error
}

// Consumption is what a node takes, and the limit on it. What the BMC does not say is nil.
type Consumption struct {
	Watts   *int `json:"watts"`         // now
	Min     *int `json:"min_watts"`     // within the period of the BMC's statistics, as are
	Max     *int `json:"max_watts"`     // the maximum
	Average *int `json:"average_watts"` // and the average
	// Limit is nil where the BMC cannot limit what the node takes.
	Limit *Limit `json:"limit"`
}

// Limit is how much a node may take.
type Limit struct {
	Watts  int  `json:"watts"`  // 0: none is set
	Active bool `json:"active"` // it holds; one that is set may be switched off
	// Exception is what the BMC does where the node takes more for too long.
	Exception LimitException `json:"exception,omitempty"`
}

// Text is "800 W", "none", or "800 W, not active".
func (l Limit) Text() string {
	switch {
	case l.Watts == 0:
		return "none"
	case !l.Active:
		return Watts(l.Watts) + ", not active"
	}
	return Watts(l.Watts)
}

// LimitText is what a cap limits a node to: "800 W" or "none".
func LimitText(watts int) string { return Limit{Watts: watts, Active: true}.Text() }

// Now is the limit that holds, in watts; 0: none does.
func (l Limit) Now() int {
	if !l.Active {
		return 0
	}
	return l.Watts
}

// LimitException is what a BMC does to a node that does not come down to its limit, in
// Redfish's words (DSP0268, LimitException). Others are the maker's own.
type LimitException string

// The exceptions.
const (
	LimitNoAction     LimitException = "NoAction"
	LimitHardPowerOff LimitException = "HardPowerOff"
	LimitLogEventOnly LimitException = "LogEventOnly"
	LimitOEM          LimitException = "Oem"
)

// CutsPower reports whether the node loses power.
func (e LimitException) CutsPower() bool { return e == LimitHardPowerOff }

// Watts writes a power: "800 W".
func Watts(n int) string { return fmt.Sprintf("%d W", n) }
