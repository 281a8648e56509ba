package ipmi

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// FuzzDCMI reads what BMCs send.
func FuzzDCMI(f *testing.F) {
	f.Add([]byte{0x2c, 1, 0x20, 1, 0x40, 1, 0x30, 1, 1, 2, 3, 4, 0x60, 0xea, 0, 0, 0x40}, byte(0))
	f.Add([]byte{0, 0, 1, 0x20, 3, 0xe8, 3, 0, 0, 0, 0, 1, 0}, byte(0x80))
	f.Add([]byte{}, byte(0x80))
	f.Fuzz(func(t *testing.T, data []byte, code byte) {
		c, err := parseReading(data)
		if err == nil && (c.Watts == nil || c.Min == nil || c.Max == nil || c.Average == nil) {
			t.Errorf("%+v", c)
		}
		set, err := parseLimit(data, types.CompletionCode(code))
		if err != nil || len(data) < 13 {
			return
		}
		if set.Now() < 0 || set.Now() > power.MaxLimit || set.Active != (code == 0) || set.Exception == "" {
			t.Errorf("%+v", set)
		}
		set.correction, set.period = max(set.correction, 1), max(set.period, 1)
		if again, err := parseLimit(slices.Concat(set.data()[1:], make([]byte, 13)), 0); err != nil || again.Watts != set.Watts {
			t.Errorf("%+v, %v", again, err)
		}
	})
}

// TestDCMIKeepsTheRestOfALimit: what a BMC does at the limit, and within which time, is not the
// cap's to change.
func TestDCMIKeepsTheRestOfALimit(t *testing.T) {
	set, err := parseLimit([]byte{0, 0, 0x11, 0x20, 3, 0x10, 0x27, 0, 0, 0, 0, 5, 0}, types.CodeGetDCMIPowerLimitNoActiveLimit)
	if err != nil || set.Watts != 800 || set.Now() != 0 || set.Exception != power.LimitLogEventOnly {
		t.Fatalf("%+v, %v", set, err)
	}
	set.Watts = 600
	if got := set.data(); !bytes.Equal(got, []byte{0, 0, 0, 0x11, 0x58, 2, 0x10, 0x27, 0, 0, 0, 0, 5, 0}) {
		t.Errorf("% x", got)
	}
}

// TestDCMILimitOutOfRange: a BMC that takes other limits says so once.
func TestDCMILimitOutOfRange(t *testing.T) {
	t.Parallel()
	s := startSim(t, impatient)
	d, err := s.Dial(t.Context(), s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m := d.(power.Meter)
	for _, watts := range []int{5, power.MaxLimit} {
		if err := m.SetLimit(context.Background(), watts); power.KindOf(err) != power.KindRefused || !power.WasSent(err) {
			t.Errorf("%d W: %v", watts, err)
		}
	}
	if err := m.SetLimit(context.Background(), power.MaxLimit+1); power.KindOf(err) != power.KindUnsupported || power.WasSent(err) {
		t.Error(err)
	}
}
