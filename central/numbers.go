package central

import (
	"cmp"
	"net/http"
	"strconv"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/internal/metrics"
	"rackpower/power"
)

// numbers are those of the metrics that nothing else keeps. They begin with the process.
type numbers struct {
	asked, ended    metrics.Counts
	accepted, lasts *metrics.Histogram
	commits, jobs   *metrics.Histogram
	failures        metrics.Counts
	requests        metrics.Counts
}

func newNumbers() *numbers {
	return &numbers{
		accepted: metrics.NewHistogram(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300),
		lasts:    metrics.NewHistogram(.1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800),
		commits:  metrics.NewHistogram(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5),
		jobs:     metrics.NewHistogram(1, 2, 4, 8, 16, 32, 64, 128, 256),
	}
}

// opEvent counts what happened to an operation.
func (n *numbers) opEvent(o *store.Op, e api.AuditEntry) {
	action := string(o.Action)
	at := cmp.Or(e.HappenedAt, e.At)
	switch e.What {
	case auditAsked:
		n.asked.Add(1, action)
	case auditAccepted:
		n.accepted.Time(max(at.Sub(o.AskedAt), 0))
	case auditRefused:
		n.ended.Add(1, action, string(power.Refused))
	case auditEnded:
		n.ended.Add(1, action, string(o.Outcome))
		if o.Outcome == power.Succeeded && !o.Already {
			n.lasts.Time(max(at.Sub(o.AskedAt), 0), action)
		}
	}
}

func (n *numbers) committed(took time.Duration, jobs int, err error) {
	if err != nil {
		n.failures.Add(1)
		return
	}
	n.commits.Time(took)
	n.jobs.Observe(float64(jobs))
}

// serve has a request answered, and counts it by its route.
func (n *numbers) serve(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	answer := &counted{ResponseWriter: w, status: http.StatusOK}
	defer func() { n.requests.Add(1, cmp.Or(r.Pattern, "none"), strconv.Itoa(answer.status)) }()
	mux.ServeHTTP(answer, r)
}

// counted is an answer whose status is noted.
type counted struct {
	http.ResponseWriter
	status int
}

// WriteHeader is http.ResponseWriter's.
func (c *counted) WriteHeader(status int) {
	if status >= http.StatusOK { // interim answers come before
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (n *numbers) collect(s metrics.Sink) {
	n.asked.Collect(s, opsAsked)
	n.ended.Collect(s, opsEnded)
	n.accepted.Collect(s, opAccepted)
	n.lasts.Collect(s, opTook)
	n.commits.Collect(s, commitTook)
	n.jobs.Collect(s, commitJobs)
	n.failures.Collect(s, commitFailed)
	n.requests.Collect(s, httpRequests)
}
