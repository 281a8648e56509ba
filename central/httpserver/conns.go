package httpserver

import (
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
// to be taken.
const bodyTime = 30 * time.Second

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
// network, so that those on TCP take no place from the socket. They are answered with a
// Problem (CodeQueueFull) and closed. It takes the server's ConnState.
func boundConns(srv *http.Server, most int) {
	var mu sync.Mutex
	open := map[string]int{}
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		by := 0
		switch state {
		case http.StateNew:
			by = 1
		case http.StateClosed, http.StateHijacked:
			by = -1
		}
		network := conn.LocalAddr().Network()
		mu.Lock()
		open[network] += by
		full := open[network] > most
		mu.Unlock()
		if state == http.StateNew && full {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = conn.Write(fullAnswer(most))
			_ = conn.Close()
		}
	}
}

func fullAnswer(most int) []byte {
	p := api.Problemf(api.CodeQueueFull, "%d connections are open, which is the limit: ask again later", most)
	body, _ := json.Marshal(p) // texts and a number
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		p.Status, p.Title, len(body), body)
}
