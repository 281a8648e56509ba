package redfish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"rackpower/power"
)

// State implements power.Driver: one GET of the System.
//
// PoweringOn is off until it is on, and PoweringOff on until it is off: the state of before.
// What says neither is an error, never a state.
func (s *session) State(ctx context.Context) (power.State, error) {
	if err := s.ready(ctx, opState); err != nil {
		return power.Unknown, err
	}
	state, err := s.state(ctx, opState)
	if err != nil {
		return power.Unknown, s.check(err)
	}
	return state, nil
}

func (s *session) state(ctx context.Context, op string) (power.State, *power.Error) {
	if err := s.readSystem(ctx, op); err != nil {
		return power.Unknown, err
	}
	switch s.system.PowerState {
	case "On":
		return power.On, nil
	case "Off":
		return power.Off, nil
	case "PoweringOn":
		return power.Off, nil
	case "PoweringOff":
		return power.On, nil
	}
	says := fmt.Sprintf("its PowerState is %q", clean(string(s.system.PowerState)))
	if s.system.PowerState == "" {
		says = "it gives no PowerState"
	}
	return power.Unknown, &power.Error{Kind: power.KindBusy, Op: op, Err: errors.New("the BMC does not say whether the node is on: " + says)}
}

// Changing implements power.Changer.
func (s *session) Changing() bool {
	return s.system.PowerState == "PoweringOn" || s.system.PowerState == "PoweringOff"
}

// readSystem gets the System that the endpoint means, from where it was last time. Where it
// is not any more, it is looked for once.
func (s *session) readSystem(ctx context.Context, op string) *power.Error {
	for try := 0; ; try++ {
		path, err := s.find(ctx, op)
		if err != nil {
			return err
		}
		var sys computerSystem
		a, err := s.read(ctx, op, path, &sys)
		if err != nil && a.status == http.StatusNotFound && try == 0 {
			s.dialer.know(s.ep, func(b *learnt) { delete(b.systems, s.ep.System) })
			continue
		}
		if err != nil {
			return err
		}
		if tag := a.header.Get("ETag"); tag != "" {
			sys.ETag = text(tag)
		}
		s.at, s.system = path, sys
		return nil
	}
}

// known has the System be one that was read within the session.
func (s *session) known(ctx context.Context, op string) *power.Error {
	if s.at != "" {
		return nil
	}
	return s.readSystem(ctx, op)
}

// resetTypes say how a command is spoken in ComputerSystem.Reset: the first that the BMC
// allows is taken.
var resetTypes = map[power.Command][]string{
	power.PowerOn:      {"On", "ForceOn", pushButton},
	power.PowerOff:     {"ForceOff"},
	power.PressSoftOff: {"GracefulShutdown"},
	power.HardReset:    {"ForceRestart"},
	power.PulseDiag:    {"Nmi"},
	power.ResetBMC:     {"GracefulRestart", "ForceRestart"},
}

// pushButton toggles the power, so that it leaves only right after the state was read that it
// is to end.
const pushButton = "PushPowerButton"

// Do implements power.Driver. The command leaves in one POST, once. After ResetBMC the session
// is lost, as the BMC forgets it.
func (s *session) Do(ctx context.Context, cmd power.Command) error {
	op := string(cmd)
	if resetTypes[cmd] == nil {
		return &power.Error{Kind: power.KindUnsupported, Op: "command", Err: fmt.Errorf("no command of Redfish is %q", cmd)}
	}
	if err := s.ready(ctx, op); err != nil {
		return err
	}
	if err := s.do(ctx, op, cmd); err != nil {
		return s.check(err)
	}
	if cmd == power.ResetBMC {
		s.lost = errRestarts
	}
	return nil
}

func (s *session) do(ctx context.Context, op string, cmd power.Command) *power.Error {
	how, resetType, err := s.prepare(ctx, op, cmd)
	if err != nil {
		err.Sent = false
		return err
	}
	a, err := s.client.send(ctx, request{
		op: op, method: http.MethodPost, path: string(how.Target), within: s.cfg.Timeout, body: map[string]string{"ResetType": resetType},
	})
	switch {
	case err != nil:
		return err
	case a.status == http.StatusAccepted:
		return s.follow(ctx, op, cmd, a)
	case a.ok():
		return nil
	}
	err = refused(op, a, s.worked, true)
	if a.status == http.StatusConflict || a.status == http.StatusBadRequest && err.Kind == power.KindRefused {
		return s.unneeded(ctx, op, cmd, err)
	}
	return err
}

// prepare finds the action that a command is, and the type of reset that the BMC allows for
// it.
func (s *session) prepare(ctx context.Context, op string, cmd power.Command) (how action, resetType string, err *power.Error) {
	if err = s.known(ctx, op); err != nil {
		return how, "", err
	}
	if how, err = s.action(ctx, op, cmd); err != nil {
		return how, "", err
	}
	if how.Target == "" {
		return how, "", &power.Error{Kind: power.KindUnsupported, Op: op, Err: errors.New("the BMC has no such action")}
	}
	wanted := s.types(ctx, op, cmd)
	allowed, err := s.allowed(ctx, op, how)
	if err != nil {
		return how, "", err
	}
	if len(allowed) == 0 { // it does not say
		return how, wanted[0], nil
	}
	i := slices.IndexFunc(wanted, func(t string) bool { return slices.Contains(allowed, t) })
	if i < 0 {
		return how, "", &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf("the BMC resets by %v alone, and %v is wanted", allowed,
			wanted)}
	}
	if wanted[i] == pushButton {
		state, err := s.state(ctx, op)
		if err != nil {
			return how, "", err
		}
		if state == cmd.Target() || s.Changing() {
			return how, "", &power.Error{Kind: power.KindBusy, Op: op, Err: errors.New(
				"the BMC can only press the power button, and the node's power has changed or is about to")}
		}
	}
	return how, wanted[i], nil
}

// action is the one that the command is: of the System, or of its manager.
func (s *session) action(ctx context.Context, op string, cmd power.Command) (action, *power.Error) {
	if cmd != power.ResetBMC {
		return s.system.reset(), nil
	}
	managers := s.system.Links.value.ManagedBy
	if len(managers) == 0 {
		return action{}, nil
	}
	var m manager
	if _, err := s.read(ctx, op, managers[0], &m); err != nil {
		return action{}, err
	}
	return m.Actions.value.Reset.value, nil
}

// allowed are the types of reset that the BMC allows: those beside the action, else those of
// its ActionInfo; none: it does not say.
func (s *session) allowed(ctx context.Context, op string, how action) ([]string, *power.Error) {
	if len(how.Types) > 0 || how.Info == "" {
		return how.Types, nil
	}
	if types, known := s.infos[how.Info]; known {
		return types, nil
	}
	var info actionInfo
	a, err := s.read(ctx, op, how.Info, &info)
	if err != nil && a.status != http.StatusNotFound {
		return nil, err
	}
	s.infos[how.Info] = info.resetTypes()
	return s.infos[how.Info], nil
}

// unneeded reads the power after an answer by which the BMC did not take a command as things
// stand: where the node is as it should be, nothing is missing.
func (s *session) unneeded(ctx context.Context, op string, cmd power.Command, said *power.Error) *power.Error {
	said.Kind, said.Sent, said.After = power.KindBusy, false, max(said.After, notNow)
	if cmd.Target() == power.Unknown {
		return said
	}
	if state, err := s.state(ctx, op); err == nil && state == cmd.Target() && !s.Changing() {
		return nil
	}
	return said
}

// follow waits for the task that the BMC has made of a command. The state of the power decides
// in the end: a task that goes on is as good as one that has ended.
func (s *session) follow(ctx context.Context, op string, cmd power.Command, a answer) *power.Error {
	path := a.location()
	if path == "" {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.TaskWait)
	defer cancel()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var t task
		a, err := s.client.get(bounded, op, path)
		if err != nil || a.status == http.StatusNotFound || parse(a.body, &t) != nil {
			return nil
		}
		failed := !a.ok() || t.State == "Exception" || t.State == "Killed" || t.State == "Cancelled"
		if failed {
			says := &statusError{status: a.status, says: "the task has ended as " + clean(string(t.State))}
			for _, m := range t.Messages {
				says.says += ": " + clean(string(m.Message))
			}
			if cmd.Target() == power.Unknown { // it was begun: it may have reset the node before it failed
				return &power.Error{Kind: power.KindUncertain, Op: op, Sent: true, Err: says}
			}
			return s.unneeded(ctx, op, cmd, &power.Error{Op: op, Err: says})
		}
		if a.status != http.StatusAccepted && t.State != "New" && t.State != "Starting" && t.State != "Running" && t.State != "Pending" {
			return nil
		}
		select {
		case <-bounded.Done():
			return nil
		case <-time.After(pause):
		}
	}
}
