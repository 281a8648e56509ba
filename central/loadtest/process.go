package loadtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rackpower/central/api"
)

// site is a central as a process, and who asks it.
type site struct {
	Programs
	dir    string
	cmd    *exec.Cmd
	client *api.Client
}

// Programs are the paths of both programs.
type Programs struct {
	CLI, Central string
	Database     string // on PostgreSQL, an empty one; "": SQLite
}

// newSite starts central on an empty directory.
func newSite(ctx context.Context, p Programs, dir string) (*site, error) {
	s := &site{Programs: p, dir: dir}
	var err error
	if s.client, err = api.NewClient(s.target()); err != nil {
		return nil, err
	}
	return s, s.start(ctx)
}

func (s *site) target() string { return "unix://" + filepath.Join(s.dir, "c.sock") }

// start starts central and waits until it answers.
func (s *site) start(ctx context.Context) error {
	if err := s.spawn(); err != nil {
		return err
	}
	return Until(ctx, time.Minute, "central answers", func() bool { _, err := s.client.Info(ctx); return err == nil })
}

// spawn starts central.
func (s *site) spawn() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "central.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"serve", "--data", filepath.Join(s.dir, "central"), "--socket", filepath.Join(s.dir, "c.sock")}
	if s.Database != "" {
		args = append(args, "--database", s.Database)
	}
	s.cmd = exec.Command(s.Central, args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return s.cmd.Start()
}

// kill is kill -9.
func (s *site) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// stop ends central, and what its clients hold open.
func (s *site) stop() {
	s.kill()
	s.client.Close()
}

// ran is what a command of a person took.
type ran struct {
	wall, cpu time.Duration
	rss       int64 // bytes, at most
	out       int64 // bytes
}

// run runs the command line.
func (s *site) run(ctx context.Context, args ...string) (r ran, err error) {
	var errs bytes.Buffer
	count := &counter{}
	cmd := exec.CommandContext(ctx, s.CLI, args...)
	cmd.Env = append(os.Environ(), "RACKPOWER_CENTRAL="+s.target(), "XDG_CONFIG_HOME="+s.dir)
	cmd.Stdout, cmd.Stderr = count, &errs
	began := time.Now()
	if err = cmd.Start(); err == nil {
		ended := make(chan struct{})
		most := make(chan int64, 1)
		go func() { most <- watchMemory(cmd.Process.Pid, ended) }()
		err = cmd.Wait()
		close(ended)
		r.wall, r.rss = time.Since(began), <-most
	}
	if err != nil {
		return r, fmt.Errorf("rackpower %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	r.cpu, r.out = cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), count.n
	return r, nil
}

// watchMemory is what a process had in memory at most, as far as it is seen until it ends. What
// the kernel tells afterwards (ru_maxrss) counts that of the process that started it, too.
func watchMemory(pid int, ended <-chan struct{}) (most int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return most
		case <-tick.C:
			_, now := memory(pid)
			most = max(most, now)
		}
	}
}

// times runs the command line so often. The operands may differ.
func (s *site) times(ctx context.Context, n int, args func(i int) []string) (all []ran, err error) {
	for i := range n {
		r, err := s.run(ctx, args(i)...)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

var _ io.Writer = (*counter)(nil)

// cpu is what processor time a process has used.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text, []byte(") ")) // behind the name
	fields := strings.Fields(string(rest))
	if len(fields) < 13 {
		return 0, fmt.Errorf("cannot read %q", text)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100), err // USER_HZ
}

// memory is what a process has in memory, and had at most, in bytes.
func memory(pid int) (now, most int64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			now = kb << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			most = kb << 10
		}
	}
	return now, most
}

// quantile is that part of the sorted values; 0.5 is the median.
func quantile[T int64 | float64 | time.Duration](all []T, q float64) (v T) {
	if len(all) == 0 {
		return v
	}
	all = slices.Clone(all)
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}
