//go:build !lockrank

package lock

import "sync"

// Mutex is a mutex of rank R. Its zero value is unlocked.
type Mutex[R Ranked] struct{ sync.Mutex }
