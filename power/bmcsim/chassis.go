package bmcsim

import (
	"time"

	"rackpower/power"
)

// bootFlagsLast is how long a boot device stays set without a chassis command
// (IPMI v2.0 table 28-14, parameter 3, bit 3).
const bootFlagsLast = 60 * time.Second

// node is the machine behind a BMC. The lock of its BMC guards it.
type node struct {
	on     bool // what it is
	target bool // what it will be when everything accepted has taken effect
	shown  bool // what the BMC says that it is

	onAfter, offAfter, softAfter, backAfter, lag time.Duration
	stuck, deaf                                  bool

	shutting bool // the system was asked to shut down and will

	flags     [5]byte // boot flags (table 28-14, parameter 5)
	flagsAt   time.Time
	flagsKeep bool // parameter 3 asked to keep them beyond bootFlagsLast
	flagsKept bool // a chassis command came in time
	lastBoot  power.BootDevice

	limit          int // in watts, active; 0: none
	limitAsked     int // what was set last, and may wait to be activated
	limitException string

	cuts, powerOns, resets, diags int
}

func stateOf(on bool) power.State {
	if on {
		return power.On
	}
	return power.Off
}

// switchTo plans the node's change to on, delay from now but never before what
// was planned earlier.
func (b *BMC) switchTo(now time.Time, on bool, delay time.Duration) time.Time {
	at := now.Add(delay)
	if last := b.agenda.last(kindPower); last.After(at) {
		at = last
	}
	b.node.target = on
	b.agenda.add(at, kindPower, func() { b.switched(at, on, true) })
	b.keepState()
	return at
}

// switched is the moment in which the node's power changes.
func (b *BMC) switched(at time.Time, on, commanded bool) {
	n := &b.node
	if n.on == on {
		return
	}
	n.on = on
	b.show(at, on)
	b.agenda.drop(kindBack)
	if on {
		if commanded {
			n.powerOns++
		}
		b.event(at, EventOn, "node")
		b.boot(at)
		return
	}
	if commanded {
		n.cuts++
	}
	b.event(at, EventOff, "node")
	if n.backAfter > 0 && !n.target {
		back := at.Add(n.backAfter)
		b.agenda.add(back, kindBack, func() {
			n.target = true
			b.switched(back, true, false)
			b.keepState()
		})
	}
}

// show lets the BMC report a change of the power, as late as it does.
func (b *BMC) show(at time.Time, on bool) {
	if b.node.lag <= 0 {
		b.node.shown = on
		return
	}
	b.agenda.add(at.Add(b.node.lag), kindShown, func() { b.node.shown = on })
}

// boot is the moment in which the node looks where to boot from.
func (b *BMC) boot(at time.Time) {
	n := &b.node
	dev := n.bootDevice()
	if dev == power.BootNone {
		n.lastBoot = power.BootNone
		return
	}
	n.lastBoot = dev
	if n.flags[0]&0x40 == 0 { // this boot only
		n.flags = [5]byte{}
	}
	b.event(at, "booted "+string(dev), "node")
}

// bootDevice reads the boot flags, as far as they are valid.
func (n *node) bootDevice() power.BootDevice {
	if n.flags[0]&0x80 == 0 {
		return power.BootNone
	}
	switch n.flags[1] >> 2 & 0x0f {
	case 0:
		return power.BootNone
	case 1:
		return power.BootPXE
	case 2, 3:
		return power.BootDisk
	case 5, 8:
		return power.BootCDROM
	case 6:
		return power.BootBIOS
	default:
		return "other"
	}
}

// expireBoot forgets a boot device that no chassis command followed in time, and
// otherwise keeps it from now on, since one has.
func (b *BMC) expireBoot(now time.Time) {
	n := &b.node
	if n.flags[0]&0x80 == 0 || n.flagsKeep || n.flagsKept {
		return
	}
	if now.Sub(n.flagsAt) > bootFlagsLast {
		n.flags = [5]byte{}
		b.event(now, EventExpired, "node")
		return
	}
	n.flagsKept = true
}

// shutDown lets the node's system end itself and turn off the power. Turning on a
// node meanwhile does nothing, since it is on.
func (b *BMC) shutDown(now time.Time) {
	n := &b.node
	n.shutting, n.target = true, false
	at := now.Add(n.softAfter)
	b.agenda.add(at, kindSystem, func() {
		n.shutting = false
		b.switchTo(at, false, n.offAfter)
	})
}

// killSystem ends a shut-down under way: power or reset was pulled under it.
func (b *BMC) killSystem() {
	if b.node.shutting {
		b.agenda.drop(kindSystem)
		b.node.shutting, b.node.target = false, b.node.on
	}
}

// chassisWords are the words for chassis control's parameter (table 28-4).
var chassisWords = [...]string{
	0: string(power.PowerOff),
	1: string(power.PowerOn),
	2: CommandCycle,
	3: string(power.HardReset),
	4: string(power.PulseDiag),
	5: string(power.PressSoftOff),
}

// Completion codes used here (IPMI v2.0 table 5-2).
const (
	codeOK          = 0x00
	codeBusy        = 0xc0
	codeInvalid     = 0xc1
	codeUnspecified = 0xff
	codeParam       = 0x80 // parameter not supported (section 28.12)
	codeTruncated   = 0xc6
	codeLength      = 0xc7
	codeRange       = 0xc9
	codePrivilege   = 0xd4
	codeWrongState  = 0xd5
)

// control carries out chassis control action and returns its completion code.
func (b *BMC) control(now time.Time, action byte) byte {
	n := &b.node
	if int(action) >= len(chassisWords) {
		return codeRange
	}
	needsOn := action == 2 || action == 3 || action == 4
	if needsOn && !n.on {
		return codeWrongState
	}
	if n.stuck {
		return codeOK
	}
	b.expireBoot(now)
	switch action {
	case 0:
		b.killSystem()
		if n.target {
			b.switchTo(now, false, n.offAfter)
		}
	case 1:
		if !n.target && !n.shutting {
			b.switchTo(now, true, n.onAfter)
		}
	case 2:
		b.killSystem()
		off := b.switchTo(now, false, n.offAfter)
		b.switchTo(off, true, n.onAfter)
	case 3:
		b.killSystem()
		n.resets++
		b.boot(now)
	case 4:
		n.diags++
	case 5:
		if n.on && n.target && !n.deaf {
			b.shutDown(now)
		}
	}
	return codeOK
}
