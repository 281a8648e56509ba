package main

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal, and what was written to it.
type terminal struct {
	t            *testing.T
	keys, screen *os.File // where keys are typed, and what a program has

	mu   sync.Mutex
	text []byte
}

func newTerminal(t *testing.T, columns, lines int) *terminal {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("LEFT OUT: there are no pseudo terminals here: mount devpts (%v)", err)
	}
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	tt := &terminal{t: t, keys: keys, screen: screen}
	tt.resize(columns, lines)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := keys.Read(buf)
			tt.mu.Lock()
			tt.text = append(tt.text, buf[:n]...)
			tt.mu.Unlock()
			if err != nil { // no program has it open any more
				return
			}
		}
	}()
	t.Cleanup(func() {
		_, _ = keys.WriteString("\n") // who still reads from it keeps it open
		_ = screen.Close()
		<-read
		_ = keys.Close()
	})
	return tt
}

func (tt *terminal) resize(columns, lines int) {
	tt.t.Helper()
	size := &unix.Winsize{Col: uint16(columns), Row: uint16(lines)}
	if err := unix.IoctlSetWinsize(int(tt.keys.Fd()), unix.TIOCSWINSZ, size); err != nil {
		tt.t.Fatal(err)
	}
}

// written is what was written so far.
func (tt *terminal) written() string {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	return string(tt.text)
}
