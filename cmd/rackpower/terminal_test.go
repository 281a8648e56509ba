package main

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"rackpower/cmd/settings"
)

// TestTheTerminalIsSeenThroughWhatWatchesTheOutput: stdout is not a bare file.
func TestTheTerminalIsSeenThroughWhatWatchesTheOutput(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("LEFT OUT: no pseudo-terminal: %v", err)
	}
	defer master.Close()
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 77}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("LEFT OUT: no pseudo-terminal: %v", err)
	}
	defer slave.Close()
	out := struct{ *os.File }{slave}
	if width := (printer{out: out}).terminal(); width != 77 || !settings.IsTerminal(out) {
		t.Errorf("%d columns", width)
	}
}
