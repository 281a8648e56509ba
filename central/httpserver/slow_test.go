package httpserver

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// impatiently has a server serve on a port of loopback whose bounds of time are short.
func impatiently(t *testing.T, h http.Handler, most int, wrap func(net.Listener) net.Listener) (addr string) {
	t.Helper()
	before := bodyTime
	bodyTime = 300 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	if wrap != nil {
		l = wrap(l)
	}
	srv := New(TimelyBodies(h), most)
	srv.ReadHeaderTimeout = 300 * time.Millisecond
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-ended
		bodyTime = before
	})
	return addr
}

func dial(t *testing.T, addr, from string) net.Conn {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ends reads until the server ends the connection.
func ends(t *testing.T, conn net.Conn) string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	text, err := io.ReadAll(conn)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // of this connection
		t.Fatal("the connection was not ended")
	}
	return string(text)
}

// TestSlowClientsAreCutOff plays clients that hold a connection and do not get on.
func TestSlowClientsAreCutOff(t *testing.T) {
	handled := make(chan error, 1)
	addr := impatiently(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			handled <- Answer(w, strings.Repeat("x", 64<<20), nil)
			return
		}
		_, err := io.Copy(io.Discard, r.Body)
		handled <- err
	}), 100, nil)
	drip := func(conn net.Conn) {
		for {
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // it is slow; nothing is waited for
		}
	}
	t.Run("headers that never end", func(t *testing.T) {
		conn := dial(t, addr, "")
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
		go drip(conn)
		ends(t, conn)
	})
	t.Run("headers that are too long", func(t *testing.T) {
		conn := dial(t, addr, "")
		go func() {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
		}()
		if text := ends(t, conn); text != "" && !strings.Contains(text, "431") {
			t.Errorf("%.100q", text)
		}
	})
	t.Run("a body byte by byte", func(t *testing.T) {
		conn := dial(t, addr, "")
		fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
		go drip(conn)
		if err := <-handled; err == nil {
			t.Error("the body was read")
		}
		ends(t, conn)
	})
	t.Run("an answer that is not read", func(t *testing.T) {
		conn := dial(t, addr, "")
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err := <-handled; err == nil {
			t.Error("64 MB were taken by a client that reads nothing")
		}
	})
}

// TestOneAddressDoesNotTakeAllConnections: those of an address are a quarter at most, and who
// is refused is told so, or not waited for.
func TestOneAddressDoesNotTakeAllConnections(t *testing.T) {
	addr := impatiently(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), 8, nil)
	var held []net.Conn
	ask := func(conn net.Conn) *http.Response {
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for range 2 {
		conn := dial(t, addr, "127.0.0.1")
		if resp := ask(conn); resp.StatusCode != http.StatusNoContent {
			t.Fatal(resp.Status)
		}
		held = append(held, conn)
	}
	third := ask(dial(t, addr, "127.0.0.1"))
	text, _ := io.ReadAll(third.Body)
	if third.StatusCode != http.StatusTooManyRequests || third.Header.Get("Retry-After") != "1" ||
		!strings.Contains(string(text), "2 connections of 127.0.0.1 are open") {
		t.Errorf("%s, %v, %s", third.Status, third.Header, text)
	}
	if resp := ask(dial(t, addr, "127.0.0.2")); resp.StatusCode != http.StatusNoContent {
		t.Errorf("another address: %s", resp.Status)
	}
	held[0].Close()
	for { // the server notices it in its own time
		if resp := ask(dial(t, addr, "127.0.0.1")); resp.StatusCode == http.StatusNoContent {
			break
		}
	}
}

// TestARefusalOverTLSIsNotWaitedFor has clients connect beyond the bound and say nothing: the
// others are accepted meanwhile.
func TestARefusalOverTLSIsNotWaitedFor(t *testing.T) {
	cert := selfSigned(t)
	addr := impatiently(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), 4,
		func(l net.Listener) net.Listener {
			return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
		})
	secured := func(from string) (*http.Response, error) {
		conn := tls.Client(dial(t, addr, from), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // of this test
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return http.ReadResponse(bufio.NewReader(conn), nil)
	}
	if resp, err := secured("127.0.0.1"); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%v, %v", resp, err)
	}
	if resp, err := secured("127.0.0.1"); err == nil {
		t.Errorf("one too many: %v", resp)
	}
	for range 40 {
		dial(t, addr, "127.0.0.1")
	}
	if resp, err := secured("127.0.0.2"); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("another address: %v, %v", resp, err)
	}
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
