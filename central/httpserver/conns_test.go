package httpserver

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener gives a server the other end of one connection.
type pipeListener struct {
	conns chan net.Conn
	over  chan struct{}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}
func (l pipeListener) Close() error   { close(l.over); return nil }
func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// TestABodyThatDoesNotComeHoldsNoConnection: whether the handler reads it or not, the
// connection ends after 30 s. A body that has come, and what is done about it, is not
// hurried.
func TestABodyThatDoesNotComeHoldsNoConnection(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		sent    string
		within  time.Duration
		answer  int // 0: the connection ends without one
	}{
		"read": {func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err == nil {
				t.Error("half a body was taken for a whole one")
			}
			w.WriteHeader(http.StatusBadRequest)
		}, "half", 31 * time.Second, http.StatusBadRequest},
		"not read": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
		}, "half", 31 * time.Second, http.StatusNotFound},
		"whole, and a long wait": {func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if r.Context().Err() != nil {
				t.Error("the request was ended while it was worked on")
			}
			w.WriteHeader(http.StatusOK)
		}, "half and half", 61 * time.Second, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := pipeListener{make(chan net.Conn, 1), make(chan struct{})}
				srv := &http.Server{Handler: TimelyBodies(c.handler)}
				go func() { _ = srv.Serve(l) }()
				defer srv.Close()
				client, server := net.Pipe()
				defer client.Close()
				l.conns <- server
				began := time.Now()
				go func() {
					_, _ = fmt.Fprintf(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len("half and half"),
						c.sent)
				}()
				resp, err := http.ReadResponse(bufio.NewReader(client), nil)
				if err != nil || resp.StatusCode != c.answer {
					t.Fatalf("answer %v, %v", resp, err)
				}
				if _, err := io.Copy(io.Discard, client); err != nil {
					t.Errorf("the connection did not end: %v", err)
				}
				if d := time.Since(began); d > c.within {
					t.Errorf("it was held for %s", d)
				}
			})
		})
	}
}
