package redfish

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"rackpower/power"
)

// bootOf is a BMC whose System has a tag, and takes changes under the conditions that accepts
// says; ifMatch are those that came.
func bootOf(t *testing.T, tag string, accepts func(match string) bool) (f *fakeBMC, came *[]string) {
	f = newFake(t)
	came = new([]string)
	f.hook = func(_ *fakeBMC, w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
		if !strings.HasSuffix(r.URL.Path, "/Systems/1") {
			return false
		}
		if tag != "" {
			w.Header().Set("ETag", tag)
		}
		if r.Method != http.MethodPatch {
			return false
		}
		match := r.Header.Get("If-Match")
		*came = append(*came, match)
		if !accepts(match) {
			w.WriteHeader(http.StatusPreconditionFailed)
			return true
		}
		return false
	}
	return f, came
}

func TestBootUnderConditions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		tag, accepts string
		came         string
		ok           bool
	}{
		{`"abc"`, `"abc"`, `"abc"`, true},
		{`"abc"`, "*", `"abc" *`, true},
		{`"abc"`, "", `"abc" * `, true},
		{`"abc"`, "never", `"abc" * `, false},
		{`W/"abc"`, "*", "*", true},
		{`W/"abc"`, `"abc"`, `* "abc"`, true},
		{`W/"abc"`, "", `* "abc" `, true},
		{"", "", "", true},
		{"", "*", " *", true},
	} {
		f, came := bootOf(t, c.tag, func(match string) bool { return match == c.accepts })
		err := f.dialed(f.Endpoint()).SetBoot(t.Context(), power.BootPXE)
		if (err == nil) != c.ok || strings.Join(*came, " ") != c.came {
			t.Errorf("tag %s, wanted is %q: If-Match %q, %v", c.tag, c.accepts, *came, err)
		}
	}
}

func TestBootIsOnePatchAndReadBack(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	d := f.dialed(f.Endpoint())
	if err := d.SetBoot(t.Context(), power.BootBIOS); err != nil {
		t.Fatal(err)
	}
	if n := len(f.requests("PATCH")); n != 1 || f.boot["BootSourceOverrideEnabled"] != "Once" ||
		f.boot["BootSourceOverrideTarget"] != "BiosSetup" ||
		f.boot["BootSourceOverrideMode"] != "UEFI" {
		t.Errorf("%d changes, boot %v", n, f.boot)
	}
	f.set(func() {
		f.hook = func(_ *fakeBMC, w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
			if r.Method == http.MethodPatch {
				w.WriteHeader(204) // and nothing is done
			}
			return r.Method == http.MethodPatch
		}
	})
	if e := failure(t, d.SetBoot(t.Context(), power.BootPXE)); e.Kind != power.KindRefused || !strings.Contains(e.Error(), "BiosSetup") ||
		e.Sent {
		t.Errorf("a change that is not done: %v", e)
	}
	f.set(func() {
		f.boot["BootSourceOverrideTarget@Redfish.AllowableValues"] = []string{"None", "Hdd"}
		f.hook = nil
	})
	if e := failure(t, d.SetBoot(t.Context(), power.BootPXE)); e.Kind != power.KindUnsupported {
		t.Errorf("a device that is not offered: %v", e)
	}
}

// TestBootInTheSettings: where the settings object takes boot devices, it alone is changed.
func TestBootInTheSettings(t *testing.T) {
	t.Parallel()
	for takes, want := range map[string]string{
		`{"Boot": {"BootOrder": ["a"]}}`: "PATCH /redfish/v1/Systems/1",
		`{"Boot": {"BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Once"}}`: "PATCH /redfish/v1/Systems/1/Settings",
		`[]`: "PATCH /redfish/v1/Systems/1",
	} {
		f := newFake(t)
		f.hook = func(f *fakeBMC, w http.ResponseWriter, r *http.Request, _ map[string]any) bool {
			switch {
			case strings.HasSuffix(r.URL.Path, "/Settings") && r.Method == http.MethodGet:
				_, _ = io.WriteString(w, takes)
			case strings.HasSuffix(r.URL.Path, "/Settings"):
				takes = `{"Boot": {"BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"}}`
				w.WriteHeader(204)
			case strings.HasSuffix(r.URL.Path, "/Systems/1") && r.Method == http.MethodGet:
				sys := get(f, func() map[string]any { return f.systemOf("1") })
				sys["@Redfish.Settings"] = map[string]any{"SettingsObject": odata("/redfish/v1/Systems/1/Settings")}
				reply(w, 200, sys)
			default:
				return false
			}
			return true
		}
		if err := f.dialed(f.Endpoint()).SetBoot(t.Context(), power.BootPXE); err != nil {
			t.Errorf("settings %s: %v", takes, err)
		}
		if all := f.requests("PATCH"); strings.Join(all, ", ") != want {
			t.Errorf("settings %s: %v", takes, all)
		}
	}
}

// TestBootOfABMCWhoseModeIsFixed: what is as it should be is left out.
func TestBootOfABMCWhoseModeIsFixed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.hook = func(_ *fakeBMC, w http.ResponseWriter, r *http.Request, body map[string]any) bool {
		set, _ := body["Boot"].(map[string]any)
		if r.Method != http.MethodPatch || set["BootSourceOverrideMode"] == nil {
			return false
		}
		complain(w, 400, "Base.1.8.PropertyNotWritable", "the mode is read-only")
		return true
	}
	d := f.dialed(f.Endpoint())
	if err := d.SetBoot(t.Context(), power.BootPXE); err != nil || f.boot["BootSourceOverrideTarget"] != "Pxe" {
		t.Errorf("%v, %v", err, f.boot)
	}
	f.set(func() { f.boot["BootSourceOverrideMode"] = "Legacy" })
	if e := failure(t, d.SetBoot(t.Context(), power.BootPXE)); e.Kind != power.KindRefused {
		t.Errorf("the wrong mode: %v", e)
	}
}
