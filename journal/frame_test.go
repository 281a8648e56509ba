package journal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestFrameRoundTrip(t *testing.T) {
	for _, key := range []string{"k", strings.Repeat("k", MaxKey)} {
		for n := range 20 {
			f := frame{lsn: 5, time: -3, durable: 77, typ: frameRecord, op: Put, kind: 200, more: n%2 == 0}
			payload := bytes.Repeat([]byte{'p'}, n)
			b := appendFrame([]byte("before"), 9, f, key, payload)[len("before"):]
			got, k, p, size, err := decodeFrame(append(b, "behind"...), 9)
			if err != nil || got != f || string(k) != key || !bytes.Equal(p, payload) || size != len(b) || size%frameAlign != 0 ||
				size != frameSize(len(key), n) {
				t.Fatalf("%d bytes: %+v %v, want %+v", n, got, err, f)
			}
		}
	}
}

func TestFrameOfAnotherPlaceOrSegmentDoesNotVerify(t *testing.T) {
	b := appendFrame(nil, frameSeed(1, 8192), frame{typ: frameRecord, op: Add}, "k", []byte("p"))
	for _, seed := range []uint32{frameSeed(1, 8200), frameSeed(2, 8192)} {
		if _, _, _, _, err := decodeFrame(b, seed); !errors.Is(err, errSum) {
			t.Errorf("got %v, want %v", err, errSum)
		}
	}
}

func TestDecodeFrameTellsZerosFromDamage(t *testing.T) {
	b := appendFrame(nil, 1, frame{typ: frameRecord, op: Add, lsn: 1}, "key", []byte("payload"))
	if _, _, _, _, err := decodeFrame(make([]byte, 100), 1); !errors.Is(err, errZero) {
		t.Errorf("zeros: %v", err)
	}
	for n := 1; n < len(b); n++ {
		if _, _, _, _, err := decodeFrame(b[:n], 1); err == nil {
			t.Errorf("%d of %d bytes are a frame", n, len(b))
		}
	}
	for bit := range len(b) * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, _, _, _, err := decodeFrame(b, 1); err == nil {
			t.Errorf("bit %d does not matter", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add(appendFrame(nil, 1, frame{typ: frameRecord, op: Add, lsn: 1}, "key", []byte("payload")), uint32(1))
	f.Add(appendFrame(nil, 2, frame{typ: frameClose, lsn: 9}, "", nil), uint32(2))
	f.Add(make([]byte, 64), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, seed uint32) {
		fr, key, payload, size, err := decodeFrame(b, seed)
		if err != nil {
			return
		}
		if again := appendFrame(nil, seed, fr, string(key), payload); !bytes.Equal(again, b[:size]) {
			t.Fatalf("decodes to what is written otherwise: %x, %x", b[:size], again)
		}
	})
}

func FuzzDecodeHeader(f *testing.F) {
	buf := make([]byte, dataStart)
	header{owner: "r1", epoch: 3, number: 4, firstLSN: 5, snapshotEnd: dataStart, durable: dataStart}.put(buf)
	f.Add(buf[:headerSize])
	f.Add(make([]byte, headerSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHeader(b); err == nil && (len(h.owner) > maxOwner || h.durable < h.snapshotEnd) {
			t.Fatalf("%+v", h)
		}
	})
}

// The bytes of version 1, once and for all: whoever must change this test must
// raise FormatVersion and keep reading what is below.
func TestFormatOnDisk(t *testing.T) {
	f := frame{lsn: 0x0102, time: 0x1112131415161718, durable: 0x2122, typ: frameRecord, op: Put, kind: 0x33, more: true}
	got := hex.EncodeToString(appendFrame(nil, frameSeed(0xCAFE, 8192), f, "node", []byte("{}")))
	const want = "7d9acf8b2a000000020100000000000018171615141312112221000001023301040000006e6f64657b7d000000000000"
	if got != want {
		t.Errorf("frame:\n got %s\nwant %s", got, want)
	}
	buf := make([]byte, dataStart)
	header{
		id: uuid.UUID{1, 2, 3, 4}, owner: "r1", epoch: 5, number: 6, firstLSN: 7, time: time.Unix(0, 8), salt: 9,
		snapshotCount: 10, snapshotEnd: 8192 + 11, durable: 8192 + 12,
	}.put(buf)
	got = hex.EncodeToString(buf[:104])
	const wantHeader = "52504a4e4c0d0a00d1ca03bb01000000010203040000000000000000000000000000000000000000000000000a0000000000000005000000000000000600000000000000070000000000000008000000000000000b2000000c200000090000000100000002723100"
	if got != wantHeader {
		t.Errorf("header:\n got %s\nwant %s", got, wantHeader)
	}
	h, err := decodeHeader(buf[headerCopy : headerCopy+headerSize])
	if err != nil || h.owner != "r1" || h.epoch != 5 || h.number != 6 || h.firstLSN != 7 || h.salt != 9 || h.snapshotCount != 10 ||
		h.durable != 8192+12 {
		t.Errorf("%+v %v", h, err)
	}
}
