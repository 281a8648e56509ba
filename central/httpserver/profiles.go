package httpserver

import (
	"net/http"
	"net/http/pprof"
	"strconv"

	"rackpower/central/api"
)

// Profiles is the pattern of the route that Profile serves. Its query parameters are seconds,
// debug and gc.
const Profiles = "GET /debug/pprof/{name}"

// maxProfile bounds how long a profile or a trace is recorded, in seconds.
const maxProfile = 60

// Profile answers with a profile of this process, as go tool pprof and go tool trace read it:
// profile (of the processor), trace, heap, allocs, goroutine, threadcreate. Only one
// profile of the processor and one trace are recorded at a time. Who may ask is up to the caller: a
// profile tells no password, and costs a few percent while it lasts.
func Profile(w http.ResponseWriter, r *http.Request) {
	if text := r.URL.Query().Get("seconds"); text != "" {
		if n, err := strconv.Atoi(text); err != nil || n < 1 || n > maxProfile {
			api.Problemf(api.CodeBadRequest, "seconds is %.20q: want 1 to %d", text, maxProfile).Write(w)
			return
		}
	}
	switch name := r.PathValue("name"); name {
	case "profile":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	case "heap", "allocs", "goroutine", "threadcreate":
		pprof.Handler(name).ServeHTTP(w, r)
	default:
		api.Problemf(api.CodeNotFound, "there is no profile %.40q", name).Write(w)
	}
}
