package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// pair is a central that serves, here one that answers with what it knows of a connection, and one that
// stands by.
type pair struct {
	r       *Receiver
	f       *Forwarder
	standby string // where the second one is reached
	end     context.CancelFunc
	served  chan error
}

func newPair(t *testing.T) *pair {
	t.Helper()
	r, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	go func() {
		for {
			conn, err := r.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				passed := conn.(*Conn)
				fmt.Fprintf(conn, "%s of %s by %v", text, conn.RemoteAddr(), passed.Names)
			}()
		}
	}()
	l := listen(t)
	ctx, end := context.WithCancel(t.Context())
	p := &pair{r: r, standby: l.Addr().String(), end: end, served: make(chan error, 1)}
	p.f = &Forwarder{Names: []string{"c2.example"}, Log: slog.New(slog.DiscardHandler)}
	go func() { p.served <- p.f.Serve(ctx, l) }()
	t.Cleanup(p.end)
	return p
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func (p *pair) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.standby)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

// ask sends a text with its end, and returns all that comes back.
func ask(t *testing.T, conn *net.TCPConn, text string) string {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		return ""
	}
	if err := conn.CloseWrite(); err != nil {
		return ""
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func TestAConnectionIsPassedOn(t *testing.T) {
	p := newPair(t)
	if got := ask(t, p.dial(t), "hello"); got != "" {
		t.Errorf("passed on to nowhere: %q", got)
	}
	p.f.Found(p.r.Where())
	for range 3 {
		conn := p.dial(t)
		if got, want := ask(t, conn, "hello"), fmt.Sprintf("hello of %s by [c2.example]", conn.LocalAddr()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	long := strings.Repeat("0123456789", 100_000)
	if got := ask(t, p.dial(t), long); !strings.HasPrefix(got, long+" of ") {
		t.Errorf("%d bytes came back of a long text", len(got))
	}
	p.f.Found("")
	if got := ask(t, p.dial(t), "hello"); got != "" {
		t.Errorf("passed on to one that has ended: %q", got)
	}
}

// TestWhoIsNotTheOtherCentralIsRefused: neither side believes anybody who does not know what the database says.
func TestWhoIsNotTheOtherCentralIsRefused(t *testing.T) {
	p := newPair(t)
	other, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	for name, change := range map[string]func(w *where){
		"another certificate": func(w *where) { w.Address = other.where.Address },
		"another token":       func(w *where) { w.Token = other.where.Token },
		"no token":            func(w *where) { w.Token = "" },
	} {
		t.Run(name, func(t *testing.T) {
			f := &Forwarder{Log: slog.New(slog.DiscardHandler), where: p.r.where}
			change(&f.where)
			conn, err := f.dial(t.Context(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			_, _ = io.WriteString(conn, "hello")
			_ = conn.CloseWrite()
			if got, _ := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("taken: %q", got)
			}
		})
	}
}

// TestAStandbyThatTakesOver cuts what it passed on, and its listener can be used.
func TestAStandbyThatTakesOver(t *testing.T) {
	p := newPair(t)
	p.f.Found(p.r.Where())
	conn := p.dial(t)
	if _, err := io.WriteString(conn, "half of a"); err != nil {
		t.Fatal(err)
	}
	p.end()
	if err := <-p.served; err != nil {
		t.Error(err)
	}
	if text, _ := io.ReadAll(conn); len(text) > 0 {
		t.Errorf("%q came after the end", text)
	}
}

// TestTheListenerIsHandedOn: who comes after the end is the next one's.
func TestTheListenerIsHandedOn(t *testing.T) {
	l := listen(t)
	ctx, end := context.WithCancel(t.Context())
	end()
	f := &Forwarder{Log: slog.New(slog.DiscardHandler)}
	if err := f.Serve(ctx, l); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err != nil {
		t.Error(err)
	}
}

// TestAReceiverEnds though somebody has connected who says nothing.
func TestAReceiverEnds(t *testing.T) {
	r, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted after the end: %v", err)
	}
}

// TestTheOneThatServesIsKnownByItsCertificateAlone: TLS within TLS is between the two ends.
func TestTheOneThatServesIsKnownByItsCertificateAlone(t *testing.T) {
	p := newPair(t)
	p.f.Found(p.r.Where())
	cert, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	certificate := func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c, ok := h.Conn.(*Conn); !ok || c.Names[0] != "c2.example" {
			t.Errorf("the handshake is on a %T", h.Conn)
		}
		return cert, nil
	}
	inner := tls.NewListener(r, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: certificate})
	go func() {
		conn, err := inner.Accept()
		if err == nil {
			fmt.Fprint(conn, "from within")
			conn.Close()
		}
	}()
	p.f.Found(r.Where())
	conn := tls.Client(p.dial(t), &tls.Config{InsecureSkipVerify: true})
	if text, _ := io.ReadAll(conn); string(text) != "from within" {
		t.Errorf("%q", text)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("\x00\x24{\"token\":\"t\",\"from\":\"127.0.0.1:1234\"}"))
	f.Add([]byte("\x00\x02{}"))
	f.Add([]byte("\xff\xff{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := readHeader(strings.NewReader(string(text)))
		if err == nil && !h.From.IsValid() {
			t.Error("a header without an address was taken")
		}
	})
}
