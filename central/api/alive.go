package api

import (
	"context"
	"fmt"
	"io"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"
	"time"
)

// ErrSilent is what errors.Is finds when somebody took the connection and then gave no
// sign of life: a process that is halted, or a socket whose service does not start. It
// is an ErrUnreachable too.
var ErrSilent = fmt.Errorf("%w: it takes connections and does not answer", ErrUnreachable)

// PreferProcessing is the header Prefer of a request that asks the server to say about
// every second that it is at work on it, with an interim answer (102).
const PreferProcessing = "processing"

// Patience is how long a client waits for a sign of life.
type Patience struct {
	Say    time.Duration // after which Silent is called, once until there is an answer
	GiveUp time.Duration // after which a request ends with ErrSilent
	// Work bounds the time that a server which is alive may take for an answer, beyond
	// the time that the request itself says it may wait.
	Work   time.Duration
	Silent func() // nil: nobody is told. Any goroutine may call it

	// TooMany is how long requests are sent again that the server refuses because there are
	// too many (CodeTooMany). Refused is called once for such a request, with the pause until
	// it is sent again; nil: nobody is told.
	TooMany time.Duration
	Refused func(p *Problem, pause time.Duration)
}

// DefaultPatience is a new client's.
func DefaultPatience() Patience {
	return Patience{Say: 3 * time.Second, GiveUp: 15 * time.Second, Work: time.Minute, TooMany: time.Minute}
}

// SetPatience replaces a client's patience, before it is used.
func (c *Client) SetPatience(p Patience) { c.patience = p }

// watch is what a client does about the silence of the other side during one request.
type watch struct {
	p      Patience
	wait   time.Duration // the request may take so long
	life   atomic.Bool   // there was a sign of it since the last look
	said   *atomic.Bool  // the client's
	cancel context.CancelCauseFunc
}

// watch has the returned context end with ErrSilent when there is no sign of life, or
// no answer long after it was due. Its user is told after the time say.
func (c *Client) watch(ctx context.Context, wait, say time.Duration) (context.Context, *watch) {
	w := &watch{p: c.patience, wait: max(wait, 0), said: &c.silent}
	w.p.Say = say
	if len(c.bases) > 1 {
		w.p.GiveUp = min(w.p.GiveUp, silentAfter)
	}
	ctx, w.cancel = context.WithCancelCause(ctx)
	trace := &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { w.life.Store(true); return nil }}
	go w.look(ctx)
	return httptrace.WithClientTrace(ctx, trace), w
}

// look counts the time of this process only: while it is halted, or the machine sleeps,
// nobody could have heard anything.
func (w *watch) look(ctx context.Context) {
	every := max(min(100*time.Millisecond, w.p.Say/10), time.Millisecond)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	silence, age, last := time.Duration(0), time.Duration(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		passed := min(now.Sub(last), 5*every)
		silence, age, last = silence+passed, age+passed, now
		late := age - w.wait
		if w.life.Swap(false) {
			silence = 0
		}
		if (silence >= w.p.Say || late >= w.p.Say) && !w.said.Swap(true) && w.p.Silent != nil {
			w.p.Silent()
		}
		if silence >= w.p.GiveUp {
			w.cancel(fmt.Errorf("%w (no sign of life for %s)", ErrSilent, w.p.GiveUp))
			return
		}
		if late >= w.p.Work {
			w.cancel(fmt.Errorf("%w (it is at work, but there is no answer after %s)", ErrSilent, w.wait+w.p.Work))
			return
		}
	}
}

func (w *watch) stop() { w.cancel(nil) }

// body is what is read of an answer: each part is a sign of life.
func (w *watch) body(r io.Reader) io.Reader { return lively{r, w} }

type lively struct {
	r io.Reader
	w *watch
}

func (l lively) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if n > 0 {
		l.w.life.Store(true)
	}
	return n, err
}
