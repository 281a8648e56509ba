package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/cmd/settings"
	"rackpower/power"
)

const mainEnv = "RACKPOWER_TEST_MAIN"

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		os.Exit(settings.Run(newApp(), append([]string{"rackpower-central"}, os.Args[1:]...)))
	}
	os.Exit(m.Run())
}

// command runs a command line in this process.
func command(args ...string) (stdout, stderr string, exit int) {
	var out, errs bytes.Buffer
	app := newApp()
	app.Writer, app.ErrWriter = &out, &errs
	exit = settings.RunContext(context.Background(), app, append([]string{"rackpower-central"}, args...))
	return out.String(), errs.String(), exit
}

// served is `rackpower-central serve` as a process of its own.
type served struct {
	*api.Client
	cmd *exec.Cmd
	log *bytes.Buffer
}

func start(t *testing.T, dir string, more ...string) *served {
	t.Helper()
	d := &served{log: new(bytes.Buffer)}
	d.cmd = exec.Command(os.Args[0], append([]string{"serve", "--data", dir}, more...)...)
	d.cmd.Env = append(os.Environ(), mainEnv+"=1")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	errs, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serves := make(chan bool, 1)
	var read sync.WaitGroup
	read.Go(func() {
		for lines := bufio.NewScanner(errs); lines.Scan(); {
			fmt.Fprintln(d.log, lines.Text())
			if strings.Contains(lines.Text(), "central serves") {
				serves <- true
			}
		}
		close(serves)
	})
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		read.Wait()
		_ = d.cmd.Wait()
	})
	if !<-serves {
		read.Wait()
		t.Fatalf("central does not serve:\n%s", d.log)
	}
	if d.Client, err = api.NewClient("unix://" + filepath.Join(dir, "central.sock")); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLifeOfTheDaemon(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", manager.LocalAddr().String())
	d := start(t, dir)
	buf := make([]byte, 4096)
	var said string
	for !strings.Contains(said, "READY=1") {
		manager.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := manager.Read(buf)
		if err != nil {
			t.Fatalf("the service manager heard only %q", said)
		}
		said += string(buf[:n]) + "\n"
	}
	info, err := d.Info(t.Context())
	if err != nil || info.Gossip == "" {
		t.Errorf("%+v, %v", info, err)
	}
	members, err := d.Members(t.Context())
	if err != nil || len(members) != 1 || members[0].Name != "central" || members[0].Tags["role"] != "central" {
		t.Errorf("%+v, %v", members, err)
	}
	if _, errs, exit := command("serve", "--data", dir, "--gossip", "off"); exit != settings.ExitFailed || !strings.Contains(errs, "in use") ||
		strings.Count(errs, "\n") != 1 {
		t.Errorf("a second one: %d, %q", exit, errs)
	}
	backup := filepath.Join(t.TempDir(), "b")
	if out, errs, exit := command("backup", backup, "--data", dir); exit != 0 || !strings.Contains(out, info.ID) {
		t.Errorf("backup: %d, %q, %q", exit, out, errs)
	}
	if _, errs, exit := command("backup", "--data", dir, backup); exit != settings.ExitFailed || !strings.Contains(errs, "exists") {
		t.Errorf("backup over a backup: %d, %q", exit, errs)
	}
	if _, errs, exit := command("restore", "--data", dir, backup); exit != settings.ExitFailed || !strings.Contains(errs, "in use") {
		t.Errorf("restore beneath a daemon: %d, %q", exit, errs)
	}
	if out, errs, exit := command("check", "--data", dir); exit != 0 || !strings.HasPrefix(out, "ok: ") {
		t.Errorf("check: %d, %q, %q", exit, out, errs)
	}
	if out, errs, exit := command("seal", "rotate", "--data", dir); exit != 0 || !strings.Contains(out, "seal.key.old") {
		t.Errorf("seal rotate beneath a daemon: %d, %q, %q", exit, out, errs)
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if state, err := d.cmd.Process.Wait(); err != nil || state.ExitCode() != 0 || time.Since(began) > 8*time.Second {
		t.Errorf("ended with %v, %v after %s", state, err, time.Since(began))
	}
	if out, errs, exit := command("restore", "--data", dir, backup); exit != 0 || !strings.Contains(out, "generation 2") ||
		!strings.Contains(out, "kept") {
		t.Errorf("restore: %d, %q, %q", exit, out, errs)
	}
	if out, errs, exit := command("seal", "rotate", "--data", dir); exit != 0 || !strings.Contains(out, "seal.key.old") {
		t.Errorf("seal rotate: %d, %q, %q", exit, out, errs)
	}
	d = start(t, dir)
	if again, err := d.Info(t.Context()); err != nil || again.ID != info.ID {
		t.Errorf("%+v, %v", again, err)
	}
}

// TestCentralBacksItsDatabaseUp soon after its start, where there is no backup yet.
func TestCentralBacksItsDatabaseUp(t *testing.T) {
	dir := t.TempDir()
	d := start(t, dir, "--gossip", "off")
	listed := func() string {
		out, _, exit := command("backup", "list", "--data", dir)
		if exit != 0 {
			t.Fatalf("backup list: %d", exit)
		}
		return out
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(listed(), "backups/central-2"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no backup; the log:\n%s", d.log.String())
		}
	}
	out, errs, exit := command("backup", "verify", "--data", dir)
	if exit != 0 || !strings.Contains(out, ": ok: schema") {
		t.Errorf("verify: %d, %q, %q", exit, out, errs)
	}
	files, err := filepath.Glob(filepath.Join(dir, "backups", "*.db"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	raw, err := os.ReadFile(files[0])
	if err == nil {
		copy(raw[len(raw)/2:], make([]byte, 4096))
		err = os.WriteFile(files[0], raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, errs, exit = command("backup", "verify", "--data", dir)
	if exit != settings.ExitFailed || !strings.Contains(errs, "1 of 1 backups cannot be restored") {
		t.Errorf("verify of a damaged one: %d, %q", exit, errs)
	}
}

func TestTheLogIsJSONWithoutATerminal(t *testing.T) {
	d := start(t, t.TempDir(), "--gossip", "off")
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_, _ = d.cmd.Process.Wait()
	first, _, _ := strings.Cut(d.log.String(), "\n")
	if !json.Valid([]byte(first)) {
		t.Errorf("%q", first)
	}
}

func TestCommandLinesThatMakeNoSense(t *testing.T) {
	dir := t.TempDir()
	for line, want := range map[string]struct {
		exit int
		says string
	}{
		"serve": {settings.ExitUsage, "data"},
		"serve --data " + dir + " --listen 127.0.0.1:7620":               {settings.ExitUsage, "--tls-name"},
		"serve --data " + dir + " --tls-name a":                          {settings.ExitUsage, "--listen"},
		"serve --data " + dir + " --listen 127.0.0.1:7620 --tls-cert a":  {settings.ExitUsage, "--tls-key"},
		"serve --data " + dir + " --gossip 0.0.0.0:0":                    {settings.ExitUsage, "gossip"},
		"serve --data " + dir + " --join there":                          {settings.ExitUsage, "--join"},
		"serve --data " + dir + " --socket /" + strings.Repeat("a", 120): {settings.ExitUsage, "--socket"},
		"serve --data " + dir + " --lissten 127.0.0.1:0":                 {settings.ExitUsage, "lissten"},
		"serve --data " + dir + " --log-level loud":                      {settings.ExitUsage, "loud"},
		"backup make --data " + dir:                                      {settings.ExitUsage, "FILE"},
		"backup verify --data " + dir:                                    {settings.ExitFailed, "no backups in"},
		"serve --data " + dir + " --backup-every 1s":                     {settings.ExitUsage, "less than a minute"},
		"backup --data " + dir + " " + dir + "/b":                        {settings.ExitFailed, "no database"},
		"check --data " + dir + "/nothing":                               {settings.ExitFailed, "no database"},
		"restore --data " + dir + " " + dir + "/nothing":                 {settings.ExitFailed, "no database"},
		"explode": {settings.ExitUsage, "explode"},
	} {
		_, errs, exit := command(strings.Fields(line)...)
		if exit != want.exit || !strings.Contains(errs, want.says) {
			t.Errorf("%s: exit status %d, %q; want %d and %q", line, exit, errs, want.exit, want.says)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.db*")); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
}

func TestDatabaseCommandsKnowWhereCentralIsInstalled(t *testing.T) {
	for _, name := range []string{"backup make", "backup list", "backup verify", "backup restore", "restore", "check"} {
		if out, errs, exit := command(append(strings.Fields(name), "--help")...); exit != 0 || !strings.Contains(out, `/var/lib/rackpower/central)`) {
			t.Errorf("%s: status %d, %s\n%s", name, exit, errs, out)
		}
	}
}

func TestANewerDatabaseIsRefusedInOneLine(t *testing.T) {
	dir := t.TempDir()
	d := start(t, dir, "--gossip", "off")
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_, _ = d.cmd.Process.Wait()
	path := filepath.Join(dir, "central.db")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(raw[60:], 99)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	_, errs, exit := command("serve", "--data", dir)
	if exit != settings.ExitFailed || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "schema 99") ||
		!strings.Contains(errs, "run the newer") {
		t.Errorf("%d, %q", exit, errs)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(raw, after) {
		t.Error("the database was changed")
	}
}

// TestNothingTakenIsLostByAKill kills the daemon while clients ask, and asks again
// with the same ids: each request is there once.
func TestNothingTakenIsLostByAKill(t *testing.T) {
	dir := t.TempDir()
	asked := map[string]bool{} // id: acknowledged
	for round := range 3 {
		d := start(t, dir, "--gossip", "off")
		if round == 0 {
			if _, err := d.AddNodes(t.Context(),
				api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r1", BMC: "ipmi://x@192.0.2.1"}}}); err != nil {
				t.Fatal(err)
			}
		}
		for id := range asked {
			if _, err := d.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{ID: id, Node: "a", Action: power.ActOn}}}); err != nil {
				t.Fatal(err)
			}
			asked[id] = true
		}
		var mu sync.Mutex
		var clients sync.WaitGroup
		killed := sync.OnceFunc(func() { _ = d.cmd.Process.Kill() })
		for range 8 {
			clients.Go(func() {
				for n := 0; ; n++ {
					id := uuid.Must(uuid.NewV7()).String()
					_, err := d.AskOps(context.Background(), api.AskOps{Ops: []api.OpRequest{{ID: id, Node: "a", Action: power.ActOn}}})
					mu.Lock()
					asked[id] = err == nil
					mu.Unlock()
					if n > 20+10*round {
						killed()
					}
					if err != nil {
						return
					}
				}
			})
		}
		clients.Wait()
	}
	d := start(t, dir, "--gossip", "off")
	found, err := d.QueryOps(t.Context(), api.QueryOps{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	seqs := map[power.Seq]bool{}
	for _, o := range found.Ops {
		seen[o.ID]++
		if seqs[o.Seq] {
			t.Errorf("sequence %d was given twice", o.Seq)
		}
		seqs[o.Seq] = true
	}
	for id, acknowledged := range asked {
		if acknowledged && seen[id] != 1 {
			t.Errorf("%s was acknowledged and is there %d times", id, seen[id])
		}
	}
	t.Logf("%d asked for, %d found", len(asked), len(found.Ops))
}

func TestHelpHasExamplesAndExitStatus(t *testing.T) {
	for _, name := range []string{"serve", "backup list", "backup make", "backup verify", "restore", "check"} {
		out, errs, exit := command(append(strings.Fields(name), "--help")...)
		if exit != 0 || errs != "" || !strings.Contains(out, "EXAMPLES") || !strings.Contains(out, "EXIT STATUS") {
			t.Errorf("%s --help: %d\n%s%s", name, exit, out, errs)
		}
	}
}

func TestErrorsHaveOneLine(t *testing.T) {
	said := explain(fmt.Errorf("%w: page 7\npage 8", store.ErrCorrupt)).Error()
	if strings.Contains(said, "\n") || !strings.Contains(said, "page 8") {
		t.Errorf("%q", said)
	}
}
