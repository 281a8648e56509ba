package ipmi

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// groupDCMI begins the data of each DCMI request and answer (DCMI v1.5 section 6).
const groupDCMI = 0xDC

// limitExceptions are the exception actions of DCMI (section 6.6.2); those from 0x02 to 0x10
// are the maker's own.
var limitExceptions = map[byte]power.LimitException{
	0x00: power.LimitNoAction, 0x01: power.LimitHardPowerOff, 0x11: power.LimitLogEventOnly,
}

var errNotDCMI = errors.New("the answer is none of DCMI, or too short")

// Consumption implements power.Meter: Get Power Reading and Get Power Limit (DCMI v1.5
// sections 6.6.1 and 6.6.2).
func (s *session) Consumption(ctx context.Context) (power.Consumption, error) {
	defer s.link.watch(ctx)()
	const op = "get power reading"
	if err := s.stays(ctx, op, lookUpEvery); err != nil && (err.Lost || err.Kind == power.KindCanceled) {
		return power.Consumption{}, err // as in State
	}
	var c power.Consumption
	data, _, err := s.dcmi(ctx, op, types.CommandGetDCMIPowerReading, 1, 0, 0) // system power statistics
	if err != nil {
		return c, err
	}
	if c, err = parseReading(data); err != nil {
		return c, err
	}
	set, err := s.limits(ctx)
	switch {
	case err == nil:
		c.Limit = &set.Limit
	case err.Kind != power.KindUnsupported:
		return power.Consumption{}, err
	}
	return c, nil
}

// parseReading reads the answer to Get Power Reading.
func parseReading(data []byte) (c power.Consumption, _ *power.Error) {
	const op = "get power reading"
	if len(data) < 17 {
		return c, &power.Error{Kind: power.KindRefused, Op: op, Err: errNotDCMI}
	}
	const measures = 0x40
	if data[16]&measures == 0 {
		return c, &power.Error{Kind: power.KindUnsupported, Op: op, Err: errors.New("the BMC does not measure the power now (DCMI)")}
	}
	for i, field := range []**int{&c.Watts, &c.Min, &c.Max, &c.Average} {
		watts := int(binary.LittleEndian.Uint16(data[2*i:]))
		*field = &watts
	}
	return c, nil
}

// limitSet is a limit with what DCMI has beside it.
type limitSet struct {
	power.Limit
	action     byte
	correction uint32 // milliseconds within which the node has to come down
	period     uint16 // of the statistics, in seconds
}

// limits reads the limit (section 6.6.2). One that is set and not active is told with a
// completion code of its own.
func (s *session) limits(ctx context.Context) (limitSet, *power.Error) {
	const op = "get power limit"
	data, code, err := s.dcmi(ctx, op, types.CommandGetDCMIPowerLimit, 0, 0)
	if err != nil {
		return limitSet{}, err
	}
	return parseLimit(data, code)
}

// parseLimit reads the answer to Get Power Limit.
func parseLimit(data []byte, code types.CompletionCode) (limitSet, *power.Error) {
	set := limitSet{Limit: power.Limit{Active: code == types.CodeOK}}
	switch {
	case len(data) >= 13:
		set.action = data[2]
		set.Exception = limitExceptions[set.action]
		if set.Exception == "" {
			set.Exception = power.LimitOEM
		}
		set.Watts = int(binary.LittleEndian.Uint16(data[3:]))
		set.correction = binary.LittleEndian.Uint32(data[5:])
		set.period = binary.LittleEndian.Uint16(data[11:])
	case set.Active:
		return set, &power.Error{Kind: power.KindRefused, Op: "get power limit", Err: errNotDCMI}
	}
	return set, nil
}

// dcmi asks for something that is read, and gives the data behind the group. A limit that is
// not active has its own completion code, and data all the same.
func (s *session) dcmi(ctx context.Context, op string, cmd types.Command, data ...byte) ([]byte, types.CompletionCode, *power.Error) {
	data = append([]byte{groupDCMI}, data...)
	res, err := s.roundTrip(ctx, op, cmd, data, s.reading())
	if err == nil && res.code == types.CodeInsufficientPrivilege && s.level < s.limit { // as in status
		if err = s.rise(ctx, op, s.limit); err == nil {
			res, err = s.roundTrip(ctx, op, cmd, data, s.reading())
		}
	}
	if err != nil {
		err.Sent = false
		return nil, 0, err
	}
	inactive := cmd == types.CommandGetDCMIPowerLimit && res.code == types.CodeGetDCMIPowerLimitNoActiveLimit && res.id == cmd.ID
	if res.code != types.CodeOK && !inactive {
		return nil, res.code, s.refusedDCMI(op, cmd, res)
	}
	if len(res.data) == 0 || res.data[0] != groupDCMI {
		if inactive {
			return nil, res.code, nil
		}
		return nil, res.code, &power.Error{Kind: power.KindRefused, Op: op, Err: errNotDCMI}
	}
	return res.data[1:], res.code, nil
}

// refusedDCMI is an answer by which the BMC did not do what was asked of it.
func (s *session) refusedDCMI(op string, cmd types.Command, res response) *power.Error {
	err := s.refused(op, &cmd, res)
	if err.Kind == power.KindUnsupported {
		err.Err = fmt.Errorf("the BMC has no %s of DCMI: %w", cmd.Name, err.Err)
	}
	return err
}

// SetLimit implements power.Meter: Set Power Limit, and Activate/Deactivate Power Limit (DCMI
// v1.5 sections 6.6.3 and 6.6.4). What else belongs to a limit stays as it is.
func (s *session) SetLimit(ctx context.Context, watts int) error {
	const op = "set power limit"
	if watts < 0 || watts > power.MaxLimit {
		return &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf("DCMI has no limit of %d W", watts)}
	}
	defer s.link.watch(ctx)()
	if err := s.stays(ctx, op, 0); err != nil {
		return err
	}
	if err := s.raise(ctx, op, types.PrivilegeLevelOperator); err != nil {
		return err
	}
	if watts == 0 {
		if err := s.setDCMI(ctx, op, types.CommandActivateDCMIPowerLimit, 0, 0, 0); err != nil && !noLimitSet(err) {
			return err
		}
		return nil
	}
	set, err := s.limits(ctx)
	if err != nil {
		return err
	}
	set.Watts = watts
	if err := s.setDCMI(ctx, op, types.CommandSetDCMIPowerLimit, set.data()...); err != nil {
		return err
	}
	if set.Active {
		return nil
	}
	if err := s.setDCMI(ctx, op, types.CommandActivateDCMIPowerLimit, 1, 0, 0); err != nil {
		err.Sent = true // the first of the two was taken
		return err
	}
	return nil
}

// noLimitSet reports whether there is no limit that could be switched off.
func noLimitSet(err *power.Error) bool {
	var said *CodeError
	return errors.As(err.Err, &said) && said.Code == types.CodeGetDCMIPowerLimitNoActiveLimit
}

// What a BMC that says nothing of them is given: a second to come down, and a second as the
// period of its statistics.
const (
	usualCorrection = 1000 // ms
	usualPeriod     = 1    // s
)

// data is that of Set Power Limit (table 6-18).
func (l limitSet) data() []byte {
	out := []byte{0, 0, 0, l.action}
	out = binary.LittleEndian.AppendUint16(out, uint16(l.Watts))
	out = binary.LittleEndian.AppendUint32(out, cmp.Or(l.correction, usualCorrection))
	out = append(out, 0, 0)
	return binary.LittleEndian.AppendUint16(out, cmp.Or(l.period, usualPeriod))
}

// setDCMI changes something, which may be repeated.
func (s *session) setDCMI(ctx context.Context, op string, cmd types.Command, data ...byte) *power.Error {
	res, err := s.roundTrip(ctx, op, cmd, append([]byte{groupDCMI}, data...), s.reading())
	if err == nil && res.code != types.CodeOK {
		err = s.refusedDCMI(op, cmd, res)
		err.Sent = err.Kind != power.KindBusy
	}
	return err
}

var _ power.Meter = (*session)(nil)
