package api

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// impatient waits for a thousandth of what clients wait for.
func impatient(c *Client) *atomic.Int32 {
	said := new(atomic.Int32)
	c.SetPatience(Patience{Say: 30 * time.Millisecond, GiveUp: 300 * time.Millisecond, Work: 10 * time.Second, Silent: func() { said.Add(1) }})
	return said
}

// TestSilenceEndsARequest: before the answer, within it, while the request is being
// sent, and however long it might have waited.
func TestSilenceEndsARequest(t *testing.T) {
	over := make(chan struct{})
	for what, handler := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() },
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"ops":[`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"the request is not read": func(http.ResponseWriter, *http.Request) { <-over },
	} {
		c := serve(t, handler)
		said := impatient(c)
		_, err := c.QueryOps(t.Context(), QueryOps{Wait: time.Hour, IDs: []string{strings.Repeat("x", 1<<20)}})
		if !errors.Is(err, ErrSilent) || !errors.Is(err, ErrUnreachable) || said.Load() != 1 {
			t.Errorf("%s: %v, said %d times", what, err, said.Load())
		}
	}
	close(over)
}
