package journal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rackpower/journal"
)

var payload = strings.Repeat("p", 260) // about 300 bytes with key and frame

// rawFile is a preallocated file, the pace of the disk.
func rawFile(b *testing.B) *os.File {
	f, err := os.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if _, err := f.Write(make([]byte, 16<<20)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return f
}

func rawAppend(b *testing.B, f *os.File, off *int64, data []byte) {
	if *off+int64(len(data)) > 16<<20 {
		*off = 0
	}
	if _, err := f.WriteAt(data, *off); err != nil {
		b.Fatal(err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		b.Fatal(err)
	}
	*off += int64(len(data))
}

func p50(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkOneWriter takes turns with write+fdatasync of a preallocated file, so
// that both see the same disk. x-raw is the ratio of the medians.
func BenchmarkOneWriter(b *testing.B) {
	j := open(b, journal.Config{Dir: b.TempDir()})
	f, off, data := rawFile(b), int64(0), make([]byte, 304)
	var ours, raw []time.Duration
	for b.Loop() {
		t := time.Now()
		if _, err := j.Append(put("n1", payload)); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(t))
		t = time.Now()
		rawAppend(b, f, &off, data)
		raw = append(raw, time.Since(t))
	}
	b.ReportMetric(float64(p50(ours).Microseconds()), "p50-us")
	b.ReportMetric(float64(p50(raw).Microseconds()), "raw-p50-us")
	b.ReportMetric(float64(p50(ours))/float64(p50(raw)), "x-raw")
}

const crowd = 64

// Benchmark64Writers compares with a leader that writes raw bytes for 64 waiters.
func Benchmark64Writers(b *testing.B) {
	j := open(b, journal.Config{Dir: b.TempDir()})
	for b.Loop() {
		ours := race(func(w, n int) {
			for range n {
				if _, err := j.Append(put(fmt.Sprint("n", w), payload)); err != nil {
					b.Error(err)
				}
			}
		})
		l := newRawLeader(b)
		raw := race(func(_, n int) {
			for range n {
				l.append()
			}
		})
		b.ReportMetric(ours, "records/s")
		b.ReportMetric(raw, "raw-records/s")
		b.ReportMetric(ours/raw, "x-raw")
	}
}

// race runs the crowd and returns records per second.
func race(work func(w, n int)) float64 {
	const each = 1500
	began := time.Now()
	var wg sync.WaitGroup
	for w := range crowd {
		wg.Go(func() { work(w, each) })
	}
	wg.Wait()
	return crowd * each / time.Since(began).Seconds()
}

// rawLeader is the least that group commit can be.
type rawLeader struct {
	b       *testing.B
	f       *os.File
	off     int64
	mu      sync.Mutex
	waiting []chan bool
	leading bool
}

func newRawLeader(b *testing.B) *rawLeader { return &rawLeader{b: b, f: rawFile(b)} }

func (l *rawLeader) append() {
	turn := make(chan bool, 1)
	l.mu.Lock()
	l.waiting = append(l.waiting, turn)
	if l.leading {
		l.mu.Unlock()
		if !<-turn {
			return
		}
		l.mu.Lock()
	}
	l.leading = true
	batch := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	rawAppend(l.b, l.f, &l.off, make([]byte, 304*len(batch)))
	l.mu.Lock()
	for _, t := range batch {
		t <- false
	}
	if l.leading = len(l.waiting) > 0; l.leading {
		l.waiting[0] <- true
	}
	l.mu.Unlock()
}

// million writes a journal of 1,000,000 records, 10,000 of them live.
func million(b *testing.B) journal.Config {
	cfg := journal.Config{Dir: b.TempDir(), SegmentSize: 512 << 20, KeepSegments: -1}
	j := open(b, cfg)
	for i := 0; i < 1_000_000; {
		var group []journal.Entry
		for range 1000 {
			group = append(group, put(fmt.Sprint("node", i%10_000), payload))
			i++
		}
		if _, err := j.Append(group...); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, j)
	return cfg
}

// BenchmarkReplay1M reads a million records and works out what is live.
func BenchmarkReplay1M(b *testing.B) {
	cfg := million(b)
	for b.Loop() {
		recs, rep, err := journal.Read(cfg.Dir, nil)
		if err != nil || len(recs) != 10_000 || rep.LSN != 1_000_000 {
			b.Fatal(len(recs), rep.LSN, err)
		}
	}
}

// BenchmarkOpen10kLive opens and closes a journal with 10,000 live records.
func BenchmarkOpen10kLive(b *testing.B) {
	cfg := journal.Config{Dir: b.TempDir()}
	j := open(b, cfg)
	for i := range 100 {
		var group []journal.Entry
		for k := range 100 {
			group = append(group, put(fmt.Sprint("node", i*100+k), payload))
		}
		appendAll(b, j, group...)
	}
	mustClose(b, j)
	var took []time.Duration
	for b.Loop() {
		t := time.Now()
		j, err := journal.Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(t))
		if len(j.Live()) != 10_000 {
			b.Fatal(len(j.Live()))
		}
		mustClose(b, j)
	}
	b.ReportMetric(float64(p50(took).Microseconds())/1000, "open-p50-ms")
}
