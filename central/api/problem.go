package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Code is what programs act on in a Problem.
type Code string

// The codes, each with its HTTP status.
const (
	CodeBadRequest  Code = "bad-request"       // 400: the request makes no sense
	CodeNotFound    Code = "not-found"         // 404: no such node, operation or agent
	CodeExists      Code = "exists"            // 409
	CodeBusy        Code = "busy"              // 409: something is outstanding
	CodeRefused     Code = "refused"           // 409: stale, against the desired state, not permitted
	CodeQueueFull   Code = "queue-full"        // 429: a bound is reached, which the detail names
	CodeChanged     Code = "changed"           // 409: what a plan was made for is no longer so
	CodeTooMany     Code = "too-many-requests" // 429: nothing was done; the header Retry-After says when to ask again
	CodeAwaiting    Code = "awaiting-approval" // 409: not done yet: a second person has to approve Problem.Plan
	CodeHello       Code = "hello"             // 412: say hello first (agents)
	CodeTwoAgents   Code = "two-agents"        // 409: another agent has the name
	CodeLogin       Code = "not-authenticated" // 401: nobody is known to ask
	CodeForbidden   Code = "not-permitted"     // 403: who asks may not
	CodeUnavailable Code = "unavailable"       // 503: stopping, disk full
	CodeInternal    Code = "internal"          // 500
)

// Problem is an error as it travels (RFC 9457, application/problem+json).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   Code   `json:"code"`
	// RetryAfter is when to ask again, in the header Retry-After; 0: nothing is known of that.
	RetryAfter time.Duration `json:"-"`
	Plan       string        `json:"plan,omitempty"` // the id of what awaits an approval
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

var statusOf = map[Code]int{
	CodeBadRequest: http.StatusBadRequest, CodeNotFound: http.StatusNotFound, CodeExists: http.StatusConflict,
	CodeChanged: http.StatusConflict, CodeAwaiting: http.StatusConflict, CodeBusy: http.StatusConflict, CodeRefused: http.StatusConflict,
	CodeHello: http.StatusPreconditionFailed,
	CodeLogin: http.StatusUnauthorized, CodeForbidden: http.StatusForbidden,
	CodeTwoAgents: http.StatusConflict, CodeQueueFull: http.StatusTooManyRequests, CodeTooMany: http.StatusTooManyRequests,
	CodeUnavailable: http.StatusServiceUnavailable, CodeInternal: http.StatusInternalServerError,
}

// Problemf makes a problem of the given code.
func Problemf(code Code, format string, args ...any) *Problem {
	status := statusOf[code]
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), Code: code}
}

// TooMany makes a problem of CodeTooMany: who asks has too much of something now, and may
// ask again after a while.
func TooMany(after time.Duration, format string, args ...any) *Problem {
	p := Problemf(CodeTooMany, format+": ask again later", args...)
	p.RetryAfter = max(after, time.Second)
	return p
}

// Seconds is RetryAfter as the header has it, "" for none.
func (p *Problem) Seconds() string {
	if p.RetryAfter <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((p.RetryAfter+time.Second-1)/time.Second), 10)
}

// Write sends the problem as the answer to a request.
func (p *Problem) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	if after := p.Seconds(); after != "" {
		w.Header().Set("Retry-After", after)
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}
