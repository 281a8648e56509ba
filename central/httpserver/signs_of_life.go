package httpserver

import (
	"maps"
	"net/http"
	"sync"
	"time"

	"rackpower/central/api"
)

// beatEvery is how often a client is told that its request is worked on.
const beatEvery = time.Second

// SignsOfLife has a handler say that it is at work, to the clients that ask for it,
// until its answer begins.
func SignsOfLife(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Prefer") != api.PreferProcessing {
			h.ServeHTTP(w, r)
			return
		}
		b := &beating{to: w, header: w.Header().Clone()}
		b.mu.Lock()
		b.timer = time.AfterFunc(beatEvery, b.beat)
		b.mu.Unlock()
		defer b.begin()
		h.ServeHTTP(b, r)
	})
}

// beating is the writer of an answer that has not begun. The headers of the answer are
// kept apart until then: an interim answer would send them.
type beating struct {
	to     http.ResponseWriter
	header http.Header

	mu    sync.Mutex
	begun bool
	timer *time.Timer
}

func (b *beating) beat() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.begun {
		b.to.WriteHeader(http.StatusProcessing)
		b.timer.Reset(beatEvery)
	}
}

// begin ends the beats: the answer follows.
func (b *beating) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.begun {
		b.begun = true
		b.timer.Stop()
		clear(b.to.Header())
		maps.Copy(b.to.Header(), b.header)
	}
}

// Header is http.ResponseWriter's.
func (b *beating) Header() http.Header { return b.header }

// WriteHeader is http.ResponseWriter's.
func (b *beating) WriteHeader(status int) { b.begin(); b.to.WriteHeader(status) }

// Write is http.ResponseWriter's.
func (b *beating) Write(p []byte) (int, error) { b.begin(); return b.to.Write(p) }

// Unwrap is for http.ResponseController.
func (b *beating) Unwrap() http.ResponseWriter { return b.to }
