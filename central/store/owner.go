package store

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ownAs gives a file to whom another one belongs, a directory it lies in or what it
// takes the place of: what root puts there has to be the daemon's. Only root can.
func ownAs(like, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(like)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("cannot give %s to its daemon: %w", path, err)
	}
	return nil
}

// MakeDirectory makes the directory of a database, for its owner only. One that root
// makes belongs to whom the directory above it belongs.
func MakeDirectory(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return ownAs(filepath.Dir(filepath.Clean(path)), path)
}
