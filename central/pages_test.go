package central

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"rackpower/central/api"
	"rackpower/central/store"
)

var nextLink = regexp.MustCompile(`^<(.*)>; rel="next"$`)

// pagesOf follows the header Link from a path on, and calls between before each further page.
func pagesOf[T any](t *testing.T, s *site, path string, between func()) (pages [][]T) {
	t.Helper()
	client := s.raw()
	defer client.CloseIdleConnections()
	for path != "" {
		resp, body := rawly(t, client, "GET", "http://unix"+path, "", "")
		var page []T
		if err := json.Unmarshal(body, &page); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", path, resp.StatusCode, body)
		}
		pages = append(pages, page)
		path = ""
		if m := nextLink.FindStringSubmatch(resp.Header.Get("Link")); m != nil {
			path = m[1]
			between()
		}
	}
	return pages
}

// TestPagesHaveAllThatStays: nodes come and go between the pages; each that is there all the
// time comes once, in order, and no page is longer than asked for.
func TestPagesHaveAllThatStays(t *testing.T) {
	s := newSite(t)
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	var stay, come []string
	for i := range 60 {
		if name := fmt.Sprint("n", i); i%3 == 0 {
			come = append(come, name)
		} else {
			stay = append(stay, name)
		}
	}
	s.nodes(stay...)
	there := map[string]bool{}
	between := func() {
		name := come[rnd.IntN(len(come))]
		if there[name] {
			if _, err := s.RemoveNodes(t.Context(), api.RemoveNodes{Names: []string{name}}); err != nil {
				t.Fatal(err)
			}
		} else {
			s.nodes(name)
		}
		there[name] = !there[name]
	}
	for limit := 1; limit < 50; limit += 1 + rnd.IntN(9) {
		var got []string
		for _, page := range pagesOf[api.Node](t, s, fmt.Sprint("/v1/nodes?select=all&limit=", limit), between) {
			if len(page) > limit || len(page) == 0 {
				t.Errorf("limit %d: a page of %d", limit, len(page))
			}
			for _, n := range page {
				got = append(got, n.Name)
			}
		}
		at := 0
		seen := map[string]bool{}
		for _, name := range got {
			if seen[name] {
				t.Errorf("limit %d: %s comes twice", limit, name)
			}
			seen[name] = true
			if at < len(stay) && name == stay[at] {
				at++
			}
		}
		if at != len(stay) {
			t.Errorf("limit %d: %s is missing or in another place: %v", limit, stay[at], got)
		}
	}
	for _, query := range []string{"limit=0", "limit=x", "limit=100000", "page=!"} {
		if _, body := rawly(t, s.raw(), "GET", "http://unix/v1/nodes?"+query, "", ""); codeIn(string(body)) != api.CodeBadRequest {
			t.Errorf("%s: %s", query, body)
		}
	}
}

// TestTheAuditLogComesInPages: no answer is longer than a page, whatever is asked for, and the
// client gets all the same; entries that are written meanwhile move nothing.
func TestTheAuditLogComesInPages(t *testing.T) {
	s := newSite(t)
	const entries = 2*api.MaxAuditPage + 100
	more := func(n int) {
		err := s.c.store.Write(t.Context(), func(tx *store.Tx) error {
			for i := range n {
				if err := tx.AddAudit(api.AuditEntry{At: s.clock(), Who: "x", What: "test", Detail: fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	more(entries)
	all, err := s.Audit(t.Context(), "", 100_000)
	if err != nil || len(all) != entries {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	for i, e := range all {
		if e.ID != all[0].ID+int64(i) {
			t.Fatalf("entry %d has the id %d", i, e.ID)
		}
	}
	if some, err := s.Audit(t.Context(), "", api.MaxAuditPage+7); err != nil || len(some) != api.MaxAuditPage+7 ||
		some[0] != all[entries-api.MaxAuditPage-7] {
		t.Errorf("%d entries, %v", len(some), err)
	}
	for _, path := range []string{"/v1/audit?limit=100000", "/v1/audit?limit=100000&after=0"} {
		n := 0
		for _, page := range pagesOf[api.AuditEntry](t, s, path, func() { more(1) }) {
			if n += len(page); len(page) > api.MaxAuditPage {
				t.Errorf("%s: a page of %d", path, len(page))
			}
		}
		if n < entries || n > entries+10 {
			t.Errorf("%s: %d entries of %d", path, n, entries)
		}
		if strings.Contains(path, "after") {
			break
		}
	}
}
