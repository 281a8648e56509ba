package gossip

import (
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
)

// early is a transport at which packets lie before anybody reads: those that were on
// their way to the process that had the address before.
type early struct {
	memberlist.NodeAwareTransport
	packets chan *memberlist.Packet
}

func (e *early) PacketCh() <-chan *memberlist.Packet { return e.packets }

// TestEarlyPackets: a member that starts while the others still spread a question to
// it, as one that was killed and is back within a second, answers it or not, and lives.
func TestEarlyPackets(t *testing.T) {
	for round := range 20 {
		c := start(t, "r1", func(cfg *Config) {
			cfg.tuning.wrap = func(inner memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
				e := &early{inner, make(chan *memberlist.Packet, 8)}
				for range cap(e.packets) {
					e.packets <- question(t, uint32(round))
				}
				return e
			}
		})
		eventually(t, "the question is taken", func() bool { return len(c.transport.PacketCh()) == 0 })
		crash(c)
	}
}

// question is a packet of Serf's that asks for an acknowledgement, as it goes round.
func question(t *testing.T, id uint32) *memberlist.Packet {
	const userMessage, query, wantAck = 8, 4, 1
	raw := []byte{userMessage, query}
	body := map[string]any{
		"LTime": serf.LamportTime(1), "ID": id, "Addr": []byte{127, 0, 0, 1}, "Port": uint16(9), "SourceNode": "r2",
		"Flags": uint32(wantAck), "Timeout": time.Second, "Name": pingQuery,
	}
	var encoded []byte
	if err := codec.NewEncoderBytes(&encoded, &codec.MsgpackHandle{}).Encode(body); err != nil {
		t.Fatal(err)
	}
	return &memberlist.Packet{Buf: append(raw, encoded...), From: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, Timestamp: time.Now()}
}
