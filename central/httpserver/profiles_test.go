package httpserver

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestProfiles asks for each kind, and for what there is not.
func TestProfiles(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc(Profiles, Profile)
	zipped := []byte{0x1f, 0x8b}
	for target, want := range map[string]struct {
		status int
		begins []byte
	}{
		"profile?seconds=1":  {http.StatusOK, zipped},
		"trace?seconds=1":    {http.StatusOK, []byte("go 1.")},
		"heap?gc=1":          {http.StatusOK, zipped},
		"allocs":             {http.StatusOK, zipped},
		"goroutine?debug=2":  {http.StatusOK, []byte("goroutine ")},
		"threadcreate":       {http.StatusOK, zipped},
		"profile?seconds=61": {http.StatusBadRequest, nil},
		"trace?seconds=-1":   {http.StatusBadRequest, nil},
		"trace?seconds=0.5":  {http.StatusBadRequest, nil},
		"cmdline":            {http.StatusNotFound, nil}, // has paths of files
		"symbol":             {http.StatusNotFound, nil},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/"+target, nil))
		if w.Code != want.status || !bytes.HasPrefix(w.Body.Bytes(), want.begins) {
			t.Errorf("%s: %d %.40q", target, w.Code, w.Body)
		}
	}
}
