package redfish

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"rackpower/power"
)

// opTest names a test in errors.
const opTest = "test"

// clockOff is by how much a BMC's clock may differ before that is odd.
const clockOff = time.Minute

// Test implements power.Tester: reads alone.
func (s *session) Test(ctx context.Context) (power.TestResult, error) {
	r := power.TestResult{Protocol: "Redfish", Security: s.security()}
	if err := s.ready(ctx, opTest); err != nil {
		return r, err
	}
	remark := func(format string, args ...any) { r.Remarks = append(r.Remarks, fmt.Sprintf(format, args...)) }
	var failed *power.Error
	if root, err := s.root(ctx); err == nil {
		r.Protocol = strings.TrimSpace("Redfish " + clean(string(root.Version)))
		r.Vendor = clean(string(root.Vendor))
		s.testSystems(ctx, root, &r, remark)
		s.testSessions(ctx, root, &r, remark)
	} else {
		failed = err
	}
	state, err := s.state(ctx, opTest)
	r.State, failed = state, either(failed, err)
	if s.at != "" {
		s.testSystem(ctx, &r, remark)
	}
	if t := s.client.tls; t != nil && len(t.PeerCertificates) > 0 {
		r.Key = power.PinOf(t.PeerCertificates[0].RawSubjectPublicKeyInfo)
	}
	if s.ep.OldTLS && s.client.tls != nil && s.client.tls.Version > tls.VersionTLS12 {
		remark("it speaks TLS 1.3, so that tls=1.2 is not needed")
	}
	if failed != nil {
		return r, s.check(failed)
	}
	return r, nil
}

func either(a, b *power.Error) *power.Error {
	if b != nil {
		return b
	}
	return a
}

// security says how the connection is secured, and by what the BMC is known.
func (s *session) security() string {
	if s.ep.Scheme == power.SchemeRedfishHTTP {
		return "none"
	}
	t := s.client.tls
	if t == nil || len(t.PeerCertificates) == 0 {
		return ""
	}
	how := "certified"
	if s.ep.Pin != "" {
		how = "pinned"
	}
	return fmt.Sprintf("%s, %s key %s", tls.VersionName(t.Version), how, power.PinOf(t.PeerCertificates[0].RawSubjectPublicKeyInfo))
}

// testSystems lists the Systems of the BMC.
func (s *session) testSystems(ctx context.Context, root serviceRoot, r *power.TestResult, remark func(string, ...any)) {
	all, err := s.members(ctx, opTest, root.Systems)
	if err != nil {
		remark("its Systems cannot be listed: %v", err.Err)
		return
	}
	var fixed []string
	for _, path := range all {
		id := clean(lastSegment(path))
		r.Systems = append(r.Systems, id)
		var sys computerSystem
		if _, err := s.read(ctx, opTest, path, &sys); err == nil && sys.reset().Target == "" {
			fixed = append(fixed, id)
		}
	}
	if len(fixed) > 0 && len(all) > 1 {
		remark("of its Systems, these cannot be reset: %s", strings.Join(fixed, ", "))
	}
	if s.ep.System == "" && len(all)-len(fixed) > 1 {
		remark("it has several Systems: each node must say which one it is (redfish://USER@HOST/SYSTEM)")
	}
}

// testSessions counts the sessions that are open.
func (s *session) testSessions(ctx context.Context, root serviceRoot, r *power.TestResult, remark func(string, ...any)) {
	all, err := s.members(ctx, opTest, root.Links.value.Sessions)
	switch {
	case err == nil:
		r.Sessions = len(all)
	case err.Kind == power.KindPrivilege:
		remark("the user may not see which sessions are open")
	default:
		remark("its sessions cannot be listed: %v", err.Err)
	}
	if s.url == "" && !s.ep.Basic {
		remark("it does not say where its session is, so that it cannot be ended: sessions stay until the BMC ends them")
	}
}

// testSystem says what the System and its manager are, and how they can be reset.
func (s *session) testSystem(ctx context.Context, r *power.TestResult, remark func(string, ...any)) {
	if maker := clean(string(s.system.Manufacturer)); maker != "" {
		r.Vendor = maker
	}
	r.Model = clean(string(s.system.Model))
	if d := s.differs(ctx, opTest, func(d difference) bool { return d.ipmi != "" }); d != nil {
		remark("%s: use IPMI (ipmi://USER@HOST)", d.ipmi)
	}
	if d := s.differs(ctx, opTest, func(d difference) bool { return d.remark != "" }); d != nil {
		remark("%s", d.remark)
	}
	how := s.system.reset()
	if how.Target == "" {
		remark("its System cannot be reset: the power can be read alone")
	} else {
		s.testResets(ctx, how, r, remark)
	}
	managers := s.system.Links.value.ManagedBy
	if len(managers) == 0 {
		remark("its System names no manager: bmc-reset is not possible")
		return
	}
	var m manager
	began := time.Now()
	if _, err := s.read(ctx, opTest, managers[0], &m); err != nil {
		remark("its manager cannot be read: %v", err.Err)
		return
	}
	r.Firmware = clean(string(m.Firmware))
	if m.Actions.value.Reset.value.Target == "" {
		remark("its manager cannot be reset: bmc-reset is not possible")
	}
	at, err := time.Parse(time.RFC3339, string(m.DateTime))
	if err != nil {
		return
	}
	r.Clock, r.ClockSkew = at, at.Sub(began.Add(time.Since(began)/2)).Round(time.Second)
	if r.ClockSkew.Abs() > clockOff {
		remark("its clock is %s %s", r.ClockSkew.Abs().Round(time.Minute), map[bool]string{true: "ahead", false: "behind"}[r.ClockSkew > 0])
	}
}

func (s *session) testResets(ctx context.Context, how action, r *power.TestResult, remark func(string, ...any)) {
	allowed, err := s.allowed(ctx, opTest, how)
	switch {
	case err != nil:
		remark("the types of reset that it allows cannot be read: %v", err.Err)
		return
	case len(allowed) == 0:
		remark("it does not say which types of reset it allows")
		return
	}
	for _, t := range allowed {
		r.Allowed = append(r.Allowed, clean(t))
	}
	lacks := func(cmd power.Command) bool {
		return !slices.ContainsFunc(s.types(ctx, opTest, cmd), func(t string) bool { return slices.Contains(allowed, t) })
	}
	for _, c := range []struct {
		cmd  power.Command
		says string
	}{
		{power.PowerOn, "it has no reset that turns a node on"},
		{power.PowerOff, "it has no reset that turns a node off"},
		{power.PressSoftOff, "it has no GracefulShutdown: soft-off is a hard off"},
		{power.HardReset, "it has no ForceRestart: reset is not possible"},
		{power.PulseDiag, "it has no Nmi: diag is not possible"},
	} {
		if lacks(c.cmd) {
			remark("%s", c.says)
		}
	}
	if !slices.Contains(allowed, "On") && !slices.Contains(allowed, "ForceOn") && slices.Contains(allowed, pushButton) {
		remark("a node is turned on by its power button: %s alone", pushButton)
	}
}

var _ power.Tester = (*session)(nil)
