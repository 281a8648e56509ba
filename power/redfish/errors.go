package redfish

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"rackpower/power"
)

var (
	errNoAnswer = errors.New("no answer in time")
	errTooLong  = fmt.Errorf("its answer is longer than %d bytes", maxAnswer)
	errEncoded  = errors.New("its answer is compressed, which was not asked for")
	errClosed   = errors.New("the session was closed")
	errRestarts = errors.New("the BMC was told to restart")
	errGone     = errors.New("the BMC has ended the session")
)

// ended returns why ctx has ended, nil when it has not.
func ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// failed makes the error of a request that had no answer. bounded is ctx with the time that
// the answer had; connected says that there was a connection.
func (c *client) failed(ctx, bounded context.Context, op string, left, connected bool, err error) *power.Error {
	e := &power.Error{Kind: power.KindUnreachable, Op: op, Sent: left, Lost: true, Err: err}
	var wrongKey *keyError
	var untrusted *tls.CertificateVerificationError
	switch {
	case ended(ctx) != nil:
		e.Kind, e.Lost, e.Err = power.KindCanceled, false, ended(ctx)
	case errors.As(err, &wrongKey):
		e.Kind, e.Untrusted, e.Err = power.KindAuth, true, wrongKey
	case errors.As(err, &untrusted):
		e.Kind, e.Untrusted, e.Err = power.KindAuth, true, c.untrusted(untrusted)
	case strings.Contains(err.Error(), "protocol version not supported"), strings.Contains(err.Error(), "unsupported protocol version"):
		e.Kind, e.Err = power.KindUnsupported, errors.New("it does not speak TLS 1.3; allow TLS 1.2 for this BMC alone (?tls=1.2)")
	case errors.Is(err, errTooLong), errors.Is(err, errEncoded):
		e.Kind, e.Lost = power.KindRefused, false
	case errors.Is(context.Cause(bounded), errNoAnswer):
		e.Err = errNoAnswer
	case connected:
		e.Err = brokenError{plainly(err)}
	default:
		e.Err = plainly(err)
	}
	return e
}

// plainly says what an error of the network means.
func plainly(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens on its port (%w): is Redfish switched on?", syscall.ECONNREFUSED)
	case errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Errorf("there is no way to its address (%w)", syscall.EHOSTUNREACH)
	case errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("there is no way to its address (%w)", syscall.ENETUNREACH)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("it has cut the connection")
	}
	return err
}

// statusError is an answer whose status is no success.
type statusError struct {
	status int
	says   string
	ids    []string // of its messages
}

// Error gives the status, and what the BMC says.
func (e *statusError) Error() string {
	text := fmt.Sprintf("the BMC answers %d %s", e.status, http.StatusText(e.status))
	if e.says != "" {
		text += ": " + e.says
	}
	return text
}

// has reports whether one of the messages is of that name, in whatever registry.
func (e *statusError) has(names ...string) bool {
	for _, id := range e.ids {
		for _, name := range names {
			if id == name || strings.HasSuffix(id, "."+name) {
				return true
			}
		}
	}
	return false
}

// maxSaid bounds what of a BMC's text is passed on.
const maxSaid = 200

// said reads what an answer says, in a Redfish error or in a page for people.
func said(a answer) *statusError {
	e := &statusError{status: a.status}
	var body errorBody
	if parse(a.body, &body) != nil {
		e.says = firstLine(a.body)
		return e
	}
	in := body.Error.value
	e.says = clean(string(in.Message))
	e.ids = append(e.ids, string(in.Code))
	for _, m := range append(in.Info, body.Info...) {
		if len(e.ids) == 1 && m.Message != "" {
			e.says = clean(string(m.Message))
		}
		e.ids = append(e.ids, string(m.ID))
	}
	return e
}

var (
	unseen = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?is)<(script|style)\b.*?</(script|style)>`) })
	tags   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?s)<[^>]*>`) })
)

// firstLine is the first line of text in a page.
func firstLine(body []byte) string {
	if len(body) > 64<<10 {
		body = body[:64<<10]
	}
	page := tags().ReplaceAllString(unseen().ReplaceAllString(string(body), "\n"), "\n")
	for line := range strings.Lines(page) {
		if line = clean(line); line != "" {
			return line
		}
	}
	return ""
}

// clean is text that may be shown to people.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > maxSaid {
		s = string(runes[:maxSaid]) + "..."
	}
	return s
}

// tooMany finds what BMCs say when they are out of sessions, whatever the status: iDRAC's
// RAC0218, the base registry's messages, and plain text.
var tooMany = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)RAC0218|too many (open |active |user |concurrent )*sessions|maximum (number|limit) of (\w+ ){0,3}sessions|` +
		`session limit|no (free|more|available) sessions?\b`)
})

func (e *statusError) outOfSessions() bool {
	return e.has("SessionLimitExceeded", "CreateLimitReachedForResource", "MaximumNumberOfSessions") ||
		tooMany().MatchString(e.says+" "+strings.Join(e.ids, " "))
}

// retryIn finds how long a BMC asks to be left alone.
var retryIn = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)(?:retry|try again|wait)\D{0,40}?(\d{1,4}) ?s(?:ec|econds?)?\b`)
})

// maxRetryAfter bounds what a BMC may ask for.
const maxRetryAfter = 5 * time.Minute

// retryAfter is how long the BMC asks to be left alone, 0 for not at all.
func retryAfter(a answer, e *statusError) time.Duration {
	wait := a.header.Get("Retry-After")
	if at, err := http.ParseTime(wait); err == nil {
		from := time.Now()
		if date, err := http.ParseTime(a.header.Get("Date")); err == nil {
			from = date // by its own clock
		}
		return min(max(at.Sub(from), 0), maxRetryAfter)
	}
	if wait == "" {
		if m := retryIn().FindStringSubmatch(e.says); m != nil {
			wait = m[1]
		}
	}
	n, err := strconv.Atoi(strings.TrimSpace(wait))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, 1<<20))*time.Second, maxRetryAfter)
}

// refused sorts an answer that is no success. worked says that the session has served
// before; acts, that the request was a command. Sent is true unless the answer says that
// nothing was done.
func refused(op string, a answer, worked, acts bool) *power.Error {
	said := said(a)
	e := &power.Error{Kind: power.KindRefused, Op: op, Sent: acts, Err: said}
	switch {
	case said.outOfSessions():
		e.Kind, e.Sent, e.After = power.KindBusy, false, retryAfter(a, said)
	case said.has("PasswordChangeRequired"):
		e.Kind, e.Sent = power.KindAuth, false
	case a.status == http.StatusUnauthorized && worked:
		e.Kind, e.Sent, e.Lost, e.Err = power.KindUnreachable, false, true, errGone
	case a.status == http.StatusUnauthorized:
		e.Kind, e.Sent, e.Refused = power.KindAuth, false, true
	case a.status == http.StatusForbidden:
		e.Kind = power.KindPrivilege
	case said.has("ActionNotSupported", "ActionParameterNotSupported", "ActionParameterUnknown", "ActionParameterValueNotInList",
		"ActionParameterValueFormatError", "ActionParameterValueTypeError", "PropertyValueNotInList", "ActionParameterValueError"):
		e.Kind = power.KindUnsupported
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed, a.status == http.StatusGone,
		a.status == http.StatusNotImplemented:
		e.Kind = power.KindUnsupported
	case a.status == http.StatusTooManyRequests, a.status == http.StatusServiceUnavailable && (len(said.ids) > 0 || retryAfter(a, said) > 0):
		e.Kind, e.Sent, e.After = power.KindBusy, false, retryAfter(a, said)
	case a.status == http.StatusServiceUnavailable, a.status == http.StatusBadGateway, a.status == http.StatusGatewayTimeout:
		// A proxy within the BMC answers for a service that may have done it.
		e.Kind, e.After = power.KindBusy, retryAfter(a, said)
		if acts {
			e.Kind = power.KindUncertain
		}
	case a.status == http.StatusRequestTimeout, a.status == http.StatusConflict:
		e.Kind = power.KindBusy
	}
	if acts && e.Kind == power.KindBusy && !said.outOfSessions() {
		e.After = max(e.After, notNow)
	}
	return e
}

// notNow is for how long a BMC is left alone that does not take a command and does not say
// until when.
const notNow = time.Second
