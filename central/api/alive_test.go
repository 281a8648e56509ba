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

// TestASlowAnswerIsAwaited: a server that is alive says so for as long as it waits, and
// its answer is what it would have been.
func TestASlowAnswerIsAwaited(t *testing.T) {
	c := serve(t, SignsOfLife(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		select {
		case <-time.After(2*beatEvery + beatEvery/2):
			Problemf(CodeBusy, "slow").Write(w)
		case <-r.Context().Done():
		}
	})).ServeHTTP)
	c.SetPatience(Patience{Say: beatEvery * 3 / 2, GiveUp: beatEvery * 2, Work: time.Minute, Silent: func() { t.Error("silence was told") }})
	if _, err := c.QueryOps(t.Context(), QueryOps{Wait: time.Hour}); CodeOf(err) != CodeBusy {
		t.Errorf("%v", err)
	}
}

// TestAServerAtWorkIsNotAwaitedForEver: signs of life alone are no answer.
func TestAServerAtWorkIsNotAwaitedForEver(t *testing.T) {
	c := serve(t, SignsOfLife(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })).ServeHTTP)
	said := atomic.Int32{}
	c.SetPatience(Patience{Say: beatEvery / 2, GiveUp: 3 * beatEvery, Work: 2*beatEvery + beatEvery/2, Silent: func() { said.Add(1) }})
	if _, err := c.Info(t.Context()); !errors.Is(err, ErrSilent) || !strings.Contains(err.Error(), "at work") || said.Load() != 1 {
		t.Errorf("%v, said %d times", err, said.Load())
	}
}
