package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Keyed is a request with an Idempotency-Key. It travels in the context: what a job of the
// request does is committed together with a note that the key was used.
type Keyed struct {
	Who, Key string
	Sum      string // of what is asked for
	Request  string // tells it from others with the key
	At       time.Time
	// Status and Answer are what was answered; 0: nothing yet.
	Status int
	Answer []byte
}

// ErrKeyUsed is returned by Write where another request with the key has done something.
var ErrKeyUsed = errors.New("the key was used by another request")

// MaxKeys bounds the keys that are kept of one principal.
const MaxKeys = 10_000

// ErrKeysFull is returned by Write where a principal has MaxKeys.
var ErrKeysFull = fmt.Errorf("%d idempotency keys are kept, which is the limit", MaxKeys)

const (
	sqlKeyed    = `SELECT sum, request, at, status, answer FROM idempotent WHERE who = $1 AND key = $2`
	sqlKeys     = `SELECT count(*) FROM idempotent WHERE who = $1`
	sqlAddKeyed = `INSERT INTO idempotent (who, key, sum, request, at) VALUES ($1, $2, $3, $4, $5)`
	sqlAnswered = `UPDATE idempotent SET status = $1, answer = $2 WHERE who = $3 AND key = $4 AND request = $5`
	sqlUnkeyed  = `DELETE FROM idempotent WHERE who = $1 AND key = $2 AND request = $3`
	sqlOldKeys  = `DELETE FROM idempotent WHERE at <= $1`
)

type keyedKey struct{}

// WithKey has the jobs of a context be those of a request with a key; nil: of none.
func WithKey(ctx context.Context, k *Keyed) context.Context {
	return context.WithValue(ctx, keyedKey{}, k)
}

func keyOf(ctx context.Context) *Keyed {
	k, _ := ctx.Value(keyedKey{}).(*Keyed)
	return k
}

// claim notes that a request with the key does something.
func (t *Tx) claim(k *Keyed) error {
	before, found, err := t.Keyed(k.Who, k.Key)
	switch {
	case err != nil:
		return err
	case found && before.Request != k.Request:
		return ErrKeyUsed
	case found:
		return nil
	}
	n, err := t.count(sqlKeys, k.Who)
	if err != nil {
		return err
	}
	if n >= MaxKeys {
		return ErrKeysFull
	}
	if _, err := t.exec(sqlAddKeyed, k.Who, k.Key, k.Sum, k.Request, nanos(k.At)); err != nil {
		return fmt.Errorf("cannot note the key of a request: %w", err)
	}
	return nil
}

// Keyed finds the request that used a key.
func (t *Tx) Keyed(who, key string) (k Keyed, found bool, err error) {
	k = Keyed{Who: who, Key: key}
	var at int64
	err = t.row(sqlKeyed, who, key).Scan(&k.Sum, &k.Request, &at, &k.Status, &k.Answer)
	if errors.Is(err, sql.ErrNoRows) {
		return k, false, nil
	}
	if err != nil {
		return k, false, fmt.Errorf("cannot read keys of requests: %w", disk(err))
	}
	k.At = timeAt(at)
	return k, true, nil
}

// Answered keeps the answer to a request with a key; without a status the key is free again:
// nothing was done.
func (t *Tx) Answered(k Keyed) (err error) {
	if k.Status == 0 {
		_, err = t.exec(sqlUnkeyed, k.Who, k.Key, k.Request)
	} else {
		_, err = t.exec(sqlAnswered, k.Status, k.Answer, k.Who, k.Key, k.Request)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the answer to a request: %w", err)
	}
	return nil
}

// PruneKeys forgets the keys that were used by a time.
func (t *Tx) PruneKeys(by time.Time) error {
	if _, err := t.exec(sqlOldKeys, nanos(by)); err != nil {
		return fmt.Errorf("cannot delete keys of requests: %w", err)
	}
	return nil
}
