package faultfs

import (
	"maps"
	"slices"
)

// PowerOff ends the machine: every call fails from now on.
func (f *FS) PowerOff() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
}

// Restart returns the disk as the next process finds it when this one was
// killed: nothing that was written is lost, flushed or not, locks are free.
// Files that were open on f must not be used any more.
func (f *FS) Restart() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
	return f.clone()
}

// Clone returns a second disk in the same state, with its locks free; f goes on.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clone()
}

func (f *FS) clone() *FS {
	nodes := map[*inode]*inode{nil: nil}
	copyOf := func(n *inode) *inode {
		if nodes[n] == nil && n != nil {
			nodes[n] = &inode{id: n.id, name: n.name, cache: slices.Clone(n.cache), disk: slices.Clone(n.disk), dirty: maps.Clone(n.dirty)}
		}
		return nodes[n]
	}
	next := New()
	next.capacity = f.capacity
	for name, n := range f.cache {
		next.cache[name] = copyOf(n)
	}
	for name, n := range f.disk {
		next.disk[name] = copyOf(n)
	}
	for _, c := range f.pending {
		next.pending = append(next.pending, change{c.remove, c.add, copyOf(c.node)})
	}
	return next
}

// PowerLoss returns the disk as it is after a loss of power. Of what was not
// flushed, choose decides: choose(n) returns a number from 0 to n-1. A sector
// unit is 512 or 4096 bytes. Nothing on f is changed, so that many losses can
// be drawn from one moment.
func (f *FS) PowerLoss(unit int64, choose func(n int) int) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
	names := maps.Clone(f.disk)
	for _, c := range f.pending {
		if choose(2) == 1 {
			c.apply(names)
		}
	}
	next := New()
	next.capacity = f.capacity
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data := names[name].survive(unit, choose)
		next.cache[name] = &inode{id: names[name].id, name: name, cache: data, disk: slices.Clone(data), dirty: map[int64]bool{}}
		next.disk[name] = next.cache[name]
	}
	return next
}

// survive returns what is left of a file: per unit all dirty sectors or none. In
// one case of four nothing unflushed survives, in one everything.
func (n *inode) survive(unit int64, choose func(n int) int) []byte {
	left := &inode{cache: n.cache, disk: slices.Clone(n.disk)}
	mode := choose(4)
	if len(n.dirty) == 0 || mode == 0 {
		return left.disk
	}
	per := unit / sectorSize
	kept := map[int64]bool{}
	for _, s := range slices.Sorted(maps.Keys(n.dirty)) {
		u := s / per
		keep, asked := kept[u]
		if !asked {
			keep = mode == 1 || choose(2) == 1
			kept[u] = keep
		}
		if keep {
			left.persist(s)
		}
	}
	return left.disk
}

// Flip inverts one bit of a file, durably.
func (f *FS) Flip(name string, bit int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := f.cache[name]
	node.cache[bit/8] ^= 1 << (bit % 8)
	if bit/8 < int64(len(node.disk)) {
		node.disk[bit/8] ^= 1 << (bit % 8)
	}
}
