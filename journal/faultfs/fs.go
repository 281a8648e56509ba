package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"rackpower/journal"
)

// ErrPower is the answer to everything after the power went.
var ErrPower = errors.New("faultfs: no power")

// Errors for faults.
var (
	ErrIO   error = unix.EIO    // input/output error
	ErrFull error = unix.ENOSPC // no space left on device
)

// Op names a call that changes something.
type Op string

// The calls that OnCall hears of.
const (
	OpCreate  Op = "create" // of a file that is not there
	OpWrite   Op = "write"
	OpSync    Op = "sync"
	OpRename  Op = "rename"
	OpRemove  Op = "remove"
	OpSyncDir Op = "syncdir"
)

// Call is one call that changes something.
type Call struct {
	N    int // counts from 1
	Op   Op
	Name string // base name of the file as it is called now; the new one for a rename
	Size int    // bytes of a write
}

// Fault is what happens instead of a call. The zero Fault lets it happen.
type Fault struct {
	// Err is returned. Of a write the first Bytes bytes are done nevertheless.
	Err   error
	Bytes int
	// PowerOff ends the machine within the call: what it was to write is in the
	// cache but not flushed, and everything after it fails with ErrPower.
	PowerOff bool
}

// FS is a disk in memory. It implements journal.FS.
type FS struct {
	mu       sync.Mutex
	cache    map[string]*inode // by path: what is seen
	disk     map[string]*inode // by path: what survives
	pending  []change          // of names, since the last SyncDir
	locks    map[string]*lock
	capacity int64 // 0: no end
	calls    int
	log      []Call
	onCall   func(Call) Fault
	off      bool
	readOnly bool
}

// inode is a file, whatever its name.
type inode struct {
	id          int64  // a copy of a file has another
	name        string // the newest one seen
	cache, disk []byte
	dirty       map[int64]bool // sectors that the next Sync carries to the disk
}

// inodes counts the files ever made.
var inodes atomic.Int64

// Identity tells a file from a copy of it.
func (f *FS) Identity(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if node := f.cache[name]; node != nil {
		return strconv.FormatInt(node.id, 10), nil
	}
	return "", &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

// change is a change of names that is not durable yet.
type change struct {
	remove, add string
	node        *inode
}

// New returns an empty disk.
func New() *FS {
	return &FS{cache: map[string]*inode{}, disk: map[string]*inode{}, locks: map[string]*lock{}}
}

// OnCall sets what decides about each call that changes something; nil lets
// all happen. It is called with the disk locked and must not use it.
func (f *FS) OnCall(fn func(Call) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onCall = fn
}

// FailCall makes the n-th call from now fail with err.
func (f *FS) FailCall(n int, err error) {
	at := f.Calls() + n
	f.OnCall(func(c Call) Fault {
		if c.N == at {
			return Fault{Err: err}
		}
		return Fault{}
	})
}

// PowerOffAt ends the machine within the n-th call from now.
func (f *FS) PowerOffAt(n int) {
	at := f.Calls() + n
	f.OnCall(func(c Call) Fault { return Fault{PowerOff: c.N >= at} })
}

// Calls counts the calls that changed something, or tried to.
func (f *FS) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Log returns all those calls.
func (f *FS) Log() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// SetCapacity bounds the bytes of all files together; 0 takes the bound away.
// A write beyond it does what fits and returns ENOSPC.
func (f *FS) SetCapacity(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = n
}

// SetReadOnly makes every change fail with EROFS.
func (f *FS) SetReadOnly(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readOnly = on
}

// Used is the bytes of all files together.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used()
}

// Room is how many bytes more the files may have together; below 0 with less capacity
// than is used.
func (f *FS) Room() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.capacity - f.used()
}

func (f *FS) used() (n int64) {
	for _, node := range f.cache {
		n += int64(len(node.cache))
	}
	return n
}

// Data returns what a file holds, and whether it is there.
func (f *FS) Data(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := f.cache[name]
	if node == nil {
		return nil, false
	}
	return slices.Clone(node.cache), true
}

// SetData makes a file with the given content, durably: for damage done by hand.
func (f *FS) SetData(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := &inode{id: inodes.Add(1), name: name, cache: slices.Clone(data), disk: slices.Clone(data)}
	f.cache[name], f.disk[name] = node, node
}

// Rewrite gives a file other content, durably: for damage done to the very same file.
func (f *FS) Rewrite(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if node := f.cache[name]; node != nil {
		node.cache, node.disk = slices.Clone(data), slices.Clone(data)
		node.dirty = nil
	}
}

// begin is the start of every changing call, under mu.
func (f *FS) begin(op Op, name string, size int) Fault {
	if f.off {
		return Fault{Err: ErrPower}
	}
	if f.readOnly {
		return Fault{Err: unix.EROFS}
	}
	f.calls++
	c := Call{N: f.calls, Op: op, Name: filepath.Base(name), Size: size}
	f.log = append(f.log, c)
	if f.onCall == nil {
		return Fault{}
	}
	fault := f.onCall(c)
	if fault.PowerOff {
		f.off = true
		fault.Err, fault.Bytes = ErrPower, size
	}
	if fault.Err != nil && !errors.Is(fault.Err, ErrPower) {
		fault.Err = &fs.PathError{Op: string(op), Path: name, Err: fault.Err}
	}
	return fault
}

// MkdirAll does nothing: a directory is there once a file is in it.
func (f *FS) MkdirAll(string) error { return nil }

// ReadDir lists the files below dir.
func (f *FS) ReadDir(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, ErrPower
	}
	var names []string
	for path := range f.cache {
		if name, ok := strings.CutPrefix(path, filepath.Clean(dir)+"/"); ok && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Open opens a file for reading.
func (f *FS) Open(name string) (journal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, ErrPower
	}
	node := f.cache[name]
	if node == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &file{fs: f, node: node, readOnly: true}, nil
}

// Create opens a file for writing, and makes it when it is missing.
func (f *FS) Create(name string) (journal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, ErrPower
	}
	node := f.cache[name]
	if node == nil {
		fault := f.begin(OpCreate, name, 0)
		if fault.Err != nil && !fault.PowerOff {
			return nil, fault.Err
		}
		node = &inode{id: inodes.Add(1), dirty: map[int64]bool{}}
		f.change(change{add: name, node: node})
		if fault.Err != nil {
			return nil, fault.Err
		}
	}
	if f.readOnly {
		return nil, unix.EROFS
	}
	return &file{fs: f, node: node}, nil
}

// Rename gives a file another name.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault := f.begin(OpRename, to, 0)
	node := f.cache[from]
	if node == nil && fault.Err == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if node != nil && (fault.Err == nil || fault.PowerOff) {
		f.change(change{remove: from, add: to, node: node})
	}
	return fault.Err
}

// Remove takes a name away.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault := f.begin(OpRemove, name, 0)
	if f.cache[name] == nil && fault.Err == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if fault.Err == nil || fault.PowerOff {
		f.change(change{remove: name})
	}
	return fault.Err
}

// SyncDir makes all changes of names durable.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault := f.begin(OpSyncDir, dir, 0)
	if fault.Err == nil {
		for _, c := range f.pending {
			c.apply(f.disk)
		}
		f.pending = nil
	}
	return fault.Err
}

func (f *FS) change(c change) {
	c.apply(f.cache)
	if c.add != "" {
		c.node.name = c.add
	}
	f.pending = append(f.pending, c)
}

func (c change) apply(names map[string]*inode) {
	if c.remove != "" {
		delete(names, c.remove)
	}
	if c.add != "" {
		names[c.add] = c.node
	}
}

type lock struct {
	fs   *FS
	name string
}

// Lock takes a lock that ends with Close, Restart or PowerLoss.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, ErrPower
	}
	if f.readOnly {
		return nil, unix.EROFS
	}
	if f.locks[name] != nil {
		return nil, fmt.Errorf("%w by this process", journal.ErrLocked)
	}
	l := &lock{f, name}
	f.locks[name] = l
	return l, nil
}

// Close gives the lock back.
func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.fs.locks[l.name] == l {
		delete(l.fs.locks, l.name)
	}
	return nil
}
