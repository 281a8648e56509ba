package redfish

import (
	"context"
	"regexp"
	"slices"
	"sync"

	"rackpower/power"
)

// difference is where BMCs of a maker differ from what is usual, and what to do instead: one of
// types, target, ipmi and remark.
type difference struct {
	maker    *regexp.Regexp // of the System's Manufacturer
	model    *regexp.Regexp // of its Model; nil: all
	firmware *regexp.Regexp // of its manager's FirmwareVersion; nil: all

	cmd    power.Command
	types  []string // of reset for the command, in place of those in resetTypes
	device power.BootDevice
	target string // for the boot device, where the BMC offers it, in place of that in bootTargets
	ipmi   string // why the BMC is better spoken to by IPMI
	remark string // for people

	source string // who says so
}

// differences are those that are known. The first that fits and says something counts.
var differences = sync.OnceValue(func() []difference {
	return []difference{
		{
			// iLO 4 offers On, ForceOff, ForceRestart, Nmi and PushPowerButton. A momentary press of the
			// button asks a running system to shut down.
			maker: regexp.MustCompile(`(?i)^(HPE?|Hewlett[ -]?Packard)\b`), cmd: power.PressSoftOff,
			types:  []string{"GracefulShutdown", pushButton},
			source: "https://hewlettpackard.github.io/ilo-rest-api-docs/ilo4",
		},
		{
			// Virtual media are a USB CD drive, and both are offered; but not so on this model.
			maker: regexp.MustCompile(`(?i)^Supermicro\b`), model: regexp.MustCompile(`(?i)^ARS-111GL-NHR$`),
			device: power.BootCDROM, target: "Cd",
			source: "https://opendev.org/openstack/sushy/src/branch/master/sushy/resources/system/system.py",
		},
		{
			maker: regexp.MustCompile(`(?i)^Supermicro\b`), device: power.BootCDROM, target: "UsbCd",
			source: "https://opendev.org/openstack/sushy/src/branch/master/sushy/resources/system/system.py",
		},
		{
			maker: regexp.MustCompile(`(?i)^ASRock ?Rack\b`), model: regexp.MustCompile(`(?i)^E3C246D4I-NL\b`),
			ipmi:   "this model is known for a wrong power state by Redfish",
			source: "https://github.com/tinkerbell/pbnj/pull/127",
		},
		{
			maker: regexp.MustCompile(`(?i)^Dell\b`), model: regexp.MustCompile(`(?i)\bR6[45]0\b`), firmware: regexp.MustCompile(`^5\.10\.10\.05$`),
			remark: "this firmware is known to acknowledge power-on and to do nothing; update it to 5.10.30.00 or later",
			source: "https://github.com/redhat-performance/jetlag/issues/245",
		},
	}
})

// differs is the first difference that fits the BMC and says something of what is asked for, nil
// where there is none. The manager is asked for its firmware where that matters.
func (s *session) differs(ctx context.Context, op string, says func(d difference) bool) *difference {
	known := differences()
	for i, d := range known {
		if !says(d) || !d.maker.MatchString(string(s.system.Manufacturer)) || d.model != nil && !d.model.MatchString(string(s.system.Model)) {
			continue
		}
		if d.firmware != nil {
			var m manager
			managers := s.system.Links.value.ManagedBy
			if len(managers) == 0 {
				continue
			}
			if _, err := s.read(ctx, op, managers[0], &m); err != nil || !d.firmware.MatchString(string(m.Firmware)) {
				continue
			}
		}
		return &known[i]
	}
	return nil
}

// types are the types of reset for a command, the best first.
func (s *session) types(ctx context.Context, op string, cmd power.Command) []string {
	if d := s.differs(ctx, op, func(d difference) bool { return d.cmd == cmd }); d != nil {
		return d.types
	}
	return resetTypes[cmd]
}

// target is the boot target for a device.
func (s *session) target(ctx context.Context, dev power.BootDevice) string {
	d := s.differs(ctx, opBoot, func(d difference) bool { return d.target != "" && d.device == dev })
	if d != nil && slices.Contains(s.system.Boot.value.Targets, d.target) {
		return d.target
	}
	return bootTargets[dev]
}
