package bmcsim

import (
	"time"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/types"

	"rackpower/power"
)

// faults are how a BMC misbehaves; the lock of the BMC guards them.
type faults struct {
	mute           bool
	lossRx, lossTx float64
	delay          time.Duration
	duplicate      bool
	failCode       byte
	failNext       int
	loseNext       int
	loseRequests   int
	limit          int
	idle           time.Duration
	bootTime       time.Duration

	skew    time.Duration
	noClock bool

	ignoreProbes, noIPMI20, badChecksums bool
	rakp2Status, rakp4Status             byte
}

func (b *BMC) set(change func()) {
	now, unlock := b.look()
	defer unlock()
	change()
	b.agenda.run(now)
}

// Mute makes the BMC take datagrams and never answer. What arrives is not executed.
func (b *BMC) Mute(on bool) { b.Set(Fault{Mute: &on}) }

// Clock sets by how much the BMC's clock is ahead; none: it has no clock.
func (b *BMC) Clock(ahead time.Duration, none bool) {
	b.set(func() { b.faults.skew, b.faults.noClock = ahead, none })
}

// Loss makes datagrams get lost on their way in and out, each with the given
// probability from 0 to 1.
func (b *BMC) Loss(rx, tx float64) { b.set(func() { b.faults.lossRx, b.faults.lossTx = rx, tx }) }

// Delay holds every answer back for d. Requests are executed when they arrive.
func (b *BMC) Delay(d time.Duration) { b.set(func() { b.faults.delay = max(d, 0) }) }

// Duplicate sends every answer twice.
func (b *BMC) Duplicate(on bool) { b.set(func() { b.faults.duplicate = on }) }

// Stuck makes the BMC acknowledge and log power commands without any effect.
func (b *BMC) Stuck(on bool) { b.set(func() { b.node.stuck = on }) }

// Deaf makes the node's system ignore a soft-off.
func (b *BMC) Deaf(on bool) { b.set(func() { b.node.deaf = on }) }

// Late sets how long after its command the node is really on or off, for the
// commands that follow.
func (b *BMC) Late(on, off time.Duration) {
	b.set(func() { b.node.onAfter, b.node.offAfter = max(on, 0), max(off, 0) })
}

// SoftOffTakes sets how long the node's system takes to shut down when asked.
func (b *BMC) SoftOffTakes(d time.Duration) { b.set(func() { b.node.softAfter = max(d, 0) }) }

// ComesBack makes the node power itself on again, d after each off; zero: it
// stays off. A node that is off when this is called stays so.
func (b *BMC) ComesBack(d time.Duration) { b.set(func() { b.node.backAfter = max(d, 0) }) }

// FailCode makes the next n power commands and resets of the BMC be answered with
// an IPMI completion code (0xc0 is "node busy") and not be executed.
func (b *BMC) FailCode(code byte, n int) {
	b.set(func() { b.faults.failCode, b.faults.failNext = code, max(n, 0) })
}

// LoseAnswers makes the next n power commands and resets of the BMC be executed
// without an answer.
func (b *BMC) LoseAnswers(n int) { b.set(func() { b.faults.loseNext = max(n, 0) }) }

// LoseRequests makes the next n power commands and resets of the BMC get lost on their way:
// they are neither executed nor answered.
func (b *BMC) LoseRequests(n int) { b.set(func() { b.faults.loseRequests = max(n, 0) }) }

// Lag makes the BMC report a change of the node's power so long after it.
func (b *BMC) Lag(d time.Duration) { b.Set(Fault{Lag: new(Duration(max(d, 0)))}) }

// SessionLimit sets how many sessions the BMC has room for, from 0 to 250. Those
// open stay. Opening one more than there is room for costs the oldest session
// that was never activated, and is refused if there is none.
func (b *BMC) SessionLimit(n int) { b.set(func() { b.faults.limit = min(max(n, 0), maxSessions) }) }

// SessionIdle sets how long a session may be idle before the BMC drops it.
func (b *BMC) SessionIdle(d time.Duration) { b.set(func() { b.faults.idle = max(d, 0) }) }

// BootTime sets how long the BMC is silent after a Cold Reset.
func (b *BMC) BootTime(d time.Duration) { b.set(func() { b.faults.bootTime = max(d, 0) }) }

// IgnoreProbes makes the BMC answer nothing that is asked outside of a session.
func (b *BMC) IgnoreProbes(on bool) { b.set(func() { b.faults.ignoreProbes = on }) }

// NoIPMI20 makes the BMC ignore requests to open a session of IPMI v2.0, as one with
// IPMI over LAN switched off does. Sessions that are open stay.
func (b *BMC) NoIPMI20(on bool) { b.set(func() { b.faults.noIPMI20 = on }) }

// BadChecksums gives the messages within its authentic packets a wrong checksum.
func (b *BMC) BadChecksums(on bool) { b.set(func() { b.faults.badChecksums = on }) }

// RAKPStatus makes the BMC refuse every log-in with a status (section 13.24): in RAKP
// message 2, when it was told the user, or in message 4, when both sides have proved
// that they know the password. 0: as it should.
func (b *BMC) RAKPStatus(message2, message4 byte) {
	b.set(func() { b.faults.rakp2Status, b.faults.rakp4Status = message2, message4 })
}

// Restart makes the BMC forget all sessions and be silent for downtime, as a Cold
// Reset does. The node does not notice. Restart(0) only drops the sessions.
func (b *BMC) Restart(downtime time.Duration) {
	now, unlock := b.look()
	defer unlock()
	b.restart(now, downtime)
}

func (b *BMC) restart(now time.Time, downtime time.Duration) {
	b.event(now, EventRestart, "bmc")
	for _, s := range b.sessions {
		b.drop(s)
	}
	b.agenda.drop(kindReply)
	clear(b.pending)
	b.silent = now.Add(max(downtime, 0))
	if b.redfish != nil {
		b.redfish.restart()
	}
}

// Suites sets the cipher suites the BMC offers, of 3 and 17; none: both.
func (b *BMC) Suites(ids ...int) {
	list := make([]types.CipherSuiteID, 0, len(ids))
	for _, id := range ids {
		if id == 3 || id == 17 {
			list = append(list, types.CipherSuiteID(id))
		}
	}
	b.lib.SetCipherSuites(list)
}

// Privilege sets the highest privilege the account may ask for: 2 user (may read),
// 3 operator (may also switch), 4 administrator (may also reset the BMC).
func (b *BMC) Privilege(level int) {
	b.set(func() { b.level = min(max(level, levelUser), levelAdministrator) })
	_ = b.lib.Users.Update(2, func(u *bmc.User) error {
		u.ChannelAccess[lanChannel] = bmc.UserChannelAccess{MaxPrivilege: bmc.PrivilegeLevel(min(max(level, 2), 4)), Enabled: true}
		return nil
	})
}

// SetPassword changes the password of the account. Sessions that are open stay.
func (b *BMC) SetPassword(p power.Secret) {
	b.set(func() {
		b.password = p
		_ = b.lib.Users.Update(2, func(u *bmc.User) error { u.SetPassword([]byte(string(p))); return nil })
	})
}
