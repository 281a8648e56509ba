package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// inside is the transport of a client that asks handlers of this very process, with the token
// of a person and from the address of that person's browser.
type inside struct {
	api     http.Handler
	token   string
	address string
}

// bare is a context that ends with another and has nothing of its values: who is at the other
// end of the browser's connection must not count for the API, only the token.
type bare struct{ context.Context }

// Value is context.Context's.
func (bare) Value(any) any { return nil }

// RoundTrip is http.RoundTripper's. It returns when the answer has begun; closing the body of
// that waits for the handler to end.
func (t inside) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(bare{r.Context()})
	asked := r.Clone(ctx)
	asked.RequestURI, asked.RemoteAddr = r.URL.RequestURI(), t.address
	if t.token != "" {
		asked.Header.Set("Authorization", "Bearer "+t.token)
	}
	if asked.Body == nil {
		asked.Body = http.NoBody
	}
	from, to := io.Pipe()
	w := &answer{to: to, header: http.Header{}, begun: make(chan int, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if why := recover(); why != nil { // the server of the page would have caught it, too
				w.WriteHeader(http.StatusInternalServerError)
				_ = to.CloseWithError(errPanic)
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = to.Close()
		}()
		t.api.ServeHTTP(w, asked)
	}()
	body := &answered{PipeReader: from, stop: func() { cancel(); <-ended }}
	select {
	case status := <-w.begun:
		return &http.Response{
			StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: w.sent, Body: body, ContentLength: -1, Request: r,
		}, nil
	case <-r.Context().Done():
		_ = body.Close()
		return nil, context.Cause(r.Context())
	}
}

var errPanic = errors.New("the request failed inside of central")

// answered is the body of an answer.
type answered struct {
	*io.PipeReader
	stop func()
}

// Close is io.Closer's.
func (b *answered) Close() error {
	err := b.PipeReader.Close()
	b.stop()
	return err
}

// answer is the http.ResponseWriter of a handler inside.
type answer struct {
	to     *io.PipeWriter
	header http.Header
	once   sync.Once
	sent   http.Header
	begun  chan int
}

// Header is http.ResponseWriter's.
func (w *answer) Header() http.Header { return w.header }

// WriteHeader is http.ResponseWriter's. Signs of life are not asked for here.
func (w *answer) WriteHeader(status int) {
	if status < http.StatusOK {
		return
	}
	w.once.Do(func() {
		w.sent = w.header.Clone()
		w.begun <- status
	})
}

// Write is http.ResponseWriter's.
func (w *answer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.to.Write(p)
}

// Flush is http.Flusher's: a pipe holds nothing back.
func (w *answer) Flush() { w.WriteHeader(http.StatusOK) }

// SetReadDeadline and SetWriteDeadline are for http.ResponseController. What holds the page's
// connection to deadlines is its own server.
func (w *answer) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is as SetReadDeadline.
func (w *answer) SetWriteDeadline(time.Time) error { return nil }
