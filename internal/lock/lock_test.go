//go:build lockrank

package lock

import "testing"

func TestOrder(t *testing.T) {
	panics := func(what string, fn func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", what)
			}
		}()
		fn()
	}
	var lane, other Mutex[Lane]
	var alarms Mutex[Alarms]
	lane.Lock()
	alarms.Lock()
	alarms.Unlock()
	panics("two lanes", other.Lock)
	lane.Unlock()
	alarms.Lock()
	panics("upwards", lane.Lock)
	alarms.Unlock()
	lane.Lock()
	lane.Unlock()
}
