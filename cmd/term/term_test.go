package term

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
	if width := Columns(out); width != 77 || !Is(out) {
		t.Errorf("%d columns", width)
	}
}

// TestWidthIsInColumns: a wide character takes two, an accent put on another none.
func TestWidthIsInColumns(t *testing.T) {
	for text, want := range map[string]int{"r1n01": 5, "机柜": 4, "e\u0301": 1, "é": 1} {
		if got := Width(text); got != want {
			t.Errorf("%q: %d, not %d", text, got, want)
		}
	}
	if got := Pad("机", 4) + "|"; got != "机  |" {
		t.Errorf("%q", got)
	}
	if got := Shorten("一二三四五六七八", 10); Width(got) > 10 || !strings.HasSuffix(got, " ...") {
		t.Errorf("%q", got)
	}
	if got := Wrap("机柜 机柜 机柜 机柜 机柜 机柜", 20); len(got) != 2 {
		t.Errorf("%q", got)
	}
}
