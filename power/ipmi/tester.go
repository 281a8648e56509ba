package ipmi

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/bougou/go-ipmi/pkg/command/app"
	"github.com/bougou/go-ipmi/pkg/command/storage"
	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// opTest names a test in errors.
const opTest = "test"

// Test implements power.Tester: Get Chassis Status, Get Device ID (section 20.1), Get Session
// Info (22.20), Get Channel Authentication Capabilities (22.13) and Get SEL Time (31.10). A
// BMC that has no clock, or keeps its sessions to itself, is no worse for it.
func (s *session) Test(ctx context.Context) (power.TestResult, error) {
	t := &tested{s: s, TestResult: power.TestResult{
		Protocol: "IPMI 2.0", Security: fmt.Sprintf("cipher suite %d", s.suite), Role: strings.ToLower(s.limit.String()),
	}}
	if s.suite == types.CipherSuiteID3 {
		t.remark("the session uses cipher suite 3, which is SHA-1: the BMC took none newer")
	}
	if s.limit < types.PrivilegeLevelOperator {
		t.remark("the user may not switch the power: it has the role %s, and needs operator", t.Role)
	}
	var err error
	if t.State, err = s.State(ctx); err != nil {
		return t.TestResult, err
	}
	defer s.link.watch(ctx)()
	for _, ask := range []func(context.Context) *power.Error{t.chassis, t.device, t.channel, t.sessions, t.clock} {
		if err := ask(ctx); err != nil && (err.Lost || err.Kind == power.KindCanceled) {
			err.Sent = false
			return t.TestResult, err
		}
	}
	return t.TestResult, nil
}

// tested is a result that grows.
type tested struct {
	s *session
	power.TestResult
}

func (t *tested) remark(format string, args ...any) {
	t.Remarks = append(t.Remarks, fmt.Sprintf(format, args...))
}

func (t *tested) ask(ctx context.Context, cmd types.Command, data []byte) ([]byte, *power.Error) {
	res, err := t.s.call(ctx, opTest, cmd, data, t.s.reading())
	return res.data, err
}

// chassis looks at the faults in the chassis status (table 28-3).
func (t *tested) chassis(ctx context.Context) *power.Error {
	data, err := t.ask(ctx, types.CommandGetChassisStatus, nil)
	if err != nil || len(data) < 3 {
		return err
	}
	for bit, what := range map[byte]string{0x02: "power overload", 0x04: "power interlock", 0x08: "power fault", 0x10: "power control fault"} {
		if data[0]&bit != 0 {
			t.remark("the chassis has a %s", what)
		}
	}
	return nil
}

func (t *tested) device(ctx context.Context) *power.Error {
	data, err := t.ask(ctx, types.CommandGetDeviceID, nil)
	if err != nil {
		return err
	}
	var id app.GetDeviceIDResponse
	if id.Unpack(data) != nil {
		t.remark("it describes itself in a way that cannot be read")
		return nil
	}
	if id.ManufacturerID != 0 {
		t.Vendor = types.OEM(id.ManufacturerID).String()
	}
	if t.Vendor == "" || t.Vendor == "Unknown" {
		t.Vendor = fmt.Sprintf("manufacturer %d", id.ManufacturerID)
	}
	t.Model = fmt.Sprintf("product %#04x", id.ProductID)
	t.Firmware = fmt.Sprintf("%d.%02d", id.MajorFirmwareRevision, id.MinorFirmwareRevision)
	if !id.DeviceAvailable {
		t.remark("the firmware is being updated, or the BMC starts")
	}
	return nil
}

// channel looks at who else is let in (table 22-15).
func (t *tested) channel(ctx context.Context) *power.Error {
	if t.s.ep.Target != 0 {
		return nil // the BMC's, and no part's
	}
	const none, anonymous, nullUser = 0x01, 0x01, 0x02
	data, err := t.ask(ctx, types.CommandGetChannelAuthCapabilities, []byte{thisChannel | extended, byte(lowestRole)})
	if err != nil || len(data) < 3 {
		return err
	}
	if data[1]&none != 0 {
		t.remark("it opens sessions of IPMI 1.5 without any authentication")
	}
	if data[2]&anonymous != 0 {
		t.remark("it lets anybody log in without user and password")
	} else if data[2]&nullUser != 0 {
		t.remark("it has a user without a name")
	}
	return nil
}

func (t *tested) sessions(ctx context.Context) *power.Error {
	if t.s.ep.Target != 0 {
		return nil
	}
	req := app.GetSessionInfoRequest{}
	data, err := t.ask(ctx, req.Command(), req.Pack())
	if err != nil || len(data) < 3 {
		return err
	}
	const count = 0x3f
	t.MaxSessions, t.Sessions = int(data[1]&count), int(data[2]&count)
	if t.MaxSessions > 0 && t.Sessions >= t.MaxSessions {
		t.remark("all of its %d sessions are open", t.MaxSessions)
	}
	return nil
}

// A clock below this shows how long the BMC has run, and notSet that it was never set
// (section 37.1).
const (
	sinceStart = 0x20000000
	notSet     = 0xFFFFFFFF
)

// farClock is how far off a clock may be before that is odd.
const farClock = time.Minute

func (t *tested) clock(ctx context.Context) *power.Error {
	req := storage.GetSELTimeRequest{}
	began := time.Now()
	data, err := t.ask(ctx, req.Command(), req.Pack())
	if err != nil || len(data) < 4 {
		return err
	}
	at := binary.LittleEndian.Uint32(data)
	if at == notSet || at < sinceStart {
		t.remark("its clock is not set")
		return nil
	}
	t.Clock = time.Unix(int64(at), 0).UTC()
	t.ClockSkew = t.Clock.Sub(began.Add(time.Since(began) / 2)).Round(time.Second)
	if ahead := t.ClockSkew; ahead.Abs() > farClock {
		word := "ahead"
		if ahead < 0 {
			word = "behind"
		}
		t.remark("its clock is %s %s, or shows the time of another zone", ahead.Abs(), word)
	}
	return nil
}
