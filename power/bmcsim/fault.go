package bmcsim

import (
	"errors"
	"fmt"
	"time"

	"rackpower/power"
)

// Duration is a time.Duration that JSON spells "1.5s".
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads, if it is not negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v < 0 {
		err = errors.New("negative duration")
	}
	*d = Duration(v)
	return err
}

// Fault is a change to how a BMC behaves; what is nil stays as it is. The methods
// of BMC of the same names say what each does.
type Fault struct {
	Mute         *bool        `json:"mute,omitempty"`
	LossRx       *float64     `json:"loss_rx,omitempty"`
	LossTx       *float64     `json:"loss_tx,omitempty"`
	Delay        *Duration    `json:"delay,omitempty"`
	Duplicate    *bool        `json:"duplicate,omitempty"`
	Stuck        *bool        `json:"stuck,omitempty"`
	Deaf         *bool        `json:"deaf,omitempty"`
	OnAfter      *Duration    `json:"on_after,omitempty"`
	OffAfter     *Duration    `json:"off_after,omitempty"`
	SoftOffTakes *Duration    `json:"soft_off_takes,omitempty"`
	ComesBack    *Duration    `json:"comes_back,omitempty"`
	FailCode     *byte        `json:"fail_code,omitempty"` // for the next FailNext commands
	FailNext     *int         `json:"fail_next,omitempty"`
	LoseAnswers  *int         `json:"lose_answers,omitempty"`
	LoseRequests *int         `json:"lose_requests,omitempty"`
	Lag          *Duration    `json:"lag,omitempty"`
	SessionLimit *int         `json:"session_limit,omitempty"`
	SessionIdle  *Duration    `json:"session_idle,omitempty"`
	BootTime     *Duration    `json:"boot_time,omitempty"`
	IgnoreProbes *bool        `json:"ignore_probes,omitempty"`
	NoIPMI20     *bool        `json:"no_ipmi20,omitempty"`
	BadChecksums *bool        `json:"bad_checksums,omitempty"`
	RAKP2Status  *byte        `json:"rakp2_status,omitempty"` // 0: none
	RAKP4Status  *byte        `json:"rakp4_status,omitempty"` // 0: none
	Suites       []int        `json:"suites,omitempty"`       // one-way: not shown
	Privilege    *int         `json:"privilege,omitempty"`    // one-way: not shown
	Password     *string      `json:"password,omitempty"`     // one-way: not shown
	Power        *power.State `json:"power,omitempty"`        // someone presses the button now
	Restart      *Duration    `json:"restart,omitempty"`      // the BMC restarts now

	Redfish *RedfishFault `json:"redfish,omitempty"`
}

// Set applies faults in order, each as a whole.
func (b *BMC) Set(faults ...Fault) {
	for _, f := range faults {
		b.set(func() { f.settings(b) })
		if f.Suites != nil {
			b.Suites(f.Suites...)
		}
		if f.Privilege != nil {
			b.Privilege(*f.Privilege)
		}
		if f.Password != nil {
			b.SetPassword(power.Secret(*f.Password))
		}
		if f.Power != nil {
			b.SetPower(*f.Power)
		}
		if f.Restart != nil {
			b.Restart(time.Duration(*f.Restart))
		}
	}
}

func put[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func (f Fault) settings(b *BMC) {
	n, s := &b.node, &b.faults
	put(&s.mute, f.Mute)
	if !s.mute && b.redfish != nil {
		b.redfish.endConns(true)
	}
	put(&s.lossRx, f.LossRx)
	put(&s.lossTx, f.LossTx)
	put((*Duration)(&s.delay), f.Delay)
	put(&s.duplicate, f.Duplicate)
	put(&n.stuck, f.Stuck)
	put(&n.deaf, f.Deaf)
	put((*Duration)(&n.onAfter), f.OnAfter)
	put((*Duration)(&n.offAfter), f.OffAfter)
	put((*Duration)(&n.softAfter), f.SoftOffTakes)
	put((*Duration)(&n.backAfter), f.ComesBack)
	put(&s.failCode, f.FailCode)
	put(&s.failNext, f.FailNext)
	put(&s.loseNext, f.LoseAnswers)
	put(&s.loseRequests, f.LoseRequests)
	if f.Lag != nil {
		n.lag = time.Duration(*f.Lag)
		if n.lag == 0 {
			b.agenda.drop(kindShown)
			n.shown = n.on
		}
	}
	if f.Redfish != nil && b.redfish != nil {
		f.Redfish.settings(b.redfish)
	}
	put(&s.limit, f.SessionLimit)
	put((*Duration)(&s.idle), f.SessionIdle)
	put((*Duration)(&s.bootTime), f.BootTime)
	put(&s.ignoreProbes, f.IgnoreProbes)
	put(&s.noIPMI20, f.NoIPMI20)
	put(&s.badChecksums, f.BadChecksums)
	put(&s.rakp2Status, f.RAKP2Status)
	put(&s.rakp4Status, f.RAKP4Status)
}

// Validate says what in f makes no sense.
func (f Fault) Validate() error {
	for name, p := range map[string]*float64{"loss_rx": f.LossRx, "loss_tx": f.LossTx} {
		if p != nil && (*p < 0 || *p > 1) {
			return fmt.Errorf("%s is %v: want a probability from 0 to 1", name, *p)
		}
	}
	for name, n := range map[string]*int{"fail_next": f.FailNext, "lose_answers": f.LoseAnswers, "lose_requests": f.LoseRequests} {
		if n != nil && *n < 0 {
			return fmt.Errorf("%s is %d: want 0 or more", name, *n)
		}
	}
	if n := f.SessionLimit; n != nil && (*n < 0 || *n > maxSessions) {
		return fmt.Errorf("session_limit is %d: want 0 to %d", *n, maxSessions)
	}
	if n := f.Privilege; n != nil && (*n < levelUser || *n > levelAdministrator) {
		return fmt.Errorf("privilege is %d: want 2 (user), 3 (operator) or 4 (administrator)", *n)
	}
	if s := f.Power; s != nil && *s != power.On && *s != power.Off {
		return fmt.Errorf("power is %q: want on or off", *s)
	}
	for _, id := range f.Suites {
		if id != 3 && id != 17 {
			return fmt.Errorf("suites has %d: want 3, 17 or both", id)
		}
	}
	if p := f.Password; p != nil && len(*p) > 20 {
		return errors.New("password has more than 20 bytes")
	}
	return f.Redfish.validate()
}
