package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// daemon is central or an agent under a supervisor, which starts it again whenever
// it ended, as systemd does.
type daemon struct {
	s    *site
	name string
	bin  string
	args []string
	env  []string

	mu      sync.Mutex
	cmd     *exec.Cmd // nil: it does not run
	holds   int       // while above 0 it is not started
	over    bool
	killed  bool // by the soak
	starts  int
	life    []lifeEvent // starts and signals
	gaveUp  []string    // ends of its own, for want of a disk
	crashed []string    // ends by a panic or a signal that nobody sent
	change  chan struct{}
	ended   chan struct{} // run has returned
}

// lifeEvent is something that happened to a daemon.
type lifeEvent struct {
	at   time.Time
	what string
}

// lately is what happened to the daemon last before the time.
func (d *daemon) lately(at time.Time) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var said []string
	for _, e := range d.life {
		if !e.at.After(at) {
			said = append(said, fmt.Sprintf("%s %s before", e.what, at.Sub(e.at).Round(time.Millisecond)))
		}
	}
	return d.name + ": " + strings.Join(said[max(0, len(said)-3):], ", ")
}

func newDaemon(s *site, name, bin string, args []string, env ...string) *daemon {
	return &daemon{s: s, name: name, bin: bin, args: args, env: env, change: make(chan struct{}, 1), ended: make(chan struct{})}
}

// restartAfter is the pause before a start of what ended by itself.
const restartAfter = 200 * time.Millisecond

// run supervises until stop.
func (d *daemon) run() {
	defer close(d.ended)
	for d.mayStart() {
		cmd, err := d.start()
		switch {
		case err != nil:
			d.note(&d.crashed, err.Error())
			return
		case cmd != nil:
			d.finished(cmd, cmd.Wait())
		}
	}
}

// mayStart waits until the daemon is to run; false: never again.
func (d *daemon) mayStart() bool {
	for {
		d.mu.Lock()
		holds, over := d.holds, d.over
		d.mu.Unlock()
		if over || holds == 0 {
			return !over
		}
		<-d.change
	}
}

// start starts it, unless it is held since.
func (d *daemon) start() (*exec.Cmd, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holds > 0 || d.over {
		return nil, nil
	}
	cmd, err := d.s.launch(d.name, d.bin, d.args, d.env...)
	if err == nil {
		d.cmd, d.killed = cmd, false
		d.starts++
		d.life = append(d.life, lifeEvent{time.Now(), "start"})
	}
	return cmd, err
}

func (d *daemon) finished(cmd *exec.Cmd, err error) {
	d.mu.Lock()
	d.cmd = nil
	killed := d.killed
	d.mu.Unlock()
	d.tell()
	if killed {
		return
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() || status.ExitStatus() == 2 {
		d.note(&d.crashed, fmt.Sprintf("%s: %v", time.Now().Format(time.TimeOnly), err))
	} else {
		d.note(&d.gaveUp, fmt.Sprintf("%s: exit status %d", time.Now().Format(time.TimeOnly), status.ExitStatus()))
	}
	time.Sleep(restartAfter)
}

func (d *daemon) note(list *[]string, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*list = append(*list, d.name+" "+text)
}

// tell wakes run.
func (d *daemon) tell() {
	select {
	case d.change <- struct{}{}:
	default:
	}
}

// hold is SIGKILL; the daemon is not started again before release. When it returns
// the process is gone.
func (d *daemon) hold() {
	d.mu.Lock()
	d.holds++
	d.mu.Unlock()
	d.kill()
}

func (d *daemon) release() {
	d.mu.Lock()
	d.holds--
	d.mu.Unlock()
	d.tell()
}

// kill is SIGKILL, waited for.
func (d *daemon) kill() {
	d.mu.Lock()
	cmd := d.cmd
	if cmd != nil {
		d.killed = true
		d.life = append(d.life, lifeEvent{time.Now(), syscall.SIGKILL.String()})
		_ = cmd.Process.Kill()
	}
	d.mu.Unlock()
	for end := time.Now().Add(10 * time.Second); cmd != nil && d.runs(cmd) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

func (d *daemon) runs(cmd *exec.Cmd) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd == cmd
}

// signal sends a signal to the process, if there is one.
func (d *daemon) signal(sig syscall.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		_ = d.cmd.Process.Signal(sig)
		d.life = append(d.life, lifeEvent{time.Now(), sig.String()})
	}
}

// halt stops all threads of the process, if there is one, wherever they are but within the
// kernel; resume has it go on.
func (d *daemon) halt() (resume func()) {
	d.signal(syscall.SIGSTOP)
	d.mu.Lock()
	cmd := d.cmd
	d.mu.Unlock()
	for end := time.Now().Add(10 * time.Second); cmd != nil && d.runs(cmd) && !halted(cmd.Process.Pid) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return func() { d.signal(syscall.SIGCONT) }
}

// halted reports whether all threads of a process are stopped.
func halted(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		_, state, _ := strings.Cut(string(stat), ") ")
		if err == nil && !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// stop ends it for good.
func (d *daemon) stop() {
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	d.tell()
	d.kill()
	<-d.ended
}
