package ipmi

import (
	"context"
	"errors"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/command/app"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// State implements power.Driver: Get Chassis Status (section 28.2), one round
// trip when nothing is lost.
func (s *session) State(ctx context.Context) (power.State, error) {
	const op = "get chassis status"
	defer s.link.watch(ctx)()
	if err := s.stays(ctx, op, lookUpEvery); err != nil && (err.Lost || err.Kind == power.KindCanceled) {
		return power.Unknown, err // where the name cannot be looked up, its last address is good enough to read
	}
	res, err := s.status(ctx, op)
	if err != nil && err.Kind == power.KindPrivilege && s.oldRights() {
		if err = s.reopen(ctx, op); err == nil {
			res, err = s.status(ctx, op)
		}
	}
	if err != nil {
		err.Sent = false
		return power.Unknown, err
	}
	if len(res.data) < 3 {
		return power.Unknown, &power.Error{Kind: power.KindRefused, Op: op, Err: errors.New("the answer is too short")}
	}
	if res.data[0]&1 != 0 {
		return power.On, nil
	}
	return power.Off, nil
}

// status asks for the chassis status, as the highest that the user may be where it needs
// that: a session should begin with the right to read, and some begin with none.
func (s *session) status(ctx context.Context, op string) (response, *power.Error) {
	res, err := s.call(ctx, op, types.CommandGetChassisStatus, nil, s.reading())
	if err == nil || err.Kind != power.KindPrivilege || s.level >= s.limit {
		return res, err
	}
	if err := s.rise(ctx, op, s.limit); err != nil {
		return response{}, err
	}
	return s.call(ctx, op, types.CommandGetChassisStatus, nil, s.reading())
}

// controls says how a command is spoken in Chassis Control (section 28.3).
var controls = map[power.Command]chassis.ChassisControl{
	power.PowerOff:     chassis.ChassisControlPowerDown,
	power.PowerOn:      chassis.ChassisControlPowerUp,
	power.HardReset:    chassis.ChassisControlHardReset,
	power.PulseDiag:    chassis.ChassisControlDiagnosticInterrupt,
	power.PressSoftOff: chassis.ChassisControlSoftShutdown,
}

// Do implements power.Driver. The command leaves in one datagram, once. After
// ResetBMC the session is lost, as the BMC forgets it.
//
// Every error has Sent but those from before that datagram was written: a
// cancelled context, a lost session, a privilege that the BMC does not give.
// Sent with KindRefused, KindBusy, KindPrivilege or KindUnsupported means that
// the BMC answered with that completion code.
func (s *session) Do(ctx context.Context, cmd power.Command) error {
	if cmd == power.ResetBMC {
		return s.resetBMC(ctx)
	}
	control, known := controls[cmd]
	if !known {
		return &power.Error{Kind: power.KindUnsupported, Op: "command", Err: fmt.Errorf("IPMI has no command %q", cmd)}
	}
	req := chassis.ChassisControlRequest{ChassisControl: control}
	return s.act(ctx, string(cmd), types.PrivilegeLevelOperator, req.Command(), req.Pack())
}

// resetBMC sends Cold Reset (section 20.2).
func (s *session) resetBMC(ctx context.Context) error {
	req := app.ColdResetRequest{}
	err := s.act(ctx, string(power.ResetBMC), types.PrivilegeLevelAdministrator, req.Command(), req.Pack())
	if err == nil && s.lost == nil {
		s.lost = errors.New("the BMC was told to restart")
	}
	return err
}

// act raises the privilege and sends a command once.
func (s *session) act(ctx context.Context, op string, level types.PrivilegeLevel, cmd types.Command, data []byte) error {
	defer s.link.watch(ctx)()
	if err := s.stays(ctx, op, 0); err != nil {
		return err
	}
	if err := s.raise(ctx, op, level); err != nil {
		return err
	}
	if _, err := s.call(ctx, op, cmd, data, s.acting()); err != nil {
		if err.Kind == power.KindPrivilege { // nor will it next time, but in a new session
			s.level, s.limit, s.guessed = 0, 0, true
		}
		return err
	}
	return nil
}
