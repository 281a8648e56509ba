package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Daemons whose clock can be stepped are built from the very same sources, but for
// one line of Go's own package time, which the build overlays: the wall clock (not
// the monotonic one) is off by the seconds in a file. Neither the daemons nor the
// machine's clock are touched.
const (
	soakClock  = "RACKPOWER_SOAK_CLOCK" // names the file
	clockLine  = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	clockPatch = clockLine + "\tsec += stepped.Load()\n"
	clockFile  = `package time

import (
	"sync/atomic"
	"syscall"
)

var stepped atomic.Int64 // seconds

func init() {
	if path, ok := syscall.Getenv("` + soakClock + `"); ok && path != "" {
		go func() {
			for ; ; Sleep(10 * Millisecond) {
				stepped.Store(readStep(path))
			}
		}()
	}
}

func readStep(path string) (sec int64) {
	fd, err := open(path)
	if err != nil {
		return 0
	}
	defer closefd(fd)
	var buf [24]byte
	n, _ := read(fd, buf[:])
	sign := int64(1)
	for _, c := range buf[:max(n, 0)] {
		if c == '-' {
			sign = -1
		} else if c >= '0' && c <= '9' {
			sec = sec*10 + int64(c-'0')
		}
	}
	return sign * sec
}
`
)

// buildStepped builds a daemon with such a clock into dir.
func buildStepped(dir, pkg string, cgo bool) (bin string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	overlay, err := writeOverlay(dir, filepath.Join(strings.TrimSpace(string(root)), "src", "time"))
	if err != nil {
		return "", err
	}
	bin = filepath.Join(dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", bin, pkg)
	if !cgo {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", pkg, err, out)
	}
	return bin, nil
}

// writeOverlay makes the file for go build's -overlay.
func writeOverlay(dir, src string) (string, error) {
	real := filepath.Join(src, "time.go")
	text, err := os.ReadFile(real)
	if err != nil {
		return "", err
	}
	if strings.Count(string(text), clockLine) != 1 {
		return "", fmt.Errorf("%s is not as expected", real)
	}
	files := map[string]string{real: strings.Replace(string(text), clockLine, clockPatch, 1), filepath.Join(src, "stepped.go"): clockFile}
	replace := map[string]string{}
	for path, text := range files {
		own := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(own, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = own
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

// stepClock has the clock that reads the file be off by so many seconds from now on.
func stepClock(file string, seconds int) error {
	if err := os.WriteFile(file+".new", []byte(strconv.Itoa(seconds)), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
