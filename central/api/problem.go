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

// The codes; Codes has what they mean.
const (
	CodeBadRequest  Code = "bad-request"
	CodeNotFound    Code = "not-found"
	CodeMethod      Code = "method-not-allowed"
	CodeExists      Code = "exists"
	CodeBusy        Code = "busy"
	CodeRefused     Code = "refused"
	CodeChanged     Code = "changed"
	CodeAwaiting    Code = "awaiting-approval"
	CodeTwoAgents   Code = "two-agents"
	CodeHello       Code = "hello"
	CodeTooLarge    Code = "too-large"
	CodeMediaType   Code = "unsupported-media-type"
	CodeKeyReused   Code = "key-reused"
	CodeQueueFull   Code = "queue-full"
	CodeTooMany     Code = "too-many-requests"
	CodeLogin       Code = "not-authenticated"
	CodeForbidden   Code = "not-permitted"
	CodeUnavailable Code = "unavailable"
	CodeInternal    Code = "internal"
)

// CodeMeaning is a code with its HTTP status and what it says.
type CodeMeaning struct {
	Code    Code
	Status  int
	Meaning string
}

// Codes are all codes.
var Codes = []CodeMeaning{
	{CodeBadRequest, http.StatusBadRequest, "the request makes no sense; nothing was done"},
	{CodeLogin, http.StatusUnauthorized, "who asks is not known, or the token or certificate does not hold"},
	{CodeForbidden, http.StatusForbidden, "who asks may not: the role is too low, or a node is beyond the scope"},
	{CodeNotFound, http.StatusNotFound, "there is no such path, node, operation or other thing that was named"},
	{CodeMethod, http.StatusMethodNotAllowed, "the path has other methods, which the header Allow names"},
	{CodeExists, http.StatusConflict, "what was to be added exists"},
	{CodeBusy, http.StatusConflict, "an operation is outstanding"},
	{CodeRefused, http.StatusConflict, "it is against what is desired, protected or known by now"},
	{CodeChanged, http.StatusConflict, "what a plan was made for is no longer so"},
	{CodeAwaiting, http.StatusConflict, "not done yet: a second person has to approve the plan whose id is in plan"},
	{CodeTwoAgents, http.StatusConflict, "another agent has the name (agents only)"},
	{CodeHello, http.StatusPreconditionFailed, "say hello first (agents only)"},
	{CodeTooLarge, http.StatusRequestEntityTooLarge, "the body is larger than the route takes"},
	{CodeMediaType, http.StatusUnsupportedMediaType, "the body is not declared as application/json"},
	{CodeKeyReused, http.StatusUnprocessableEntity, "the Idempotency-Key was used for another request; nothing was done"},
	{CodeQueueFull, http.StatusTooManyRequests, "a bound is reached, which the detail names"},
	{CodeTooMany, http.StatusTooManyRequests, "too much at once of who asks; nothing was done; Retry-After says when to ask again"},
	{CodeInternal, http.StatusInternalServerError, "a fault of central; what was done is not known; its log has the id of the detail"},
	{CodeUnavailable, http.StatusServiceUnavailable, "central stops, or its disk is full: ask again later"},
}

// IdempotencyKey is the header of a request that changes something and may be sent again: it
// does so once.
const IdempotencyKey = "Idempotency-Key"

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

var statusOf = func() map[Code]int {
	all := map[Code]int{}
	for _, c := range Codes {
		all[c.Code] = c.Status
	}
	return all
}()

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
