package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/agent/identity"
	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/seal"
	"rackpower/cmd/daemon"
	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
)

// finding is the result of a check.
type finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, wrong or left-out
	What  string `json:"what,omitempty"`
	Why   string `json:"why,omitempty"` // it matters
	Run   string `json:"run,omitempty"` // the command that mends it
}

const (
	doctorOK      = "ok"
	doctorWrong   = "wrong"
	doctorLeftOut = "left-out"
)

// A check looks at one thing of an installation. It tells what is wrong, and what it could not see.
type check struct {
	name string
	why  string
	run  func(*doctor)
}

// checks are all of them, in the order in which what is wrong is to be mended.
var checks = []check{
	{"units", "a daemon that does not run switches nothing; one that is not enabled is gone after the next boot", (*doctor).units},
	{"sockets", "whoever may use a socket controls power, and nobody else can", (*doctor).sockets},
	{"files", "keys, passwords and journals belong to the daemons alone, who have to read and write them", (*doctor).files},
	{"configuration", "who may write it decides what the daemons do", (*doctor).configuration},
	{"keys", "without seal.key the BMC passwords in the database and its backups are lost", (*doctor).keys},
	{"certificates", "with a certificate that has ended nobody is let in", (*doctor).certificates},
	{"disk", "on a full disk no operation is accepted", (*doctor).disk},
	{"backups", "central's database is nowhere else", (*doctor).backups},
	{"central", "commands are asked of central", (*doctor).central},
	{"clock", "certificates, holds and schedules go by the clock", (*doctor).clock},
	{"versions", "what is new works when both sides know it; central is upgraded first", (*doctor).versions},
}

// doctor goes through the checks.
type doctor struct {
	s        *session
	root     string // what paths are below; "" but in tests
	remote   bool   // central is asked over a network
	ctl      func(args ...string) string
	now      time.Time
	info     *api.Info // nil: central did not answer
	infoErr  error
	answered time.Time // when info came; it was asked for at now
	check    check
	found    []finding
}

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Category: "look", Usage: "look for what is wrong with this installation",
		Description: "Looks at units, sockets, rights, keys, certificates, clock, versions, backups and disks, as far as they are\n" +
			"here: on a rack's host, on central's, or where people work. It changes nothing. What it finds is shown with\n" +
			"the reason why it matters and the command that mends it; what it could not see, too. As root it sees more." +
			examples("rackpower doctor", "sudo rackpower doctor --backups /backup", "rackpower doctor -o json") + exitHelp,
		Flags: atCentral.flags(
			&cli.StringFlag{
				Name: "backups", Usage: "`DIR` of the backups of central's database", DefaultText: "those that central makes, and " + backupsByHand,
			},
			&cli.DurationFlag{Name: "backup-age", Value: 24 * time.Hour, Usage: "call backups too old after `DURATION`"},
		),
		Action: atCentral.with(func(s *session) error { return newDoctor(s).run() }),
	}
}

// newDoctor makes the doctor of this host. Tests have theirs look elsewhere.
var newDoctor = func(s *session) *doctor {
	return &doctor{s: s, now: s.Now(), remote: s.client.Remote(), ctl: func(args ...string) string {
		out, _ := exec.CommandContext(s.ctx, "systemctl", args...).Output()
		return strings.TrimSpace(string(out))
	}}
}

// run makes all checks and shows what they found.
func (d *doctor) run() error {
	ctx, cancel := context.WithTimeout(d.s.ctx, askWithin)
	info, err := d.s.client.Info(ctx)
	cancel()
	d.answered = d.s.Now()
	if d.infoErr = err; err == nil {
		d.info = &info
	}
	wrong := 0
	for _, c := range checks {
		d.check = c
		before := len(d.found)
		c.run(d)
		if len(d.found) == before {
			d.found = append(d.found, finding{Check: c.name, State: doctorOK})
		}
	}
	for _, f := range d.found {
		if f.State == doctorWrong {
			wrong++
		}
	}
	if err := d.show(); err != nil {
		return err
	}
	if wrong > 0 {
		return settings.Exit(settings.ExitFailed, "%d found wrong", wrong)
	}
	return nil
}

func (d *doctor) show() error {
	p := d.s.Printer
	if !p.People() || p.Quiet {
		return printer.Show(p, printer.Listing[finding]{Rows: d.found, Name: func(f finding) string { return f.Check + " " + f.State }})
	}
	page := printer.NewPage(p, p.PageWidth())
	for _, f := range d.found {
		text := f.Check
		if f.What != "" {
			text += ": " + p.Readable(f.What)
		}
		page.Block(term.Pad(f.State, 10), text)
		if f.State == doctorWrong {
			page.Block("          why: ", f.Why)
			page.Line("          do:  " + p.Readable(f.Run)) // whole: it is copied
		}
	}
	_, err := fmt.Fprint(p.Out, page.String())
	return err
}

func (d *doctor) wrong(run, what string, args ...any) {
	d.found = append(d.found, finding{d.check.name, doctorWrong, fmt.Sprintf(what, args...), d.check.why, run})
}

func (d *doctor) leftOut(what string, args ...any) {
	d.found = append(d.found, finding{Check: d.check.name, State: doctorLeftOut, What: fmt.Sprintf(what, args...)})
}

// installed are the daemons that belong to this host: those with a unit.
func (d *doctor) installed() []string {
	var names []string
	for _, name := range []string{"agent", "central"} {
		for _, dir := range unitDirs {
			if _, err := os.Stat(d.path(dir, "rackpower-"+name+".service")); err == nil {
				names = append(names, name)
				break
			}
		}
	}
	return names
}

var unitDirs = []string{"/etc/systemd/system", "/usr/lib/systemd/system"}

func (d *doctor) path(parts ...string) string { return d.root + filepath.Join(parts...) }

// toRun are the daemons that are to run here.
func (d *doctor) toRun() []string {
	var names []string
	for _, name := range d.installed() {
		if d.ctl("is-enabled", "rackpower-"+name+".service") == "enabled" || d.ctl("is-active", "rackpower-"+name+".service") == "active" {
			names = append(names, name)
		}
	}
	return names
}

func (d *doctor) units() {
	names := d.installed()
	if len(names) == 0 {
		d.leftOut("neither the agent nor central is installed here")
	}
	for _, name := range names {
		unit := "rackpower-" + name + ".service"
		twice := 0
		for _, dir := range unitDirs {
			if _, err := os.Stat(d.path(dir, unit)); err == nil {
				twice++
			}
		}
		if twice > 1 {
			d.wrong("rm /etc/systemd/system/"+unit+" && systemctl daemon-reload", "%s of make install hides that of the package", unit)
		}
		active, enabled := d.ctl("is-active", unit), d.ctl("is-enabled", unit)
		switch {
		case active == "":
			d.leftOut("systemd does not answer for %s", unit)
		case active == "active" && enabled != "enabled":
			d.wrong("systemctl enable "+unit, "%s runs, and is not enabled", unit)
		case active == "inactive" && enabled == "enabled":
			d.wrong("systemctl start "+unit, "%s is enabled, and is inactive", unit)
		case active != "active" && enabled == "enabled":
			d.wrong("journalctl -u "+unit, "%s is enabled, and is %s", unit, active)
		}
	}
}

func (d *doctor) sockets() {
	names := d.toRun()
	if len(names) == 0 {
		d.leftOut("no daemon is to run here")
	}
	for _, name := range names {
		path := "/run/rackpower/" + name + ".sock"
		info, err := os.Stat(d.path(path))
		mend := "systemctl restart rackpower-" + name + ".socket rackpower-" + name + ".service"
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.wrong(mend, "%s is missing", path)
			continue
		case err != nil:
			d.leftOut("%v", err)
			continue
		case info.Mode().Perm() != 0o660:
			d.wrong(mend, "%s has the mode %04o, not 0660", path, info.Mode().Perm())
		}
		if owner, group := owners(info); owner != daemon.Account || group != "rackpower-admin" {
			d.wrong(mend, "%s belongs to %s:%s, not to %s:rackpower-admin", path, owner, group, daemon.Account)
		}
		if errors.Is(access(d.path(path), accessWrite), fs.ErrPermission) {
			d.wrong("usermod -aG rackpower-admin "+os.Getenv("USER"), "you may not use %s", path)
		}
	}
}

// owners are the names of a file's owner and group, or their numbers.
func owners(info fs.FileInfo) (owner, group string) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", ""
	}
	owner, group = strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return owner, group
}

// data is the data directory of a daemon.
func data(name string) string { return "/var/lib/rackpower/" + name }

// each runs for the data directory of every daemon of this host that has one.
func (d *doctor) each(look func(name, dir string)) {
	any := false
	for _, name := range d.installed() {
		if _, err := os.Stat(d.path(data(name))); err == nil {
			any = true
			look(name, data(name))
		}
	}
	if !any {
		d.leftOut("no daemon has run here")
	}
}

func (d *doctor) files() {
	d.each(func(_, dir string) {
		hidden, open, foreign := 0, "", ""
		_ = filepath.WalkDir(d.path(dir), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrPermission) {
				hidden++
			}
			if err != nil {
				return nil //nolint:nilerr // the others are looked at
			}
			info, err := e.Info()
			if err != nil {
				return nil //nolint:nilerr // it is gone since
			}
			shown := strings.TrimPrefix(path, d.root)
			if info.Mode().Perm()&0o077 != 0 && info.Mode()&fs.ModeSymlink == 0 {
				open = cmp.Or(open, fmt.Sprintf("%s is open to others: mode %04o", shown, info.Mode().Perm()))
			}
			if owner, _ := owners(info); owner != daemon.Account {
				foreign = cmp.Or(foreign, fmt.Sprintf("%s belongs to %s", shown, owner))
			}
			return nil
		})
		if open != "" {
			d.wrong("chmod -R go= "+dir, "%s", open)
		}
		if foreign != "" {
			d.wrong("chown -R "+daemon.Account+": "+dir, "%s", foreign)
		}
		if hidden > 0 {
			d.leftOut("%s can be seen by root only", dir)
		}
	})
}

func (d *doctor) configuration() {
	for _, name := range d.installed() {
		path := "/etc/rackpower/" + name + ".yaml"
		info, err := os.Stat(d.path(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.wrong("editor "+path+"   # the keys are the flags of the daemon", "%s is missing", path)
		case err != nil:
			d.leftOut("%v", err)
		case info.Mode().Perm()&0o022 != 0:
			d.wrong("chmod go-w "+path, "%s can be written by others than its owner", path)
		}
	}
}

func (d *doctor) keys() {
	dir := data("central")
	if _, err := os.Stat(d.path(dir, "central.db")); err != nil {
		d.leftOut("no database of central can be seen here")
		return
	}
	key := filepath.Join(dir, seal.FileName)
	for _, path := range []string{key, "/etc/credstore/seal-key", "/etc/credstore.encrypted/seal-key"} {
		if _, err := os.Stat(d.path(path)); err == nil {
			return
		} else if errors.Is(err, fs.ErrPermission) {
			d.leftOut("%v", err)
			return
		}
	}
	d.wrong("install -o "+daemon.Account+" -m 0600 COPY "+key, "there is neither %s nor the credential seal-key; bring the copy back", key)
}

// soon is how long before its end a certificate is told of.
const soon = 7 * 24 * time.Hour

func (d *doctor) certificates() {
	seen, before := false, len(d.found)
	look := func(what, mend string, text []byte) {
		seen = true
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				continue
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			switch {
			case err != nil:
				d.wrong(mend, "%s: %v", what, err)
			case d.now.After(cert.NotAfter):
				d.wrong(mend, "%s ended at %s", what, d.s.Time(cert.NotAfter))
			case d.now.Add(min(soon, cert.NotAfter.Sub(cert.NotBefore)/4)).After(cert.NotAfter):
				d.wrong(mend, "%s ends at %s, and was not renewed", what, d.s.Time(cert.NotAfter))
			}
			return // those behind are of its authorities
		}
		d.wrong(mend, "%s holds no certificate", what)
	}
	for path, mend := range map[string]string{
		filepath.Join(data("agent"), identity.FileName): "rackpower agents token NAME, then restart the agent with it",
		filepath.Join(data("central"), auth.CACertFile): "rackpower-central ca --help",
	} {
		text, err := os.ReadFile(d.path(path))
		switch {
		case err == nil:
			look(path, mend, text)
		case errors.Is(err, fs.ErrPermission):
			d.leftOut("%s can be read by root only", path)
		}
	}
	name := d.s.c.String(profileFlagName)
	if p, found, err := settings.LoadProfile(name); err == nil && found && p.Certificate != "" {
		look("your certificate", "rackpower user cert "+p.User, []byte(p.Certificate))
	}
	if !seen && len(d.found) == before {
		d.leftOut("no certificate is here")
	}
}

// Below these a disk is told of.
const (
	leastPercent = 5
	leastBytes   = 1 << 30
)

func (d *doctor) disk() {
	d.each(func(_, dir string) {
		var st syscall.Statfs_t
		if err := syscall.Statfs(d.path(dir), &st); err != nil {
			d.leftOut("%s: %v", dir, err)
			return
		}
		free, all := st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize) //nolint:gosec // sizes are positive
		if free < leastBytes || free*100 < all*leastPercent {
			d.wrong("df -h "+dir+"; du -xh "+dir, "%s has %d MiB left of %d MiB", dir, free>>20, all>>20)
		}
		if st.Files > 0 && st.Ffree*100 < st.Files*leastPercent {
			d.wrong("df -i "+dir, "%s has %d inodes left of %d", dir, st.Ffree, st.Files)
		}
	})
}

func (d *doctor) backups() {
	if _, err := os.Stat(d.path(data("central"))); err != nil {
		d.leftOut("this is not central's host")
		return
	}
	dirs, age := []string{data("central") + "/backups", backupsByHand}, d.s.c.Duration("backup-age")
	if dir := d.s.c.String("backups"); dir != "" {
		dirs = []string{dir}
	}
	var newest time.Time
	for _, dir := range dirs {
		entries, err := os.ReadDir(d.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.leftOut("%v", err)
			return
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".db") && info.ModTime().After(newest) {
				newest = info.ModTime()
			}
		}
	}
	dir := dirs[len(dirs)-1]
	run := fmt.Sprintf("mkdir -p -m 0700 %s && rackpower-central backup %s/%s.db", dir, dir, d.now.UTC().Format("20060102T150405Z"))
	switch {
	case newest.IsZero():
		d.wrong(run, "there is no backup (*.db) in %s; --backups names another directory", strings.Join(dirs, " and "))
	case d.now.Sub(newest) > age:
		d.wrong(run, "the newest backup in %s is of %s", strings.Join(dirs, " and "), d.s.Time(newest))
	}
}

// backupsByHand is where people put backups, beside those that central makes by itself.
const backupsByHand = "/var/backups/rackpower"

func (d *doctor) central() {
	if d.info == nil {
		d.wrong("systemctl status rackpower-central.service", "%v", d.s.explain(d.infoErr))
	}
}

// clockOff is how much a clock may differ.
const clockOff = 5 * time.Second

func (d *doctor) clock() {
	switch {
	case d.info == nil:
		d.leftOut("central did not answer")
	case !d.remote:
		d.leftOut("central has the clock of this host")
	case d.info.Now.IsZero():
		d.leftOut("central is of a version that does not tell its time")
	default:
		// Central read its clock after it was asked and before its answer was here.
		if off := max(d.now.Sub(d.info.Now), d.info.Now.Sub(d.answered)); off > clockOff {
			d.wrong("timedatectl set-ntp true", "this host's clock and central's differ by %s", settings.Duration(off.Round(time.Second)))
		}
	}
}

func (d *doctor) versions() {
	if d.info == nil {
		d.leftOut("central did not answer")
		return
	}
	if own := d.s.c.App.Version; own != d.info.Version {
		d.wrong(upgradeTo(d.info.Version), "this is %s, central is %s", own, d.info.Version)
	}
	ctx, cancel := context.WithTimeout(d.s.ctx, askWithin)
	defer cancel()
	agents, err := d.s.client.Agents(ctx)
	if err != nil {
		d.leftOut("agents: %v", d.s.explain(err))
		return
	}
	var others []string
	for _, a := range agents {
		if a.Version != "" && a.Version != d.info.Version {
			others = append(others, a.Name+" "+a.Version)
		}
	}
	if len(others) > 0 {
		d.wrong(upgradeTo(d.info.Version)+"   # on those hosts", "%d of %d agents are not of central's version %s: %s",
			len(others), len(agents), d.info.Version, strings.Join(others[:min(5, len(others))], ", "))
	}
}

// upgradeTo is how a host gets a version.
func upgradeTo(version string) string {
	return "dpkg -i rackpower_" + version + "_$(dpkg --print-architecture).deb"
}
