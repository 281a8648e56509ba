package exec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rackpower/power"
)

// DefaultTimeout is how long a program may take. It is below the 30 s that the agent gives an
// exchange.
const DefaultTimeout = 25 * time.Second

// Config is what a Dialer goes by.
type Config struct {
	// Dir holds the programs that may be run; "": none may.
	Dir string
	// Timeout is how long a program may run; DefaultTimeout when zero.
	Timeout time.Duration
}

// Dialer makes drivers that run programs. It may be used concurrently, holds nothing that must
// be closed, and remembers nothing.
type Dialer struct{ cfg Config }

// NewDialer returns a Dialer. It refuses a directory that others than root and the user of this
// process can change.
func NewDialer(cfg Config) (*Dialer, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Dir == "" {
		return &Dialer{cfg: cfg}, nil
	}
	path, info, err := trusted(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is no directory", cfg.Dir)
	}
	cfg.Dir = path
	return &Dialer{cfg: cfg}, nil
}

// trusted follows links and returns where a path leads, if nobody but root and the user of this
// process can change that or anything on the way.
func trusted(path string) (real string, info fs.FileInfo, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return "", nil, err
	}
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", nil, err
	}
	for at := real; ; at = filepath.Dir(at) {
		is, err := os.Lstat(at)
		if err != nil {
			return "", nil, err
		}
		if info == nil {
			info = is
		}
		owner, ok := is.Sys().(*syscall.Stat_t)
		switch {
		case !ok || owner.Uid != 0 && int(owner.Uid) != os.Getuid():
			return "", nil, fmt.Errorf("%s belongs to neither root nor the agent's user: change its owner", at)
		case is.Mode().Perm()&0o022 != 0 && (at == real || is.Mode()&fs.ModeSticky == 0):
			return "", nil, fmt.Errorf("%s can be changed by others than its owner: chmod go-w %s", at, at)
		}
		if at == filepath.Dir(at) {
			return real, info, nil
		}
	}
}

const opOpen = "find program"

var (
	errNoDir  = errors.New("this agent runs no programs: whoever runs it allows those of a directory with rackpower agent --exec-dir DIR")
	errQuoted = errors.New("a password that begins or ends with a blank, or is in quotation marks, reaches a fence agent changed: use another")
)

// program finds the endpoint's program.
func (d *Dialer) program(op string, ep power.Endpoint) (string, *power.Error) {
	bad := func(err error) *power.Error { return &power.Error{Kind: power.KindUnsupported, Op: op, Err: err} }
	switch {
	case ep.Scheme != power.SchemeExec:
		return "", bad(fmt.Errorf("scheme %q is no program", ep.Scheme))
	case d.cfg.Dir == "":
		return "", bad(errNoDir)
	case ep.Program == "" || ep.Program != filepath.Base(ep.Program) || strings.HasPrefix(ep.Program, "."):
		return "", bad(errors.New("the address names no program"))
	}
	path, info, err := trusted(filepath.Join(d.cfg.Dir, ep.Program))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", bad(fmt.Errorf("there is no program %s in the agent's --exec-dir (%s)", ep.Program, d.cfg.Dir))
	case err != nil:
		return "", bad(err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return "", bad(fmt.Errorf("%s is no program that can be run: chmod +x", path))
	}
	return path, nil
}

// Dial returns a driver for the endpoint. It is a power.Dialer. It runs nothing: that a device
// answers, and takes user and password, shows at the first reading.
func (d *Dialer) Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	if ctx.Err() != nil {
		return nil, canceled(ctx, opOpen)
	}
	if _, err := d.program(opOpen, ep); err != nil {
		return nil, err
	}
	return &driver{dialer: d, ep: ep}, nil
}

// Probe reports whether the endpoint has a program. There is no asking a device without user
// and password, so that the reading that follows is the probe.
func (d *Dialer) Probe(_ context.Context, ep power.Endpoint) error {
	if _, err := d.program("probe", ep); err != nil {
		return err
	}
	return nil
}

func canceled(ctx context.Context, op string) *power.Error {
	return &power.Error{Kind: power.KindCanceled, Op: op, Err: context.Cause(ctx)}
}
