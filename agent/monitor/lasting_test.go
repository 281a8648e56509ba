package monitor

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rackpower/power"
)

// readMemory reads a record.
func readMemory(payload []byte) (m Memory, err error) {
	err = json.Unmarshal(payload, &m)
	return m, err
}

// TestFallsMatchATwin plays readings and ends against a naive count.
func TestFallsMatchATwin(t *testing.T) {
	tm := Timing{}.WithDefaults()
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		m := Memory{Desired: power.Desired{Want: power.WantOn}, Since: now}
		var at time.Time // the newest power-on of the monitor; zero: nothing has to last
		var gone, fellAt time.Time
		falls := 0
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 5, 20, 29, 30, 60, 600, 1800}).Draw(rt, "pause")) * time.Second)
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				m.ended(power.Op{ID: fmt.Sprint(i), Action: power.ActOn, Origin: power.FromMonitor}, power.End{
					Outcome: power.Succeeded, Attempts: 1,
					At: now,
				}, true, tm)
				at, gone = now, time.Time{}
			case 1:
				m.ended(power.Op{ID: fmt.Sprint(i), Action: power.ActOff}, power.End{Outcome: power.Succeeded, Already: true, At: now}, true, tm)
				at = time.Time{}
			default:
				state := power.On
				if rapid.Bool().Draw(rt, "off") {
					state = power.Off
				}
				m.saw(power.Seen(state, now), false, false, tm)
				switch {
				case at.IsZero() && state == power.On && now.Sub(fellAt) >= 30*time.Minute:
					falls = 0
				case at.IsZero():
				case state == power.On && now.Sub(at) >= 30*time.Minute:
					at = time.Time{}
					if now.Sub(fellAt) >= 30*time.Minute {
						falls = 0
					}
				case state == power.On:
					gone = time.Time{}
				default:
					if gone.IsZero() {
						gone = now
					}
					if now.Sub(at) >= 30*time.Second {
						if gone.Sub(at) < 30*time.Minute {
							falls++
							fellAt = now
						}
						at, gone = time.Time{}, time.Time{}
					}
				}
			}
			data, err := json.Marshal(m.kept())
			if err != nil {
				rt.Fatal(err)
			}
			again, err := readMemory(data)
			if err != nil || again != m.kept() {
				rt.Fatalf("read back as %+v, was %+v: %v", again, m, err)
			}
			if m.Lost != falls || m.Failures+m.Earlier != m.Lost || (m.Left != "") != !at.IsZero() {
				rt.Fatalf("%d falls: %+v", falls, m)
			}
		}
	})
}

// TestMemoriesOfBeforeAreRead: agents of before wrote of power-offs only.
func TestMemoriesOfBeforeAreRead(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	m, err := readMemory([]byte(`{"desired":{"want":"off"},"since":"2026-01-01T11:00:00Z","off_at":"2026-01-01T12:00:00Z","off_mine":true,"failures":2}`))
	if err != nil || m.Left != power.Off || !m.LeftAt.Equal(at) || !m.LeftMine || m.Failures != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	if !m.saw(power.Seen(power.On, at.Add(31*time.Second)), false, false, Timing{}.WithDefaults()) || m.Fault == "" {
		t.Errorf("%+v", m)
	}
	if m, err := readMemory([]byte(`{"desired":{"want":"off"},"off_at":"0001-01-01T00:00:00Z"}`)); err != nil || m.Left != "" {
		t.Errorf("%+v, %v", m, err)
	}
}
