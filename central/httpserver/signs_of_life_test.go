package httpserver

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rackpower/central/api"
)

func serve(t *testing.T, handler http.Handler) *api.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := ListenSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(handler)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	c, err := api.NewClient("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestASlowAnswerIsAwaited: a server that is alive says so for as long as it waits, and
// its answer is what it would have been.
func TestASlowAnswerIsAwaited(t *testing.T) {
	c := serve(t, SignsOfLife(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		select {
		case <-time.After(2*beatEvery + beatEvery/2):
			api.Problemf(api.CodeBusy, "slow").Write(w)
		case <-r.Context().Done():
		}
	})))
	c.SetPatience(api.Patience{
		Say: beatEvery * 3 / 2, GiveUp: beatEvery * 2, Work: time.Minute, Silent: func() { t.Error("silence was told") },
	})
	if _, err := c.QueryOps(t.Context(), api.QueryOps{Wait: time.Hour}); api.CodeOf(err) != api.CodeBusy {
		t.Errorf("%v", err)
	}
}

// TestAServerAtWorkIsNotAwaitedForEver: signs of life alone are no answer.
func TestAServerAtWorkIsNotAwaitedForEver(t *testing.T) {
	c := serve(t, SignsOfLife(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })))
	said := atomic.Int32{}
	c.SetPatience(api.Patience{Say: beatEvery / 2, GiveUp: 3 * beatEvery, Work: 2*beatEvery + beatEvery/2, Silent: func() { said.Add(1) }})
	if _, err := c.Info(t.Context()); !errors.Is(err, api.ErrSilent) || !strings.Contains(err.Error(), "at work") || said.Load() != 1 {
		t.Errorf("%v, said %d times", err, said.Load())
	}
}
