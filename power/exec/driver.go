package exec

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rackpower/power"
)

// driver runs the program of one endpoint.
type driver struct {
	dialer *Dialer
	ep     power.Endpoint
}

const opStatus = "status"

// actions are the commands that the contract has.
var actions = map[power.Command]string{power.PowerOn: "on", power.PowerOff: "off"}

// The exit codes of "status".
const (
	exitOn  = 0
	exitOff = 2
)

// State implements power.Driver.
//
// Exit code 2 alone is not taken for "off": Python and shells end with it as well, when
// they cannot read a program. The fence agents say "Status: OFF" besides.
func (d *driver) State(ctx context.Context) (power.State, error) {
	r, err := d.run(ctx, opStatus, opStatus)
	if err != nil {
		err.Sent = false
		return power.Unknown, err
	}
	said := r.says()
	switch {
	case r.exit == exitOn && said != power.Off:
		return power.On, nil
	case r.exit == exitOff && said == power.Off:
		return power.Off, nil
	case r.exit == exitOn || r.exit == exitOff:
		return power.Unknown, &power.Error{Kind: power.KindRefused, Op: opStatus, Err: fmt.Errorf(
			"%s ended with exit code %d and printed no such status: with 0 the node is on, with 2 it is off and \"Status: OFF\" is printed",
			d.ep.Program, r.exit)}
	}
	return power.Unknown, &power.Error{Kind: power.KindUnreachable, Op: opStatus, Lost: true, Err: d.failed(r)}
}

// Do implements power.Driver. Once the program runs the command may have been sent, whatever
// its exit code.
func (d *driver) Do(ctx context.Context, cmd power.Command) error {
	if ctx.Err() != nil {
		return canceled(ctx, string(cmd))
	}
	action, ok := actions[cmd]
	if !ok {
		return unsupported(string(cmd), "a program can turn a node on and off, and no more")
	}
	r, err := d.run(ctx, string(cmd), action)
	if err != nil {
		return err
	}
	if r.exit != 0 {
		return &power.Error{Kind: power.KindUncertain, Op: string(cmd), Sent: true, Err: d.failed(r)}
	}
	return nil
}

// SetBoot implements power.Driver: there is no such thing.
func (d *driver) SetBoot(ctx context.Context, _ power.BootDevice) error {
	const op = "set boot device"
	if ctx.Err() != nil {
		return canceled(ctx, op)
	}
	return unsupported(op, "a program cannot choose a boot device")
}

// Close implements power.Driver.
func (d *driver) Close() error { return nil }

// Test implements power.Tester.
func (d *driver) Test(ctx context.Context) (r power.TestResult, err error) {
	r.Protocol = "program " + d.ep.Program
	r.State, err = d.State(ctx)
	r.Allowed = []string{"on", "off"}
	return r, err
}

func unsupported(op, why string) error {
	return &power.Error{Kind: power.KindUnsupported, Op: op, Err: errors.New(why)}
}

// maxOutput is how much of what a program prints is looked at, in bytes.
const maxOutput = 16 << 10

// head keeps the beginning of what is written to it.
type head struct{ text []byte }

// Write takes everything, so that the program does not wait.
func (h *head) Write(p []byte) (int, error) {
	h.text = append(h.text, p[:min(len(p), maxOutput-len(h.text))]...)
	return len(p), nil
}

// result is how a program ended.
type result struct {
	exit      int // -1: by a signal
	out, errs head
}

var statusLine = regexp.MustCompile(`(?mi)^\s*(?:status:\s*)?(on|off)\s*$`)

// says is the state that was printed; Unknown: none, or both.
func (r *result) says() power.State {
	said := power.Unknown
	for _, m := range statusLine.FindAllSubmatch(r.out.text, -1) {
		state := power.On
		if strings.EqualFold(string(m[1]), "off") {
			state = power.Off
		}
		if said != power.Unknown && said != state {
			return power.Unknown
		}
		said = state
	}
	return said
}

// reasons are the words of the fence agents (fencing.py) that are passed on. Nothing else of
// what a program prints is: it may hold the password, in whatever form.
var reasons = []string{
	"Unable to connect/login to fencing device", "Connection lost", "Connection timed out", "Timed out waiting to power ON",
	"Timed out waiting to power OFF", "Unable to obtain correct plug status or plug is not available", "You have to set login password",
	"The user does not have the correct privileges",
}

func (d *driver) failed(r *result) error {
	how := fmt.Sprintf("%s ended with exit code %d", d.ep.Program, r.exit)
	if r.exit < 0 {
		how = d.ep.Program + " was killed"
	}
	for _, says := range reasons {
		if strings.Contains(string(r.errs.text), says) {
			return fmt.Errorf("%s: %s", how, says)
		}
	}
	return fmt.Errorf("%s, and why is not shown, as it may hold the password: run it by hand", how)
}

// stdin is what the program is told.
func (d *driver) stdin(action string) (string, error) {
	pw := string(d.ep.Password)
	switch {
	case strings.ContainsAny(pw+d.ep.User, "\n\r\x00"):
		return "", errors.New("the user or the password holds a line break")
	case strings.TrimSpace(pw) != pw || len(pw) > 1 && pw[0] == '"' && pw[len(pw)-1] == '"':
		return "", errQuoted
	}
	options, err := url.ParseQuery(d.ep.Options)
	if err != nil {
		return "", errors.New("the options of its address are malformed")
	}
	lines := []string{"action=" + action}
	for key, values := range options {
		lines = append(lines, key+"="+values[0])
	}
	slices.Sort(lines[1:])
	if d.ep.User != "" {
		lines = append(lines, "username="+d.ep.User)
	}
	if pw != "" {
		lines = append(lines, "password="+pw)
	}
	return strings.Join(lines, "\n") + "\n", nil
}

// pipesFor is how long a process that left the program's group may hold its output.
const pipesFor = time.Second

var errLate = errors.New("too late")

// run runs the program until it ends, or its time or ctx does. An error has Sent where the
// program had been started.
func (d *driver) run(ctx context.Context, op, action string) (*result, *power.Error) {
	if ctx.Err() != nil {
		return nil, canceled(ctx, op)
	}
	path, bad := d.dialer.program(op, d.ep)
	if bad != nil {
		return nil, bad
	}
	stdin, err := d.stdin(action)
	if err != nil {
		return nil, &power.Error{Kind: power.KindUnsupported, Op: op, Err: err}
	}
	limit := d.dialer.cfg.Timeout
	within, cancel := context.WithTimeoutCause(ctx, limit, errLate)
	defer cancel()
	r := &result{}
	cmd := exec.CommandContext(within, path)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", strings.NewReader(stdin), &r.out, &r.errs
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = pipesFor
	// It ends with the agent, whose thread the kernel watches: an agent that is started again
	// must not have one of before beside it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	if err := cmd.Start(); err != nil {
		if within.Err() != nil {
			return nil, canceled(within, op)
		}
		return nil, &power.Error{Kind: power.KindUnsupported, Op: op, Err: fmt.Errorf("%s cannot be started: %w", d.ep.Program, err)}
	}
	// What it left behind is killed before its process is waited for: from then on its number
	// may be that of another group.
	for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	_ = killGroup(cmd.Process.Pid)
	_ = cmd.Wait() // how it ended is in its state
	r.exit = cmd.ProcessState.ExitCode()
	switch {
	case r.exit >= 0: // it ended by itself, and its answer counts
		return r, nil
	case ctx.Err() != nil:
		e := canceled(ctx, op)
		e.Sent = true
		return nil, e
	case within.Err() != nil:
		return nil, &power.Error{Kind: power.KindUnreachable, Op: op, Sent: true, Lost: true, Err: fmt.Errorf(
			"%s did not end within %s and was killed", d.ep.Program, limit)}
	}
	return r, nil
}

func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

var _ power.Tester = (*driver)(nil)
