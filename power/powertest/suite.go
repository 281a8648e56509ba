package powertest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

// Suite checks what power.Driver promises. newTarget is called once for each test,
// with the test's own T; the targets share nothing, and the tests run in parallel.
func Suite(t *testing.T, newTarget func(t *testing.T) Target) { run(t, newTarget, len(suite)) }

// Basics is the beginning of Suite: what one BMC does otherwise than another of its protocol.
func Basics(t *testing.T, newTarget func(t *testing.T) Target) { run(t, newTarget, basics) }

func run(t *testing.T, newTarget func(t *testing.T) Target, tests int) {
	for _, test := range suite[:tests] {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(&bench{T: t, Target: newTarget(t)})
		})
	}
}

const basics = 3

var suite = []struct {
	name string
	run  func(*bench)
}{
	{"reads the power", (*bench).testState},
	{"sends each command once", (*bench).testCommands},
	{"sets the boot device", (*bench).testBoot},
	{"reads what the node takes", (*bench).testConsumption},
	{"limits what the node takes", (*bench).testLimit},
	{"survives a lost answer to a limit", (*bench).testLimitLost},
	{"knows a BMC without a meter", (*bench).testNoMeter},
	{"refuses unknown words", (*bench).testUnknownWords},
	{"keeps a session for many reads", (*bench).testManyReads},
	{"may be closed twice", (*bench).testClose},
	{"sends nothing when cancelled before", (*bench).testCancelledBefore},
	{"stops at once when cancelled", (*bench).testCancelledWaiting},
	{"knows a wrong password", (*bench).testWrongPassword},
	{"knows a wrong user", (*bench).testWrongUser},
	{"gives up a mute BMC", (*bench).testMuteDial},
	{"gives up a session that fell silent", (*bench).testMuteSession},
	{"notices a closed port", (*bench).testClosedPort},
	{"notices a restarted BMC", (*bench).testRestart},
	{"never sends a command again", (*bench).testLostAnswer},
	{"survives lost packets", (*bench).testLoss},
	{"survives duplicated packets", (*bench).testDuplicates},
	{"passes on what the BMC says", (*bench).testRefusals},
	{"knows a BMC without sessions", (*bench).testNoSession},
	{"knows what a user may not do", (*bench).testPrivilege},
	{"probes without a session", (*bench).testProbe},
	{"probes a mute BMC in vain", (*bench).testProbeMute},
	{"stops a probe at once", (*bench).testProbeCancelled},
}

// slack is what a loaded machine may add to a bound.
const slack = 2 * time.Second

// bench is one test's workplace.
type bench struct {
	*testing.T
	Target
}

// able asserts that the target has an ability, or skips the test.
func able[A any](b *bench) A {
	b.Helper()
	a, ok := b.Target.(A)
	if !ok {
		b.Skipf("left out: the target %T is no %v, which this needs", b.Target, reflect.TypeFor[A]())
	}
	return a
}

func (b *bench) dial() power.Driver {
	b.Helper()
	d, err := b.Dial(b.Context(), b.Endpoint())
	if err != nil {
		b.Fatalf("cannot dial: %v", err)
	}
	b.Cleanup(func() { d.Close() })
	return d
}

// dialErr dials, expects failure and returns it and its duration.
func (b *bench) dialErr(ctx context.Context, ep power.Endpoint) (took time.Duration, err error) {
	b.Helper()
	start := time.Now()
	d, err := b.Dial(ctx, ep)
	if err == nil {
		d.Close()
		b.Fatal("Dial succeeded")
	}
	return time.Since(start), err
}

// wantErr checks kind and sent of an error that must be a *power.Error.
func (b *bench) wantErr(err error, kind power.ErrorKind, sent bool) *power.Error {
	b.Helper()
	var e *power.Error
	if !errors.As(err, &e) {
		b.Fatalf("got %T %v, want a *power.Error of kind %s", err, err, kind)
	}
	if e.Kind != kind || e.Sent != sent {
		b.Errorf("got %v (sent %v), want kind %s, sent %v", e, e.Sent, kind, sent)
	}
	if e.Op == "" {
		b.Errorf("error %v does not say what was tried", e)
	}
	return e
}

// wantRefused is wantErr for a command that the BMC refused and did not carry out: that it
// was sent may be said or not.
func (b *bench) wantRefused(err error, kind power.ErrorKind) *power.Error {
	b.Helper()
	return b.wantErr(err, kind, err != nil && power.WasSent(err))
}

func (b *bench) within(took, bound time.Duration) {
	b.Helper()
	if took > bound {
		b.Errorf("took %v, want at most %v", took, bound)
	}
}

func (b *bench) wantState(d power.Driver, want power.State) {
	b.Helper()
	if got, err := d.State(b.Context()); err != nil || got != want {
		b.Errorf("State = %v, %v, want %v", got, err, want)
	}
}

func (b *bench) do(d power.Driver, cmd power.Command) {
	b.Helper()
	if err := d.Do(b.Context(), cmd); err != nil {
		b.Errorf("%s: %v", cmd, err)
	}
}

// commands returns the logged commands, boot devices left out.
func (b *bench) commands() []power.Command {
	var cs []power.Command
	for _, e := range b.Log() {
		if e.Command != "" {
			cs = append(cs, e.Command)
		}
	}
	return cs
}

func (b *bench) wantCommands(want ...power.Command) {
	b.Helper()
	if got := b.commands(); !slices.Equal(got, want) {
		b.Errorf("the BMC got %q, want %q", got, want)
	}
}

// lacks reports whether the target's BMC does not know the command.
func (b *bench) lacks(cmd power.Command) bool {
	l, ok := b.Target.(Lacking)
	return ok && slices.Contains(l.Lacks(), cmd)
}

func (b *bench) power(s power.State) {
	b.Helper()
	if err := b.SetPower(s); err != nil {
		b.Fatal(err)
	}
}

// cancelled returns a context that has ended.
func (b *bench) cancelled() context.Context {
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	return ctx
}

func (b *bench) testState() {
	d := b.dial()
	for _, s := range []power.State{power.On, power.Off, power.On} {
		b.power(s)
		b.wantState(d, s)
	}
	b.wantCommands()
}

func (b *bench) testCommands() {
	d := b.dial()
	var want []power.Command
	for _, cmd := range []power.Command{power.PowerOn, power.HardReset, power.PulseDiag, power.PowerOff, power.PowerOn, power.PressSoftOff} {
		if b.lacks(cmd) {
			b.wantRefused(d.Do(b.Context(), cmd), power.KindUnsupported)
			continue
		}
		b.do(d, cmd)
		want = append(want, cmd)
	}
	last := power.Off
	if b.lacks(power.PressSoftOff) {
		last = power.On
	}
	b.wantState(d, last)
	if b.lacks(power.ResetBMC) {
		b.wantRefused(d.Do(b.Context(), power.ResetBMC), power.KindUnsupported)
	} else {
		b.do(d, power.ResetBMC)
		want = append(want, power.ResetBMC)
	}
	b.wantCommands(want...)
}

func (b *bench) testBoot() {
	d := b.dial()
	devices := append(slices.Clone(power.BootDevices), power.BootPXE, power.BootNone)
	for _, dev := range devices {
		if err := d.SetBoot(b.Context(), dev); err != nil {
			b.Errorf("SetBoot(%q): %v", dev, err)
		}
		log := b.Log()
		if len(log) == 0 || log[len(log)-1].Command != "" || log[len(log)-1].Boot != dev {
			b.Errorf("after SetBoot(%q) the BMC's log is %+v", dev, log)
		}
	}
	if got := len(b.Log()); got != len(devices) {
		b.Errorf("%d boot devices were set %d times", len(devices), got)
	}
}

// meter is the driver's part that reads and limits what the node takes.
func (b *bench) meter(d power.Driver) power.Meter {
	b.Helper()
	m, ok := d.(power.Meter)
	if !ok {
		b.Fatalf("%T is no power.Meter", d)
	}
	return m
}

// metered asserts that the BMC has a meter, or skips the test.
func (b *bench) metered() Metered {
	b.Helper()
	m := able[Metered](b)
	if b.lacks(power.SetLimit) {
		b.Skip("left out: the BMC has no meter")
	}
	return m
}

func (b *bench) testConsumption() {
	real := b.metered()
	m := b.meter(b.dial())
	for _, s := range []power.State{power.On, power.Off} {
		b.power(s)
		c, err := m.Consumption(b.Context())
		switch {
		case err != nil:
			b.Errorf("Consumption: %v", err)
		case c.Watts == nil || *c.Watts != real.Watts():
			b.Errorf("%s: read %v, the node takes %d W", s, c.Watts, real.Watts())
		case c.Limit == nil || c.Limit.Now() != 0:
			b.Errorf("%s: the limit is read as %+v, and there is none", s, c.Limit)
		case c.Min != nil && c.Max != nil && *c.Min > *c.Max:
			b.Errorf("%s: between %d and %d W", s, *c.Min, *c.Max)
		}
	}
	b.wantErr(second(m.Consumption(b.cancelled())), power.KindCanceled, false)
	b.wantCommands()
}

func second[T any](_ T, err error) error { return err }

func (b *bench) testLimit() {
	real := b.metered()
	b.power(power.On)
	m := b.meter(b.dial())
	b.wantErr(m.SetLimit(b.cancelled(), 250), power.KindCanceled, false)
	for _, watts := range []int{0, 250, 250, 200, 0, 0, 300} {
		if err := m.SetLimit(b.Context(), watts); err != nil {
			b.Errorf("SetLimit(%d): %v", watts, err)
		}
		c, err := m.Consumption(b.Context())
		if err != nil || c.Limit == nil || c.Limit.Now() != watts || real.Limit() != watts {
			b.Errorf("after SetLimit(%d) it is %d, and is read as %+v, %v", watts, real.Limit(), c.Limit, err)
		}
		if watts > 0 && real.Watts() > watts {
			b.Errorf("the node takes %d W with a limit of %d", real.Watts(), watts)
		}
	}
	if r, ok := b.Target.(Restricted); ok {
		reader, err := b.Dial(b.Context(), r.Reader())
		if err != nil {
			b.Fatalf("reader: %v", err)
		}
		defer reader.Close()
		if _, err := b.meter(reader).Consumption(b.Context()); err != nil {
			b.Errorf("a reader: %v", err)
		}
		b.wantRefused(b.meter(reader).SetLimit(b.Context(), 200), power.KindPrivilege)
		if real.Limit() != 300 {
			b.Errorf("a reader has set the limit to %d", real.Limit())
		}
	}
}

// testLimitLost: what has no answer was either repeated by the driver or may be repeated by
// who asks, who is told that it was sent.
func (b *bench) testLimitLost() {
	real, loser := b.metered(), able[AnswerLoser](b)
	b.power(power.On)
	d := b.dial()
	loser.LoseNextAnswers(1)
	if err := b.meter(d).SetLimit(b.Context(), 250); err != nil {
		b.wantErr(err, power.KindUnreachable, true)
		d = b.dial()
	}
	for range 2 {
		if c, err := b.meter(d).Consumption(b.Context()); err != nil || c.Limit.Now() > 0 && c.Limit.Now() != 250 {
			b.Errorf("after a lost answer: %+v, %v", c.Limit, err)
		}
		if err := b.meter(d).SetLimit(b.Context(), 250); err != nil || real.Limit() != 250 {
			b.Errorf("after a lost answer the limit is %d, %v", real.Limit(), err)
		}
	}
	b.wantState(d, power.On)
}

// testNoMeter: the error names what was looked for.
func (b *bench) testNoMeter() {
	if _, ok := b.Target.(Metered); ok && !b.lacks(power.SetLimit) {
		b.Skip("left out: the BMC has a meter")
	}
	d := b.dial()
	m := b.meter(d)
	e := b.wantErr(second(m.Consumption(b.Context())), power.KindUnsupported, false)
	if text := e.Error(); !strings.Contains(text, "DCMI") && !strings.Contains(text, "PowerControl") {
		b.Errorf("%q does not name what was looked for", text)
	}
	b.wantRefused(m.SetLimit(b.Context(), 250), power.KindUnsupported)
	b.wantState(d, power.Off)
	b.wantCommands()
}

func (b *bench) testUnknownWords() {
	d := b.dial()
	b.wantErr(d.Do(b.Context(), "self-destruct"), power.KindUnsupported, false)
	b.wantErr(d.Do(b.Context(), ""), power.KindUnsupported, false)
	b.wantErr(d.SetBoot(b.Context(), "floppy"), power.KindUnsupported, false)
	b.wantCommands()
}

func (b *bench) testManyReads() {
	d := b.dial()
	for range 150 {
		b.wantState(d, power.Off)
		if b.Failed() {
			return
		}
	}
}

func (b *bench) testClose() {
	d := b.dial()
	for range 2 {
		if err := d.Close(); err != nil {
			b.Errorf("Close: %v", err)
		}
	}
	_, err := d.State(b.Context())
	b.wantErr(err, power.KindUnreachable, false)
	if e := b.wantErr(d.Do(b.Context(), power.PowerOn), power.KindUnreachable, false); !e.Lost {
		b.Errorf("a command on a closed session: %v is not Lost", e)
	}
	b.wantErr(d.SetBoot(b.Context(), power.BootPXE), power.KindUnreachable, false)
	b.wantCommands()
	if c, ok := b.Target.(Counter); ok && c.Sessions() != 0 {
		b.Errorf("%d sessions are left on the BMC after Close", c.Sessions())
	}
}

func (b *bench) testCancelledBefore() {
	d := b.dial()
	b.power(power.On)
	b.do(d, power.PowerOff) // whatever must come before a command has come now
	ctx := b.cancelled()
	for _, cmd := range []power.Command{power.PowerOn, power.HardReset, power.ResetBMC} {
		b.wantErr(d.Do(ctx, cmd), power.KindCanceled, false)
	}
	_, err := d.State(ctx)
	b.wantErr(err, power.KindCanceled, false)
	b.wantErr(d.SetBoot(ctx, power.BootPXE), power.KindCanceled, false)
	_, err = b.dialErr(ctx, b.Endpoint())
	b.wantErr(err, power.KindCanceled, false)
	if log := b.Log(); len(log) != 1 {
		b.Errorf("cancelled before they left, these reached the BMC: %+v", log[1:])
	}
	b.wantState(d, power.Off) // the session is as good as before
}

func (b *bench) testCancelledWaiting() {
	hang := able[Hanger](b)
	d := b.dial()
	b.do(d, power.PowerOn) // whatever must come before a command has come now
	hang.Hang()
	defer hang.Wake()
	const soon = 100 * time.Millisecond
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(b.Context(), soon)
		b.Cleanup(cancel)
		return ctx
	}
	start := time.Now()
	b.wantErr(d.Do(short(), power.PowerOff), power.KindCanceled, true)
	b.within(time.Since(start), soon+slack/2)
	start = time.Now()
	_, err := b.dialErr(short(), b.Endpoint())
	b.wantErr(err, power.KindCanceled, false)
	b.within(time.Since(start), soon+slack/2)
	other := b.dialAwake(hang)
	start = time.Now()
	_, err = other.State(short())
	b.wantErr(err, power.KindCanceled, false)
	b.within(time.Since(start), soon+slack/2)
}

// dialAwake dials with the BMC awake and has it hang again.
func (b *bench) dialAwake(hang Hanger) power.Driver {
	hang.Wake()
	defer hang.Hang()
	return b.dial()
}

func (b *bench) testWrongPassword() {
	ep := b.Endpoint()
	ep.Password = "not" + ep.Password[:3]
	took, err := b.dialErr(b.Context(), ep)
	b.wantErr(err, power.KindAuth, false)
	b.within(took, 5*time.Second)
	if strings.Contains(err.Error(), string(ep.Password)) {
		b.Errorf("the error %q shows the password", err)
	}
	b.wantAuthFailures(1)
	b.wantState(b.dial(), power.Off) // and the right one works after it
}

func (b *bench) testWrongUser() {
	ep := b.Endpoint()
	ep.User = "nobody"
	took, err := b.dialErr(b.Context(), ep)
	b.wantErr(err, power.KindAuth, false)
	b.within(took, 5*time.Second)
	b.wantAuthFailures(2) // once more as less than an administrator, without a password
}

// wantAuthFailures checks that a password was tried at most so often, and that no
// session is left half open.
func (b *bench) wantAuthFailures(most int) {
	b.Helper()
	c, ok := b.Target.(Counter)
	if !ok {
		return
	}
	if got := c.AuthFailures(); got > most {
		b.Errorf("the BMC counts %d failed logins for one Dial", got)
	}
	if !eventually(func() bool { return c.Sessions() == 0 }) {
		b.Errorf("%d sessions are left half open", c.Sessions())
	}
}

// eventually waits for what the other side is about to do.
func eventually(cond func() bool) bool {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return true
		}
	}
	return cond()
}

func (b *bench) testMuteDial() {
	hang := able[Hanger](b)
	hang.Hang()
	defer hang.Wake()
	took, err := b.dialErr(b.Context(), b.Endpoint())
	b.wantErr(err, power.KindUnreachable, false)
	b.within(took, b.Patience()+slack)
}

func (b *bench) testMuteSession() {
	hang := able[Hanger](b)
	d, reader := b.dial(), b.dial()
	b.do(d, power.PowerOn)
	hang.Hang()
	defer hang.Wake()
	start := time.Now()
	_, err := reader.State(b.Context())
	if e := b.wantErr(err, power.KindUnreachable, false); !e.Lost {
		b.Errorf("%v is not Lost", e)
	}
	b.within(time.Since(start), b.Patience()+slack)
	start = time.Now()
	if e := b.wantErr(d.Do(b.Context(), power.HardReset), power.KindUnreachable, true); !e.Lost {
		b.Errorf("%v is not Lost", e)
	}
	b.within(time.Since(start), b.Patience()+slack)
	hang.Wake()
	b.wantState(b.dial(), power.On)
	if got := b.commands(); len(got) > 2 {
		b.Errorf("the BMC got %q: a reset was sent again", got)
	}
}

func (b *bench) testClosedPort() {
	able[Killer](b).Kill()
	took, err := b.dialErr(b.Context(), b.Endpoint())
	b.wantErr(err, power.KindUnreachable, false)
	b.within(took, slack/2)
}

func (b *bench) testRestart() {
	restart := able[Restarter](b)
	b.power(power.On)
	d := b.dial()
	b.wantState(d, power.On)
	if err := restart.Restart(); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	_, err := d.State(b.Context())
	if e := b.wantErr(err, power.KindUnreachable, false); !e.Lost {
		b.Errorf("%v is not Lost", e)
	}
	b.within(time.Since(start), b.Patience()+slack)
	b.wantErr(d.Do(b.Context(), power.HardReset), power.KindUnreachable, false) // it is known to be lost
	b.wantState(b.dial(), power.On)
	b.wantCommands()
}

func (b *bench) testLostAnswer() {
	lose := able[AnswerLoser](b)
	b.power(power.On)
	var want []power.Command
	for _, cmd := range []power.Command{power.HardReset, power.PowerOff, power.ResetBMC} {
		if b.lacks(cmd) {
			continue
		}
		want = append(want, cmd)
		d := b.dial()
		lose.LoseNextAnswers(1)
		start := time.Now()
		if e := b.wantErr(d.Do(b.Context(), cmd), power.KindUnreachable, true); !e.Lost {
			b.Errorf("%v is not Lost", e)
		}
		b.within(time.Since(start), b.Patience()+slack)
		d.Close()
		b.wantCommands(want...)
	}
}

func (b *bench) testLoss() {
	lossy := able[Lossy](b)
	b.power(power.On)
	d := b.dial()
	lossy.Lose(0.1)
	defer lossy.Lose(0)
	read, sent, answered := 0, 0, 0
	const rounds = 12
	for range rounds {
		if s, err := d.State(b.Context()); err == nil && s == power.On {
			read++
			sent++
			if err := d.Do(b.Context(), power.HardReset); err == nil {
				answered++
				continue
			} else if !power.WasSent(err) {
				sent--
			}
		}
		d.Close()
		lossy.Lose(0)
		d = b.dial()
		lossy.Lose(0.1)
	}
	if read < rounds*2/3 {
		b.Errorf("with one packet of ten lost, only %d of %d reads were answered", read, rounds)
	}
	if got := len(b.commands()); got < answered || got > sent {
		b.Errorf("the BMC got %d resets; %d were sent and %d answered", got, sent, answered)
	}
}

func (b *bench) testDuplicates() {
	able[Duplicator](b).Duplicate(true)
	d := b.dial()
	b.do(d, power.PowerOn)
	for _, s := range []power.State{power.On, power.Off, power.On, power.Off} {
		b.power(s)
		b.wantState(d, s) // an old answer taken for a new one would be wrong
	}
	b.power(power.On)
	b.do(d, power.HardReset)
	b.wantCommands(power.PowerOn, power.HardReset)
}

func (b *bench) testRefusals() {
	refuser := able[Refuser](b)
	b.power(power.On)
	d := b.dial()
	for _, kind := range []power.ErrorKind{power.KindBusy, power.KindRefused, power.KindUnsupported, power.KindPrivilege} {
		refuser.FailNext(1, kind)
		if e := b.wantRefused(d.Do(b.Context(), power.HardReset), kind); e.Lost {
			b.Errorf("%v is Lost, though the BMC answered", e)
		}
	}
	b.wantState(d, power.On)
	b.do(d, power.HardReset)
}

func (b *bench) testNoSession() {
	full := able[Filler](b)
	full.SetNoSession(true)
	took, err := b.dialErr(b.Context(), b.Endpoint())
	b.wantErr(err, power.KindBusy, false)
	b.within(took, 5*time.Second)
	full.SetNoSession(false)
	b.wantState(b.dial(), power.Off)
}

func (b *bench) testPrivilege() {
	r := able[Restricted](b)
	operator, err := b.Dial(b.Context(), r.Operator())
	if err != nil {
		b.Fatalf("operator: %v", err)
	}
	defer operator.Close()
	b.wantState(operator, power.Off)
	b.do(operator, power.PowerOn)
	b.wantRefused(operator.Do(b.Context(), power.ResetBMC), power.KindPrivilege)
	reader, err := b.Dial(b.Context(), r.Reader())
	if err != nil {
		b.Fatalf("reader: %v", err)
	}
	defer reader.Close()
	b.wantState(reader, power.On)
	b.wantRefused(reader.Do(b.Context(), power.PowerOff), power.KindPrivilege)
	b.wantErr(reader.SetBoot(b.Context(), power.BootPXE), power.KindPrivilege, false)
	b.wantCommands(power.PowerOn)
}

// testProbe: a probe takes no slot and asks for no password.
func (b *bench) testProbe() {
	probe := able[Prober](b)
	ep := b.Endpoint()
	ep.User, ep.Password = "nobody", "wrong"
	ask := func(when string) {
		b.Helper()
		if err := probe.Probe(b.Context(), ep); err != nil {
			b.Errorf("%s: %v", when, err)
		}
	}
	for range 20 {
		ask("at rest")
	}
	if c, ok := b.Target.(Counter); ok && (c.Sessions() != 0 || c.AuthFailures() != 0) {
		b.Errorf("the probes left %d sessions and %d refused log-ins", c.Sessions(), c.AuthFailures())
	}
	if f, ok := b.Target.(Filler); ok {
		f.SetNoSession(true)
		ask("out of sessions")
		f.SetNoSession(false)
	}
	d := b.dial()
	ask("beside a session")
	b.wantState(d, power.Off)
	b.wantCommands()
}

func (b *bench) testProbeMute() {
	probe, hang := able[Prober](b), able[Hanger](b)
	hang.Hang()
	start := time.Now()
	b.wantErr(probe.Probe(b.Context(), b.Endpoint()), power.KindUnreachable, false)
	b.within(time.Since(start), b.Patience()+slack)
	hang.Wake()
	if err := probe.Probe(b.Context(), b.Endpoint()); err != nil {
		b.Errorf("after it woke up: %v", err)
	}
}

func (b *bench) testProbeCancelled() {
	probe, hang := able[Prober](b), able[Hanger](b)
	b.wantErr(probe.Probe(b.cancelled(), b.Endpoint()), power.KindCanceled, false)
	hang.Hang()
	defer hang.Wake()
	ctx, cancel := context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	b.wantErr(probe.Probe(ctx, b.Endpoint()), power.KindCanceled, false)
	b.within(time.Since(start), 50*time.Millisecond+slack/4)
}
