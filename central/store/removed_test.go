package store

import (
	"context"
	"errors"
	"os"
	"testing"
)

// TestARemovedDatabaseTakesNothing removes or replaces its files while it is open.
func TestARemovedDatabaseTakesNothing(t *testing.T) {
	onFiles(t)
	for name, do := range map[string]func(path string) error{
		"removed":     os.Remove,
		"log removed": func(path string) error { return os.Remove(path + "-wal") },
		"moved":       func(path string) error { return os.Rename(path, path+".old") },
		"replaced": func(path string) error {
			data, err := os.ReadFile(path)
			return errors.Join(err, os.Remove(path), os.WriteFile(path, data, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			s := mustOpen(t, Config{Path: path})
			withAgent(t, s, "r1")
			if err := do(path); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				err := s.Write(context.Background(), func(tx *Tx) error { return tx.EnsureAgent("r2") })
				if !errors.Is(err, ErrRemoved) {
					t.Errorf("got %v, want ErrRemoved", err)
				}
			}
		})
	}
}
