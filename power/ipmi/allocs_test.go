//go:build !race

package ipmi

import "testing"

// TestAnExchangeAllocatesLittle: what is sealed and opened over and over goes into the session's
// own buffers. Two of the allocations are those of the cipher's modes.
func TestAnExchangeAllocatesLittle(t *testing.T) {
	c, msg, sequence := testCodec(16), []byte{0x20, 0, 0xe0, 0x81, 4, 1, 0x7a}, uint32(0)
	var packet []byte
	n := testing.AllocsPerRun(100, func() {
		sequence++
		packet = c.seal(packet[:0], sequence, msg)
		if _, _, err := c.open(packet); err != nil {
			t.Fatal(err)
		}
	})
	if n > 2 {
		t.Errorf("%v allocations to seal and open a packet, at most 2 are meant to be", n)
	}
}
