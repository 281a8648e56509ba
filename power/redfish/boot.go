package redfish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rackpower/power"
)

// bootTargets say how a boot device is spoken (DSP0268, BootSourceOverrideTarget).
var bootTargets = map[power.BootDevice]string{
	power.BootNone:  "None",
	power.BootPXE:   "Pxe",
	power.BootDisk:  "Hdd",
	power.BootCDROM: "Cd",
	power.BootBIOS:  "BiosSetup",
}

// SetBoot implements power.Driver: for the next boot only. BootNone takes it back. It asks for
// device, duration and mode in one PATCH, and reads them back.
func (s *session) SetBoot(ctx context.Context, dev power.BootDevice) error {
	if _, known := bootTargets[dev]; !known {
		return &power.Error{Kind: power.KindUnsupported, Op: opBoot, Err: fmt.Errorf("no boot device of Redfish is %q", dev)}
	}
	if err := s.ready(ctx, opBoot); err != nil {
		return err
	}
	if err := s.setBoot(ctx, dev); err != nil {
		err.Sent = false
		return s.check(err)
	}
	return nil
}

func (s *session) setBoot(ctx context.Context, dev power.BootDevice) *power.Error {
	if err := s.readSystem(ctx, opBoot); err != nil {
		return err
	}
	there := s.system.Boot.value
	target := s.target(ctx, dev)
	if len(there.Targets) > 0 && !slices.Contains(there.Targets, target) && dev != power.BootNone {
		return &power.Error{Kind: power.KindUnsupported, Op: opBoot, Err: fmt.Errorf("the BMC boots from %v alone, and %s is wanted",
			there.Targets,
			target)}
	}
	path, tag, err := s.bootPlace(ctx)
	if err != nil {
		return err
	}
	want := boot{Enabled: "Once", Target: text(target)}
	if dev == power.BootNone {
		want.Enabled = "Disabled"
	}
	body := map[string]text{"BootSourceOverrideEnabled": want.Enabled, "BootSourceOverrideTarget": want.Target}
	if there.Mode != "" {
		want.Mode = "UEFI"
		if s.ep.LegacyBoot {
			want.Mode = "Legacy"
		}
		body["BootSourceOverrideMode"] = want.Mode
	}
	err = s.patch(ctx, opBoot, path, tag, map[string]any{"Boot": body})
	var said *statusError
	if err != nil && errors.As(err.Err, &said) && said.status == http.StatusBadRequest && want.Mode != "" && want.Mode == there.Mode {
		// It may be that the mode, which is as it should be, cannot be written.
		delete(body, "BootSourceOverrideMode")
		err = s.patch(ctx, opBoot, path, tag, map[string]any{"Boot": body})
	}
	if err != nil {
		return err
	}
	return s.tookBoot(ctx, path, want)
}

// bootPlace is the resource at which a boot device is set: the settings object of the System
// where that can take it, else the System itself.
func (s *session) bootPlace(ctx context.Context) (link, text, *power.Error) {
	settings := s.system.Settings.value.Object
	if settings == "" {
		return s.at, s.system.ETag, nil
	}
	var pending computerSystem
	a, err := s.read(ctx, opBoot, settings, &pending)
	if err != nil && (err.Lost || err.Kind == power.KindCanceled) {
		return "", "", err
	}
	if err != nil || !pending.Boot.value.takesOverride() {
		return s.at, s.system.ETag, nil
	}
	return settings, tagOf(a, pending.ETag), nil
}

// ifMatch are the conditions under which a BMC may take a change, the next one where one does
// not do: some want the tag of what they gave, some refuse it, and weak ones never match, but
// for those who call strong tags weak.
func ifMatch(tag text) []string {
	switch {
	case tag == "":
		return []string{"", "*"}
	case strings.HasPrefix(string(tag), "W/"):
		return []string{"*", strings.TrimPrefix(string(tag), "W/"), ""}
	}
	return []string{string(tag), "*", ""}
}

// patch changes a resource. It may be repeated: the change is the same each time.
func (s *session) patch(ctx context.Context, op string, path link, tag text, body any) *power.Error {
	var last *power.Error
	for _, match := range ifMatch(tag) {
		r := request{op: op, method: http.MethodPatch, path: string(path), body: body}
		if match != "" {
			r.header = map[string]string{"If-Match": match}
		}
		a, err := s.client.send(ctx, r)
		switch {
		case err != nil:
			return err
		case a.ok():
			return nil
		}
		last = refused(op, a, s.worked, false)
		if a.status != http.StatusPreconditionFailed && a.status != http.StatusPreconditionRequired {
			return last
		}
	}
	return last
}

// tookBoot reads back what was set, there and at the System.
func (s *session) tookBoot(ctx context.Context, path link, want boot) *power.Error {
	var has boot
	for _, at := range slices.Compact([]link{path, s.at}) {
		var sys computerSystem
		if _, err := s.read(ctx, opBoot, at, &sys); err != nil {
			return err
		}
		has = sys.Boot.value
		if has.Enabled == want.Enabled && (want.Enabled == "Disabled" || has.Target == want.Target) {
			return nil
		}
	}
	return &power.Error{Kind: power.KindRefused, Op: opBoot, Err: fmt.Errorf("the BMC took %s for %s and now says %q for %q", want.Target,
		want.Enabled, clean(string(has.Target)), clean(string(has.Enabled)))}
}
