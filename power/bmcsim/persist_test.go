package bmcsim

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/power"
)

// childVar makes the test binary a simulator that is there to be killed.
const childVar = "BMCSIM_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		f, err := Start(context.Background(), childConfig(dir))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(f.BMC(0).Addr())
		select {}
	}
	os.Exit(m.Run())
}

func childConfig(dir string) Config {
	return Config{
		Count: 2, OnAfter: time.Minute,
		LogFile: filepath.Join(dir, "log"), StateFile: filepath.Join(dir, "state"),
	}
}

func readLog(t *testing.T, path string) (out []Entry) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		out = append(out, e)
	}
	return out
}

func TestFilesSurviveAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), exe)
	child.Env = append(os.Environ(), childVar+"="+dir)
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the simulator did not start: %q %v", line, err)
	}
	b := one(t, Config{}) // stands for the one in the other process
	b.addr = netip.MustParseAddrPort(strings.TrimSpace(line))
	login(t, b).control(up) // takes a minute: the node will be on all the same
	_ = child.Process.Kill()
	_ = child.Wait()

	got := readLog(t, filepath.Join(dir, "log"))
	if len(got) != 1 || got[0].Command != "power-on" || got[0].BMC != "bmc1" || got[0].After != power.On {
		t.Fatalf("log %+v", got)
	}
	f := farm(t, childConfig(dir))
	if f.BMC(0).Power() != power.On || f.BMC(1).Power() != power.Off {
		t.Errorf("states after the restart: %s, %s", f.BMC(0).Power(), f.BMC(1).Power())
	}
}

func TestLogFileIsWrittenBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(`{"bmc":"old"}`+"\n"+`{"bmc":"to`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := farm(t, Config{Count: 2, LogFile: path})
	for i := range 2 {
		login(t, f.BMC(i)).control(up)
		data, err := os.ReadFile(path)
		if err != nil || strings.Count(string(data), "power-on") != i+1 {
			t.Fatalf("after %d commands: %v\n%s", i+1, err, data)
		}
	}
	data, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) != 6 || lines[1] != `{"bmc":"to` || !strings.HasPrefix(lines[2], `{"time"`) {
		t.Errorf("the torn line has spoilt another: %q", lines)
	}
	if strings.Contains(string(data), string(DefaultPassword)) {
		t.Error("the password is in the log")
	}
}

func TestStateFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	cfg := Config{Count: 3, StateFile: path}
	for round := range 4 {
		f, err := Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		on := round%2 == 1
		if (f.BMC(1).Power() == power.On) != on || f.BMC(0).Power() != power.Off {
			t.Fatalf("round %d: %s, %s", round, f.BMC(0).Power(), f.BMC(1).Power())
		}
		c := login(t, f.BMC(1))
		if on {
			c.control(down)
		} else {
			c.control(up)
		}
		f.BMC(2).SetPower(stateOf(!on))
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := appendTo(path, `{"bmc":"bmc1","sta`); err != nil { // killed while writing
			t.Fatal(err)
		}
	}
	for range 2 { // what nobody touches is kept
		f, err := Start(t.Context(), cfg)
		if err != nil || f.BMC(2).Power() != power.Off || f.BMC(1).Power() != power.Off {
			t.Fatalf("%v", err)
		}
		_ = f.Close()
		cfg.Initial = power.On
	}
	data, err := os.ReadFile(path)
	if err != nil || strings.Count(string(data), "\n") > 6 {
		t.Errorf("the file grows: %v\n%s", err, data)
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = f.WriteString(text)
	return err
}
