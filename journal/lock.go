package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockName is the file in a journal's directory that its one writer holds.
const lockName = "LOCK"

// Lock takes the flock of a file, and of its directory, so that a
// file that somebody removed locks nobody in. It writes the number of this process into
// the file. The kernel gives the locks back when the process ends, however it ends.
func (disk) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l := locked{f, d}
	for _, each := range l {
		if err := flock(each); err != nil {
			defer l.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%w by %s", ErrLocked, holder(f))
			}
			return nil, err
		}
	}
	// The number only serves the text of the other's error.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return l, nil
}

// locked is a file and its directory.
type locked [2]*os.File

func (l locked) Close() error { return errors.Join(l[0].Close(), l[1].Close()) }

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func holder(f *os.File) string {
	buf := make([]byte, 20)
	n, _ := f.ReadAt(buf, 0)
	if pid := strings.TrimSpace(string(buf[:n])); pid != "" {
		return "process " + pid
	}
	return "another process"
}
