package redfish

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

// FuzzResources reads what BMCs send.
func FuzzResources(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, `null`, `{"PowerState": null, "Actions": [], "Boot": 7, "Links": {"ManagedBy": {"@odata.id": "/a"}}}`,
		`{"Actions": {"#ComputerSystem.Reset": {"target": "https://h/x", "ResetType@Redfish.AllowableValues": ["On", 1, null]}}}`,
		`{"Members": [{"@odata.id": "/redfish/v1/Systems/1"}, "/x", 3, null], "Members@odata.nextLink": "/y"}`,
		`{"Parameters": [{"Name": "ResetType", "AllowableValues": "On"}]}`,
		`{"error": {"code": 5, "@Message.ExtendedInfo": {"MessageId": "Base.1.0.X", "Message": "a"}}}`,
		`{"UserName": ["a"], "CreatedTime": 5}`, "\xEF\xBB\xBF{}", strings.Repeat(`{"a":`, 100), `{"a":"\"{[{["}`,
		`<html><body><script>x</script><p>no</p></body></html>`, `{"TaskState": "Running", "Messages": 3}`,
		`{"PowerControl": [{"PowerConsumedWatts": 614.2, "PowerLimit": {"LimitInWatts": null}, "RelatedItem": [{"@odata.id": "/a"}]}, 5]}`,
		`{"PowerControl": {"PowerConsumedWatts": 1e300, "PowerMetrics": [], "PowerLimit": 4}}`,
		`{"PowerWatts": {"Reading": "x"}, "PowerLimitWatts": {"SetPoint": -4, "ControlMode": null}}`,
	} {
		f.Add([]byte(s), 503, "120")
	}
	f.Fuzz(func(t *testing.T, body []byte, status int, after string) {
		var sys computerSystem
		_ = parse(body, &sys)
		for _, into := range []any{
			new(serviceRoot), new(collection), new(manager), new(actionInfo), new(sessionResource), new(task), new(chassis),
		} {
			_ = parse(body, into)
		}
		var p powerResource
		var e environmentMetrics
		_, _ = parse(body, &p), parse(body, &e)
		for i, pc := range p.Controls {
			_ = limitPlace{control: i}.body(1)
			for _, w := range []*int{pc.Consumed.watts(), pc.Metrics.value.Min.watts()} {
				if w != nil && *w < 0 {
					t.Errorf("%d watts", *w)
				}
			}
		}
		if w := e.Power.value.Reading.watts(); w != nil && *w < 0 {
			t.Errorf("%d watts", *w)
		}
		for _, path := range append(sys.Links.value.ManagedBy, sys.reset().Target, sys.reset().Info, sys.Settings.value.Object) {
			if path != "" && (!strings.HasPrefix(string(path), "/") || strings.HasPrefix(string(path), "//")) {
				t.Errorf("path %q", path)
			}
			if strings.ContainsFunc(lastSegment(path), unicode.IsControl) {
				t.Errorf("name %q", lastSegment(path))
			}
		}
		a := answer{status: status, header: http.Header{"Retry-After": {after}, "Location": {after}}, body: body}
		for _, acts := range []bool{true, false} {
			e := refused("x", a, acts, acts)
			if e.After < 0 || e.After > maxRetryAfter || e.Kind == "" || e.Sent && !acts {
				t.Errorf("%v, after %s", e, e.After)
			}
			if text := e.Error(); len(text) > 4*maxSaid+100 || strings.ContainsFunc(text, unicode.IsControl) {
				t.Errorf("text %q", text)
			}
		}
		if path := a.location(); path != "" && !strings.HasPrefix(path, "/") {
			t.Errorf("location %q", path)
		}
	})
}

// FuzzNote reads what an earlier version may have kept.
func FuzzNote(f *testing.F) {
	f.Add([]byte(`{"pin":"sha256:00","sessions":["/a"],"opening":["2026-01-01T00:00:00Z"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var n note
		if json.Unmarshal(data, &n) != nil {
			return
		}
		for range 10 {
			n.addSession("/x")
			n.addOpening(time.Now())
		}
		if n.dropSession("/x"); len(n.Sessions) > maxLeft || len(n.Opening) > maxLeft {
			t.Errorf("%+v", n)
		}
	})
}
