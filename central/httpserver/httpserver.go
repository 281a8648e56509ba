// Package httpserver has what the servers of the API share, central and the control socket
// of an agent: listeners, bounds of connections and bodies, decoding and answering.
package httpserver

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"rackpower/central/api"
)

// New makes a server with bounds for slow clients and for the connections open at once,
// but none for the time that an answer takes to come: long polls are legitimate. Answer
// sets that of taking it.
func New(h http.Handler, maxConns int) *http.Server {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}
	boundConns(srv, maxConns)
	return srv
}

// Decode reads the JSON body of a request and checks what can be checked without knowing
// what it speaks of. strict refuses fields that are not known: a misspelt one must not be
// ignored.
func Decode[In any](r *http.Request, strict bool) (in In, err error) {
	dec := json.NewDecoder(r.Body)
	if strict {
		dec.DisallowUnknownFields()
	}
	if err := dec.Decode(&in); err != nil {
		var big *http.MaxBytesError
		var p *api.Problem
		switch {
		case errors.As(err, &p):
			return in, p
		case errors.As(err, &big) && !strict: // an agent halves a report that is a bad request
			return in, api.Problemf(api.CodeBadRequest, "the body is larger than %d bytes", big.Limit)
		case errors.As(err, &big):
			return in, api.Problemf(api.CodeTooLarge, "the body is larger than %d bytes", big.Limit)
		case errors.Is(err, io.EOF):
			return in, api.Problemf(api.CodeBadRequest, "the body is missing")
		}
		return in, api.Problemf(api.CodeBadRequest, "cannot read the body: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return in, api.Problemf(api.CodeBadRequest, "unexpected data after the JSON body")
	}
	return in, api.Valid(in)
}

// Answer sends out, or the problem if there is one. Its error says that the answer was not
// taken.
func Answer(w http.ResponseWriter, out any, p *api.Problem) error {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(bodyTime))
	if p != nil {
		p.Write(w)
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(out)
}

// ForgetDeadline has a request begin without the deadline that the answer to the request
// before it on the same connection may have left behind.
func ForgetDeadline(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
}
