package central

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
)

// withKey sends a body with an Idempotency-Key.
func (s *site) withKey(key, path, body string) (*http.Response, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://unix"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(api.IdempotencyKey, key)
	client := s.raw()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(data)
}

func codeIn(body string) api.Code {
	var p api.Problem
	_ = json.Unmarshal([]byte(body), &p)
	return p.Code
}

// TestARequestWithAKeyIsCarriedOutOnce: again it has the same answer, after a start of central
// too, and another request with the key is refused.
func TestARequestWithAKeyIsCarriedOutOnce(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2")
	const body = `{"names": ["n1"], "status": "READY"}`
	first, answer := s.withKey("a", "/v1/nodes/status", body)
	if first.StatusCode != http.StatusOK || first.Header.Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %s", first.StatusCode, answer)
	}
	s.status("BROKEN", "n1") // what was asked before must not undo it
	again := func(what string) {
		t.Helper()
		resp, same := s.withKey("a", "/v1/nodes/status", body)
		if resp.StatusCode != http.StatusOK || same != answer || resp.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: %d %s, first %s", what, resp.StatusCode, same, answer)
		}
		if got := s.node("n1").Status; got != "BROKEN" {
			t.Errorf("%s: the status is %s", what, got)
		}
	}
	again("again")
	s.restart()
	again("after a start")
	for path, body := range map[string]string{
		"/v1/nodes/status":  `{"names": ["n2"], "status": "READY"}`,
		"/v1/nodes/protect": body,
	} {
		if resp, text := s.withKey("a", path, body); resp.StatusCode != http.StatusUnprocessableEntity || codeIn(text) != api.CodeKeyReused {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	s.later(keysKept)
	if resp, text := s.withKey("a", "/v1/nodes/status", `{"names": ["n2"], "status": "READY"}`); resp.StatusCode != http.StatusOK {
		t.Errorf("a day later: %d %s", resp.StatusCode, text)
	}
	if _, text := s.withKey(strings.Repeat("k", 256), "/v1/nodes/status", body); codeIn(text) != api.CodeBadRequest {
		t.Errorf("a long key: %s", text)
	}
}

// TestWhatWasNotDoneIsNotKept: a request that failed is carried out when it comes again.
func TestWhatWasNotDoneIsNotKept(t *testing.T) {
	s := newSite(t)
	const body = `{"names": ["n1"], "status": "READY"}`
	if _, text := s.withKey("a", "/v1/nodes/status", body); codeIn(text) != api.CodeNotFound {
		t.Fatal(text)
	}
	s.nodes("n1")
	if resp, text := s.withKey("a", "/v1/nodes/status", body); resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	if resp, text := s.withKey("b", "/v1/nodes/status", `{"nams": []}`); codeIn(text) != api.CodeBadRequest {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

// TestTwinsAreCarriedOutOnce: of many at the same time one does it; the others have its answer, or
// are told that it is at work.
func TestTwinsAreCarriedOutOnce(t *testing.T) {
	s := newSite(t)
	for round := range 20 {
		body := fmt.Sprintf(`{"nodes": [{"name": "n%d", "rack": "r1"}]}`, round)
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				resp, text := s.withKey(fmt.Sprint("key", round), "/v1/nodes", body)
				if added := strings.Contains(text, `"added":1`); (resp.StatusCode != http.StatusOK || !added) && codeIn(text) != api.CodeBusy {
					t.Errorf("%d %s", resp.StatusCode, text)
				}
			})
		}
		all.Wait()
	}
	entries, err := s.Audit(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	added := 0
	for _, e := range entries {
		if e.What == "node-add" {
			added++
		}
	}
	if added != 20 {
		t.Errorf("%d nodes were added", added)
	}
}

// TestAKeyIsNotedWithWhatIsDone: a request whose answer was not kept, since central ended right
// then, is not carried out again; and no secret is kept.
func TestAKeyIsNotedWithWhatIsDone(t *testing.T) {
	s := newSite(t)
	s.nodes("n1")
	k := &store.Keyed{Who: "x", Key: "a", Request: "first", At: s.clock()}
	write := func(k *store.Keyed, job func(*store.Tx) error) error {
		return s.c.store.Write(store.WithKey(t.Context(), k), job)
	}
	nothing := func(*store.Tx) error { return nil }
	undone := errors.New("undone")
	if err := write(k, func(*store.Tx) error { return undone }); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	other := &store.Keyed{Who: "x", Key: "a", Request: "second", At: s.clock()}
	if err := errors.Join(write(other, nothing), write(other, nothing)); err != nil {
		t.Errorf("the job that was undone used the key: %v", err)
	}
	if err := write(k, func(*store.Tx) error { t.Error("it runs"); return nil }); !errors.Is(err, store.ErrKeyUsed) {
		t.Error(err)
	}
	_, text := s.withKey("u", "/v1/users", `{"name": "vera", "role": "viewer"}`)
	var made api.NewToken
	if err := json.Unmarshal([]byte(text), &made); err != nil || made.Token == "" {
		t.Fatal(err, text)
	}
	if _, text := s.withKey("u", "/v1/users", `{"name": "vera", "role": "viewer"}`); codeIn(text) != api.CodeExists ||
		!strings.Contains(text, "not kept") {
		t.Error(text)
	}
	s.later(time.Second)
	err := s.c.store.View(t.Context(), func(tx *store.Tx) error {
		p, _, err := tx.Keyed("user "+s.whoAmI(), "u")
		if p.Status != http.StatusOK || p.Answer != nil {
			t.Errorf("kept: %+v", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) whoAmI() string {
	me, err := s.WhoAmI(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return me.Name
}
