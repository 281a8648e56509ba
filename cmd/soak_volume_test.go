package cmd_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// volumeMB has room for a daemon's data and little more.
const volumeMB = 72

// volumeFor has room for the history of so long a soak as well, which grows by 2 MB a minute.
func volumeFor(length time.Duration) int { return volumeMB + 4*int(length.Minutes()) }

// volume is a small file system of its own (ext4 in a file) for one daemon's data,
// that can be full and can turn read-only under the daemon. It is mounted in the
// mount namespace of the soak, with which it goes, however that ends.
type volume struct {
	dir, image string
}

// canMount says what keeps volumes from being made; "" if nothing does.
func canMount() string {
	if os.Getenv(soakInner) == "" {
		return "needs root and a mount namespace"
	}
	for _, tool := range []string{"mkfs.ext4", "e2fsck", "mount", "umount"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "needs " + tool
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return "needs loop devices"
	}
	return ""
}

func newVolume(dir string, megabytes int) (*volume, error) {
	v := &volume{dir: dir, image: dir + ".img"}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(v.image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(v.image, int64(megabytes)<<20); err != nil {
		return nil, err
	}
	// With blocks smaller than a page SQLite's shared memory has holes, and on a full disk
	// it is killed by SIGBUS; no disk of a server has such.
	if err := runTool(0, "mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-J", "size=4", v.image); err != nil {
		return nil, err
	}
	return v, v.mount()
}

// mount mounts it so that an error makes it read-only.
func (v *volume) mount() error {
	return runTool(0, "mount", "-o", "loop,errors=remount-ro", v.image, v.dir)
}

func (v *volume) unmount() error { return runTool(0, "umount", v.dir) }

func (v *volume) filler() string { return filepath.Join(v.dir, "filler") }

// fill takes all the room there is.
func (v *volume) fill() error {
	f, err := os.OpenFile(v.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, chunk := range []int{1 << 20, 4096, 512} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, chunk))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return nil
}

// free gives the room back.
func (v *volume) free() error { return os.Remove(v.filler()) }

// breakDown has the kernel find an error in the file system: it is read-only at once,
// files that are open for writing included.
func (v *volume) breakDown() error {
	device, err := exec.Command("findmnt", "-n", "-o", "SOURCE", v.dir).Output()
	if err != nil {
		return fmt.Errorf("findmnt %s: %w", v.dir, err)
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(device))), "trigger_fs_error")
	return os.WriteFile(trigger, []byte("1"), 0)
}

// repair does what an administrator does then. No file in it may be open.
func (v *volume) repair() error {
	if err := v.unmount(); err != nil {
		return err
	}
	if err := runTool(1, "e2fsck", "-p", v.image); err != nil { // 1: errors were corrected
		return err
	}
	return v.mount()
}

// runTool runs a tool that may end with an exit status up to most.
func runTool(most int, name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() <= most {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
