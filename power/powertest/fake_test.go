package powertest

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/power"
)

// dialFake opens a session to the BMC "n1" of a new Fake.
func dialFake(t *testing.T) (*BMC, power.Driver) {
	t.Helper()
	f := NewFake()
	d, err := f.Dial(t.Context(), power.Endpoint{Scheme: "ipmi", Host: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	return f.BMC("n1"), d
}

func redial(t *testing.T, b *BMC) power.Driver {
	t.Helper()
	d, err := b.fake.Dial(t.Context(), power.Endpoint{Host: b.Name()})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func wantState(t *testing.T, d power.Driver, want power.State) {
	t.Helper()
	if got, err := d.State(t.Context()); err != nil || got != want {
		t.Errorf("State = %v, %v, want %v", got, err, want)
	}
}

func wantKind(t *testing.T, err error, kind power.ErrorKind, sent bool) {
	t.Helper()
	if power.KindOf(err) != kind || power.WasSent(err) != sent {
		t.Errorf("got %v (kind %q, sent %v), want kind %q, sent %v", err, power.KindOf(err), power.WasSent(err), kind, sent)
	}
}

func TestFakeReportsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := dialFake(t)
		b.SetOnAfter(2 * time.Second)
		b.SetOffAfter(3 * time.Second)
		wantKind(t, d.Do(t.Context(), power.PowerOn), "", true)
		wantState(t, d, power.Off)
		time.Sleep(2 * time.Second)
		wantState(t, d, power.On)
		wantKind(t, d.Do(t.Context(), power.PowerOff), "", true)
		if b.Power() != power.Off || b.Counts().Cuts != 1 {
			t.Errorf("power %v, %d cuts at once after power-off, want off, 1", b.Power(), b.Counts().Cuts)
		}
		time.Sleep(2999 * time.Millisecond)
		wantState(t, d, power.On)
		time.Sleep(time.Millisecond)
		wantState(t, d, power.Off)
	})
}

func TestFakeSoftOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := dialFake(t)
		b.SetPower(power.On)
		b.SetSoftOffAfter(time.Minute)
		b.SetDeaf(true)
		wantKind(t, d.Do(t.Context(), power.PressSoftOff), "", true)
		time.Sleep(time.Hour)
		wantState(t, d, power.On)
		b.SetDeaf(false)
		wantKind(t, d.Do(t.Context(), power.PressSoftOff), "", true)
		wantState(t, d, power.On)
		time.Sleep(time.Minute)
		wantState(t, d, power.Off)
		if got := b.Counts().Cuts; got != 1 {
			t.Errorf("%d cuts, want 1", got)
		}
	})
}

func TestFakeFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := dialFake(t)
		b.SetPower(power.On)
		b.SetStuck(true)
		wantKind(t, d.Do(t.Context(), power.PowerOff), "", true)
		wantState(t, d, power.On)
		b.SetStuck(false)
		b.LoseNextAnswers(1)
		wantKind(t, d.Do(t.Context(), power.PowerOff), power.KindUnreachable, true)
		wantKind(t, d.Do(t.Context(), power.PowerOff), power.KindUnreachable, false) // the session is lost
		d = redial(t, b)
		wantState(t, d, power.Off)
		b.FailNext(1, power.KindBusy)
		wantKind(t, d.Do(t.Context(), power.PowerOn), power.KindBusy, true)
		wantState(t, d, power.Off)
		log := b.Log()
		if len(log) != 3 || log[0].Executed || !log[1].Executed || log[2].Executed {
			t.Errorf("log %+v, want stuck, executed, refused", log)
		}

		b.SetMute(true)
		started := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantKind(t, d.Do(ctx, power.PowerOn), power.KindCanceled, true)
		if took := time.Since(started); took != time.Second {
			t.Errorf("a cancelled command took %v, want 1s", took)
		}
		wantKind(t, d.Do(ctx, power.PowerOn), power.KindCanceled, false)
		_, err := d.State(t.Context())
		wantKind(t, err, power.KindUnreachable, false)
		b.SetMute(false)
		d = redial(t, b)
		wantState(t, d, power.Off)

		b.SetRebootTime(time.Minute)
		wantKind(t, d.Do(t.Context(), power.ResetBMC), "", true)
		_, err = d.State(t.Context())
		wantKind(t, err, power.KindUnreachable, false)
		time.Sleep(time.Minute)
		_, err = d.State(t.Context())
		wantKind(t, err, power.KindUnreachable, false) // the session died with the restart
	})
}

func TestFakeDialFaults(t *testing.T) {
	f := NewFake()
	ep := power.Endpoint{Host: "n1", User: "admin", Password: "secret"}
	dial := func(ep power.Endpoint) error {
		d, err := f.Dial(t.Context(), ep)
		if err == nil {
			d.Close()
		}
		return err
	}
	b := f.BMC("n1")
	b.SetAccount("admin", "secret")
	wantKind(t, dial(ep), "", true)
	bad := ep
	bad.Password = "Secret"
	wantKind(t, dial(bad), power.KindAuth, false)
	b.SetWrongPassword(true)
	wantKind(t, dial(ep), power.KindAuth, false)
	b.SetWrongPassword(false)
	b.SetNoSession(true)
	wantKind(t, dial(ep), power.KindBusy, false)
	b.SetNoSession(false)
	b.FailNextDials(1, power.KindUnreachable)
	wantKind(t, dial(ep), power.KindUnreachable, false)
	wantKind(t, dial(ep), "", true)
	if c := b.Counts(); c.Dials != 6 || c.AuthFailures != 2 || c.Sessions != 0 || c.MaxInFlight != 1 {
		t.Errorf("counts %+v, want 6 dials, 2 refused, no session open, 1 in flight", c)
	}
}

func TestFakeSeesTwoInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, d := dialFake(t)
		b.SetLatency(time.Second)
		for range 2 {
			go d.State(t.Context())
		}
		time.Sleep(2 * time.Second)
		if got := b.Counts().MaxInFlight; got != 2 {
			t.Errorf("MaxInFlight = %d after two reads at once, want 2", got)
		}
	})
}

func TestFakeHooks(t *testing.T) {
	f := NewFake()
	var seen []string
	f.Hook(func(e Event) {
		seen = append(seen, string(e.Phase)+" "+e.Op)
		if e.Phase == Before && e.Op == "power-off" {
			e.BMC.LoseNextAnswers(1)
			e.BMC.SetTimeout(0)
		}
	})
	d, err := f.Dial(t.Context(), power.Endpoint{Host: "n1", Port: 7623})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, d.Do(t.Context(), power.PowerOff), power.KindUnreachable, true)
	want := []string{"before dial", "after dial", "before power-off", "after power-off"}
	if len(seen) != 4 || seen[0] != want[0] || seen[1] != want[1] || seen[2] != want[2] || seen[3] != want[3] {
		t.Errorf("hooks saw %q, want %q", seen, want)
	}
	if got := f.Log(); len(got) != 1 || got[0].BMC != "n1:7623" {
		t.Errorf("log %+v, want one command on n1:7623", got)
	}
}
