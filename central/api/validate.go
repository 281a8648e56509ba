package api

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rackpower/power"
	"rackpower/power/cronexpr"
	"rackpower/power/noderange"
)

// What people may set is checked here, whichever way it comes in: command line, central's
// API, import, an agent's own socket, a schedule.

// Bounds of what people may set.
const (
	MaxText     = 1000                      // bytes of a reason, a name of a person and the like
	MaxLast     = 10 * 365 * 24 * time.Hour // of a hold or a pause that ends by itself
	MaxDeadline = 7 * 24 * time.Hour        // of an operation
	MaxRate     = 10_000                    // power-ons a second of a power domain
	MaxCount    = 100_000                   // nodes in a bound: of a brake, of a power domain
)

// MonitorOff as the schedule of a rack's monitor means that nothing is read or corrected
// by itself.
const MonitorOff = "off"

// CentralName is central's own name among the members of the gossip cluster, where
// agents have those of their racks. No rack may have it.
const CentralName = "central"

// CheckName checks the name of a node, a rack or a schedule.
func CheckName(name string) error {
	if !noderange.IsName(name) {
		return fmt.Errorf("name %q: want 1 to 63 letters, digits, dots, underscores and hyphens, with a letter or digit at both ends",
			shortened(name))
	}
	if slices.Contains([]string{"all", CentralName}, name) { // "all" means every node
		return fmt.Errorf("name %q has a meaning of its own", name)
	}
	return nil
}

func shortened(text string) string {
	if len(text) > 100 {
		return text[:100] + "..."
	}
	return text
}

// CheckTexts checks the length of texts for people.
func CheckTexts(texts ...string) error {
	for _, text := range texts {
		if len(text) > MaxText {
			return fmt.Errorf("a text is longer than %d bytes", MaxText)
		}
	}
	return nil
}

// CheckLast checks how long something is to last; 0: until somebody ends it.
func CheckLast(d time.Duration) error {
	if d < 0 || d > MaxLast {
		return fmt.Errorf("a duration of %s is not between 0 and %s", d, MaxLast)
	}
	return nil
}

// CheckMonitor checks the schedule of a rack's monitor: a cron expression, off, or nothing
// for the agent's own.
func CheckMonitor(text string) error {
	if text == "" || text == MonitorOff {
		return nil
	}
	if _, err := cronexpr.Parse(text); err != nil {
		return fmt.Errorf("%w; or off", err)
	}
	return nil
}

// op is the operation that is asked for, as far as it can be checked.
func (r OpRequest) op() power.Op { return r.Op("", power.FromCentral, time.Time{}) }

// Validate checks what can be checked without knowing the node.
func (r OpRequest) Validate() error {
	if id, err := uuid.Parse(r.ID); err != nil || id.String() != r.ID {
		return fmt.Errorf("id %q is no UUID in lower case", shortened(r.ID))
	}
	if r.Deadline < 0 || r.Deadline > MaxDeadline {
		return fmt.Errorf("deadline %s is not between 0 and %s", r.Deadline, MaxDeadline)
	}
	if err := errors.Join(CheckTexts(r.Reason, r.AskedBy, r.Node), r.op().Validate()); err != nil {
		return err
	}
	switch {
	case !r.Hold && r.HoldFor != 0:
		return errors.New("hold-for goes with hold")
	case r.Hold && HeldBy(r.Action) == "":
		return fmt.Errorf("%s leaves the power as it is: there is no state to hold the node in", r.Action)
	}
	return CheckLast(r.HoldFor)
}

// HeldBy is the hold that keeps a node where an action leads it, "" when the action has
// no final state.
func HeldBy(a power.Action) power.Want {
	switch a.Final() {
	case power.On:
		return power.WantOn
	case power.Off:
		return power.WantOff
	default:
		return ""
	}
}

// Validate checks a hold, or a release.
func (in SetHold) Validate() error {
	if err := errors.Join(CheckLast(in.For), CheckTexts(in.Reason, in.AskedBy)); err != nil {
		return err
	}
	if in.Want == "" {
		if in.For != 0 {
			return errors.New("a release has no duration: \"for\" goes with a hold")
		}
		return nil
	}
	if _, err := power.ParseWant(string(in.Want)); err != nil {
		return err
	}
	if in.Reason == "" {
		return errors.New("a hold needs a reason, for people who find the node held")
	}
	return nil
}

// Validate checks settings of a rack. A bound of 0 is the default.
func (in SetRack) Validate() error {
	if in.Monitor != nil {
		if err := CheckMonitor(*in.Monitor); err != nil {
			return fmt.Errorf("monitor: %w", err)
		}
	}
	if p := in.BrakePercent; p != nil && (*p < 0 || *p > 100) {
		return fmt.Errorf("brake percent %d is not between 1 and 100 (0: the default, %d)", *p, power.DefaultBrakePercent)
	}
	if n := in.BrakeAbove; n != nil && (*n < 0 || *n > MaxCount) {
		return fmt.Errorf("brake above %d is not between 1 and %d nodes (0: the default, %d)", *n, MaxCount, power.DefaultBrakeAbove)
	}
	if name := in.Credentials; name != nil && *name != "" {
		if err := CheckName(*name); err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
	}
	if in.Agents != nil {
		if err := CheckAgents(*in.Agents); err != nil {
			return err
		}
	}
	return CheckTexts(in.AskedBy, in.Reason)
}

// MaxAgents is how many agents a node may have.
const MaxAgents = 8

// CheckAgents checks the agents that can reach a node.
func CheckAgents(names []string) error {
	if len(names) > MaxAgents {
		return fmt.Errorf("agents: %d, at most %d can have a node", len(names), MaxAgents)
	}
	for i, name := range names {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("agents: %w", err)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("agents: %s is named twice", name)
		}
	}
	return nil
}

// Validate checks that an agent is to be drained, or given nodes again.
func (in DrainAgent) Validate() error { return CheckTexts(in.AskedBy, in.Reason) }

// Validate checks a pause, or its end.
func (in SetPause) Validate() error {
	if in.Resume && in.For != 0 {
		return errors.New("resume takes no duration")
	}
	return errors.Join(CheckLast(in.For), CheckTexts(in.AskedBy, in.Reason))
}

// Validate checks limits of a power domain, or their removal.
func (in SetDomain) Validate() error {
	switch {
	case in.Name == "":
		return errors.New("no power domain is named")
	case math.IsNaN(in.Rate) || in.Rate < 0 || in.Rate > MaxRate:
		return fmt.Errorf("a rate of %g is not between 0 (no bound) and %d power-ons a second", in.Rate, MaxRate)
	case in.Concurrent < 0 || in.Concurrent > MaxCount:
		return fmt.Errorf("%d nodes at once is not between 0 (no bound) and %d", in.Concurrent, MaxCount)
	case in.Remove && (in.Rate != 0 || in.Concurrent != 0):
		return errors.New("limits cannot be both set and removed")
	}
	return errors.Join(CheckDomain(in.Name), CheckTexts(in.AskedBy, in.Reason))
}

// CheckDomain checks the name of a power domain, which may be any printable text.
func CheckDomain(name string) error {
	if len(name) > MaxText {
		return fmt.Errorf("the name of a power domain is longer than %d bytes", MaxText)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("the name of power domain %q has control characters", shortened(name))
		}
	}
	return nil
}

// Validate checks a schedule by itself; whether its nodes exist is not known here.
func (in PutSchedule) Validate() error {
	if err := CheckName(in.Name); err != nil {
		return err
	}
	if _, err := cronexpr.Parse(in.Cron); err != nil {
		return err
	}
	if _, err := noderange.Parse(in.Nodes); err != nil {
		return err
	}
	if in.Want != "" {
		if _, err := power.ParseWant(string(in.Want)); err != nil {
			return err
		}
	} else if in.For != 0 {
		return errors.New("a release has no duration: \"for\" goes with a hold")
	}
	return errors.Join(CheckLast(in.For), CheckTexts(in.Nodes, in.Reason, in.By, in.AskedBy))
}

// maxAtOnce bounds the operations of one request and, ten times that, the names.
const maxAtOnce = 20_000

// Validate checks each request by itself.
func (in AskOps) Validate() error {
	if len(in.Ops) == 0 || len(in.Ops) > maxAtOnce {
		return fmt.Errorf("%d operations asked for: want 1 to %d at once", len(in.Ops), maxAtOnce)
	}
	first := make(map[string]int, len(in.Ops))
	for i, r := range in.Ops {
		if err := r.Validate(); err != nil {
			return fmt.Errorf("request %d (node %q): %w", i+1, shortened(r.Node), err)
		}
		if j, twice := first[r.ID]; twice && !r.op().Is(in.Ops[j].op()) {
			return fmt.Errorf("requests %d and %d have the same id %s, for %s of node %s and %s of node %s: every operation needs an id of its own",
				j+1, i+1, r.ID, in.Ops[j].Action, in.Ops[j].Node, r.Action, r.Node)
		}
		first[r.ID] = i
	}
	return nil
}

// Validate checks who cancels and why.
func (in CancelOp) Validate() error { return CheckTexts(in.AskedBy, in.Reason) }

// Validate checks a status; "none" takes one away.
func (in SetStatus) Validate() error {
	if !strings.EqualFold(string(in.Status), "none") {
		if _, err := power.ParseStatus(string(in.Status)); err != nil {
			return err
		}
	}
	return errors.Join(checkNames(in.Names), CheckTexts(in.AskedBy, in.Reason))
}

// Validate checks who asks and why.
func (in RetryNodes) Validate() error {
	return errors.Join(checkNames(in.Names), CheckTexts(in.AskedBy, in.Reason))
}

// Validate checks who asks, and why what was protected is so no longer.
func (in ProtectNodes) Validate() error {
	if in.Unprotect && strings.TrimSpace(in.Reason) == "" {
		return errors.New("give a reason why the nodes are no longer protected, for the audit log")
	}
	return errors.Join(checkNames(in.Names), CheckTexts(in.AskedBy, in.Reason))
}

// Validate checks who asks and why.
func (in RemoveNodes) Validate() error {
	return errors.Join(checkNames(in.Names), CheckTexts(in.AskedBy, in.Reason))
}

// Validate checks how long the asker waits.
func (in ReadNodes) Validate() error {
	if in.Wait < 0 {
		return fmt.Errorf("a wait of %s is negative", in.Wait)
	}
	if in.Select != "" {
		if len(in.Names) > 0 {
			return errors.New("names and select exclude each other")
		}
		return nil
	}
	return checkNames(in.Names)
}

// Validate checks a question.
func (in QueryOps) Validate() error {
	switch {
	case in.Wait < 0:
		return fmt.Errorf("a wait of %s is negative", in.Wait)
	case in.Limit < 0:
		return fmt.Errorf("a limit of %d is negative", in.Limit)
	}
	return nil
}

// Validate checks who releases and why.
func (in ReleaseBrake) Validate() error { return CheckTexts(in.AskedBy, in.Reason) }

// Validate checks who removes and why.
func (in RemoveSchedule) Validate() error { return CheckTexts(in.Name, in.AskedBy, in.Reason) }

// Validate checks who confirms and why.
func (in ConfirmTrust) Validate() error { return CheckTexts(in.CentralID, in.AskedBy, in.Reason) }

// Validate checks who adds; each node is checked on its own, so that all errors of a file
// are told at once.
func (in AddNodes) Validate() error { return CheckTexts(in.AskedBy) }

// Validate checks that it is said why: others will want to know.
func (in ForgetAgent) Validate() error {
	if strings.TrimSpace(in.Reason) == "" {
		return errors.New("give a reason why the agent is forgotten, for the audit log")
	}
	return CheckTexts(in.AskedBy, in.Reason)
}

// Validate checks that a member is named.
func (in Ping) Validate() error {
	if in.Name == "" {
		return errors.New("no member is named")
	}
	return CheckTexts(in.Name)
}

// Validate checks the change; the key itself is read by gossip.
func (in ChangeKeys) Validate() error {
	switch in.Action {
	case KeyInstall, KeyUse, KeyRemove:
		return CheckTexts(in.Key, in.ID)
	default:
		return fmt.Errorf("cannot %q a key: want %s, %s or %s", shortened(in.Action), KeyInstall, KeyUse, KeyRemove)
	}
}

// Validate checks who acknowledges: others will want to know why.
func (in AckAlarm) Validate() error {
	if strings.TrimSpace(in.Reason) == "" {
		return errors.New("give a reason for the acknowledgement, for the audit log")
	}
	return CheckTexts(in.Kind, in.AskedBy, in.Reason)
}

func checkNames(names []string) error {
	if len(names) == 0 {
		return errors.New("no node is named")
	}
	if len(names) > 10*maxAtOnce {
		return fmt.Errorf("%d nodes are named: at most %d at once", len(names), 10*maxAtOnce)
	}
	return nil
}

// Valid reports, as a problem of CodeBadRequest, what is wrong with the body of a request
// that has a Validate method. Every server calls it before a handler sees the body.
func Valid(body any) error {
	v, ok := body.(interface{ Validate() error })
	if !ok {
		return nil
	}
	if err := v.Validate(); err != nil {
		return Problemf(CodeBadRequest, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}
