package httpserver

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"rackpower/central/api"
)

// bodyTime bounds how long the body of a request may take to come, and that of an answer
// to be taken. Tests are more impatient.
var bodyTime = 30 * time.Second

// TimelyBodies has requests fail whose body does not come within 30 s, whether the
// handler reads it or not: a connection that says it has more to send is held by nobody.
// What a handler does after it has read the body to its end may take any time.
func TimelyBodies(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			rc := http.NewResponseController(w)
			_ = rc.SetReadDeadline(time.Now().Add(bodyTime)) // not every writer has deadlines
			r.Body = &timelyBody{r.Body, rc}
		}
		h.ServeHTTP(w, r)
	})
}

type timelyBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *timelyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

// boundConns has a server refuse connections beyond so many at once on each kind of
// network, so that those on TCP take no place from the socket, and beyond a quarter of them
// from one address. They are answered with a Problem (CodeTooMany) and closed; over TLS,
// where words take a handshake, they are only closed. It takes the server's ConnState.
func boundConns(srv *http.Server, most int) {
	b := &bound{most: most, mostOf: max(most/4, 1), open: map[string]int{}, counted: map[net.Conn]string{}}
	srv.ConnState = b.note
}

type bound struct {
	most, mostOf int

	mu      sync.Mutex
	open    map[string]int      // by network, and by address on it
	counted map[net.Conn]string // the address
}

// note is called by the loop that accepts connections: it must not wait for the other side.
func (b *bound) note(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		says := b.opened(conn)
		if says == "" {
			return
		}
		if secured, ok := conn.(*tls.Conn); ok {
			conn = secured.NetConn()
		} else {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write(fullAnswer(says))
		}
		_ = conn.Close()
	case http.StateClosed, http.StateHijacked:
		b.closed(conn)
	}
}

// opened counts a connection, or says why it is one too many.
func (b *bound) opened(conn net.Conn) (says string) {
	network := conn.LocalAddr().Network()
	address, _, _ := net.SplitHostPort(conn.RemoteAddr().String()) // "": a unix socket
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.open[network] >= b.most:
		return fmt.Sprintf("%d connections are open", b.most)
	case address != "" && b.open[network+" "+address] >= b.mostOf:
		return fmt.Sprintf("%d connections of %s are open", b.mostOf, address)
	}
	b.counted[conn] = address
	b.open[network]++
	b.open[network+" "+address]++
	return ""
}

func (b *bound) closed(conn net.Conn) {
	network := conn.LocalAddr().Network()
	b.mu.Lock()
	defer b.mu.Unlock()
	address, counted := b.counted[conn]
	if !counted {
		return
	}
	delete(b.counted, conn)
	b.open[network]--
	if b.open[network+" "+address]--; b.open[network+" "+address] == 0 {
		delete(b.open, network+" "+address)
	}
}

func fullAnswer(says string) []byte {
	p := api.TooMany(time.Second, "%s, which is the limit", says)
	body, _ := json.Marshal(p) // texts and a number
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nRetry-After: %s\r\nContent-Length: %d\r\n"+
		"Connection: close\r\n\r\n%s", p.Status, p.Title, p.Seconds(), len(body), body)
}
