package slurm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/cmd/rackpower/front"
	"rackpower/power"
)

// fleet takes what it is asked for, but for n2.
type fleet struct {
	asked []front.Request
	err   error
}

func (f *fleet) Names(context.Context) ([]string, error) { return nil, errors.New("not asked for") }

func (f *fleet) Read(context.Context, []string, time.Duration) ([]front.Reading, error) {
	return nil, errors.New("not asked for")
}

func (f *fleet) Operate(_ context.Context, in front.Request) (results []front.Result, err error) {
	f.asked = append(f.asked, in)
	for _, name := range in.Names {
		results = append(results, front.Result{Node: name, OK: name != "n2", Text: "refused: held off"})
	}
	return results, f.err
}

func TestHandsOver(t *testing.T) {
	for _, p := range []Program{Suspend, SuspendNow, Resume, ResumeFail} {
		f := &fleet{}
		if err := p.Run(t.Context(), f, "n[3-4],u1"); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if in := f.asked[0]; !in.Hand || in.Action != p.Action || in.Reason != p.Reason || !slices.Equal(in.Names, []string{"n3", "n4", "u1"}) {
			t.Errorf("%s: %+v", p.Name, in)
		}
	}
	if Suspend.Action != power.ActSoftOff || Resume.Action != power.ActOn || ResumeFail.Action != power.ActOff {
		t.Error("the programs ask for something else")
	}
}

func TestNamesWhatWasNotTaken(t *testing.T) {
	if err := Resume.Run(t.Context(), &fleet{}, "n[1-3]"); err == nil || err.Error() != "on: n2: refused: held off" {
		t.Error(err)
	}
	if err := Resume.Run(t.Context(), &fleet{err: errors.New("away")}, "n[1-3]"); err == nil || err.Error() != "on of n[1-3]: away" {
		t.Error(err)
	}
	for _, bad := range []string{"", "n[1-", "@r1", "n*"} {
		f := &fleet{}
		if err := Resume.Run(t.Context(), f, bad); err == nil || !strings.Contains(err.Error(), "hostlist") || len(f.asked) > 0 {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
