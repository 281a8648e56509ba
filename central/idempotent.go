package central

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"reflect"
	"time"

	"rackpower/central/api"
	"rackpower/central/httpserver"
	"rackpower/central/store"
)

const (
	keysKept      = 24 * time.Hour
	maxKeptAnswer = 1 << 20
	maxKeyLength  = 255
)

// shownOnce are answers with secrets, which are not kept.
var shownOnce = map[reflect.Type]bool{
	reflect.TypeFor[api.NewToken](): true, reflect.TypeFor[api.AgentToken](): true, reflect.TypeFor[api.UserCertificate](): true,
}

// once serves a request that changes something and carries an Idempotency-Key: the same
// request again has the same answer and does nothing. The key is noted in the transaction of what
// is done, so that it is done once even if central ends right after that; the answer is kept
// in one behind it.
func (c *Central) once(e endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get(api.IdempotencyKey)
		if key == "" {
			e.handler(w, r)
			return
		}
		if err := c.keyed(e, key, w, r); err != nil {
			c.answer(w, nil, err)
		}
	}
}

func (c *Central) keyed(e endpoint, key string, w http.ResponseWriter, r *http.Request) error {
	if len(key) > maxKeyLength {
		return api.Problemf(api.CodeBadRequest, "%s: %d bytes, at most %d", api.IdempotencyKey, len(key), maxKeyLength)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
	if err != nil {
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err})) // the handler says what is wrong
		e.handler(w, r)
		return nil
	}
	p := httpserver.Principal(r)
	sum := sha256.New()
	for _, part := range []string{r.Method, "\n", r.URL.RequestURI(), "\n", string(body)} {
		_, _ = io.WriteString(sum, part)
	}
	k := store.Keyed{
		Who: string(p.Kind) + " " + p.Name, Key: key, Sum: hex.EncodeToString(sum.Sum(nil)), Request: rand.Text(), At: c.cfg.Now(),
	}
	before, found, err := c.keyUsed(r.Context(), k)
	if err != nil {
		return err
	}
	if found {
		return replay(w, k, before)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := &kept{header: http.Header{}, status: http.StatusOK}
	e.handler(answer, r.WithContext(store.WithKey(r.Context(), &k)))
	if before, found, err = c.keyUsed(r.Context(), k); err != nil || found && before.Request != k.Request {
		if err != nil {
			return err
		}
		return replay(w, k, before) // it was done at the same time
	}
	if found {
		k.Status, k.Answer = answer.status, answer.body.Bytes()
		switch {
		case answer.status >= 300 && !bytes.Contains(k.Answer, []byte(`"code":"`+string(api.CodeAwaiting)+`"`)):
			k.Status = 0
		case shownOnce[e.out] || len(k.Answer) > maxKeptAnswer:
			k.Answer = nil
		}
		err := c.store.Write(context.WithoutCancel(store.WithKey(r.Context(), nil)), func(tx *store.Tx) error { return tx.Answered(k) })
		if err != nil {
			c.log.Error("cannot keep an answer", "err", err)
		}
	}
	for name, values := range answer.header {
		w.Header()[name] = values
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(watchWrite))
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body.Bytes()) // whether it is taken is no matter any more
	return nil
}

func (c *Central) keyUsed(ctx context.Context, k store.Keyed) (before store.Keyed, found bool, err error) {
	err = c.store.View(ctx, func(tx *store.Tx) error {
		before, found, err = tx.Keyed(k.Who, k.Key)
		return err
	})
	if found && !k.At.Before(before.At.Add(keysKept)) && before.Request != k.Request {
		// It is old. Forget it now: the loop that does comes seldom.
		err = c.store.Write(ctx, func(tx *store.Tx) error { return tx.PruneKeys(before.At) })
		found = false
	}
	return before, found, err
}

// replay answers a request whose key another one has used.
func replay(w http.ResponseWriter, k, before store.Keyed) error {
	switch {
	case before.Sum != k.Sum:
		return api.Problemf(api.CodeKeyReused, "the key was used for another request")
	case before.Status == 0:
		return api.Problemf(api.CodeBusy, "a request with this key is at work, or its answer was lost when central ended: what it does is done "+
			"once")
	case before.Answer == nil:
		return api.Problemf(api.CodeExists, "the request with this key was carried out; its answer is not kept")
	}
	w.Header().Set("Content-Type", "application/json")
	if before.Status >= 300 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.Header().Set("Idempotency-Replayed", "true")
	w.WriteHeader(before.Status)
	_, err := w.Write(before.Answer)
	return err
}

// kept is an answer in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }

// failing is a reader that fails.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// keyProblem is an error of the store about a key as who asked is told it.
func keyProblem(err error) *api.Problem {
	switch {
	case errors.Is(err, store.ErrKeyUsed):
		return api.Problemf(api.CodeBusy, "a request with this key is at work")
	case errors.Is(err, store.ErrKeysFull):
		return api.Problemf(api.CodeQueueFull, "%v", err)
	}
	return nil
}
