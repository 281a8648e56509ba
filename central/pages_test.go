package central

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
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

// TestWhatWantsAPersonComesInPages: the most pressing first, as in the whole list, page by page; so
// do the runs of schedules, in the order of their times.
func TestWhatWantsAPersonComesInPages(t *testing.T) {
	s := newSite(t)
	s.nodes("n1", "n2", "n3", "n4")
	s.status(power.StatusReady, "n4")
	r := s.rack("r1")
	r.settled()
	was := power.Seen(power.On, s.clock().Add(-time.Minute))
	for range 2 {
		r.tick(api.NodeReading{Node: "n1", Reading: was.Failed(power.ReachAuthFailed, s.clock())},
			api.NodeReading{Node: "n2", Reading: was.Failed(power.ReachPrivilege, s.clock())})
	}
	for _, name := range []string{"r1", "r2", "r10"} {
		if _, err := s.SetPause(t.Context(), "r1", api.SetPause{For: time.Hour, Reason: name}); err != nil {
			t.Fatal(err)
		}
	}
	s.hold(power.WantOn, 30*time.Minute, "n3")
	whole := s.attention()
	if len(whole) < 4 || whole[0].Severity == whole[len(whole)-1].Severity {
		t.Fatalf("only %v", kinds(whole))
	}
	for _, name := range []string{"b", "a"} {
		s.schedule(api.Schedule{Name: name, Cron: "CRON_TZ=UTC 0 7 * * *", Nodes: "n1", Want: power.WantOn})
	}
	runs, err := s.NextRuns(t.Context(), "", 3)
	sorted := slices.IsSortedFunc(runs, func(a, b api.ScheduledRun) int { return a.At.Compare(b.At) })
	if err != nil || len(runs) != 6 || runs[0].Schedule != "a" || !sorted {
		t.Fatalf("%+v, %v", runs, err)
	}
	for limit := 1; limit <= len(whole); limit++ {
		samePages(t, s, "/v1/attention?limit=", limit, whole)
		samePages(t, s, "/v1/schedules/next?count=3&limit=", limit, runs)
	}
}

// samePages holds pages against the whole list.
func samePages[T any](t *testing.T, s *site, path string, limit int, whole []T) {
	t.Helper()
	var all []T
	for _, page := range pagesOf[T](t, s, fmt.Sprint(path, limit), func() {}) {
		if len(page) > limit || len(page) == 0 {
			t.Errorf("%s%d: a page of %d", path, limit, len(page))
		}
		all = append(all, page...)
	}
	if !reflect.DeepEqual(all, whole) {
		t.Errorf("%s%d: got\n%+v\nwant\n%+v", path, limit, all, whole)
	}
}

// TestEveryListHasPages: no route that answers with a list lacks them.
func TestEveryListHasPages(t *testing.T) {
	s := newSite(t)
	for _, r := range s.c.table {
		if !strings.HasPrefix(r.pattern, http.MethodGet) || r.out == nil || r.out.Kind() != reflect.Slice {
			continue
		}
		if known := slices.Concat(described[r.pattern].query, r.query); !slices.Contains(known, "limit") {
			t.Errorf("%s answers with a list that has no pages: see paged", r.pattern)
		}
	}
}

// TestOperationsComeInPages: all come once, though ids and sequences fall together and more are
// asked for meanwhile; a user of some nodes gets those of them, and no page of others.
func TestOperationsComeInPages(t *testing.T) {
	r, _ := onTLS(t)
	var specs []api.NodeSpec
	for i := range 6 {
		specs = append(specs, api.NodeSpec{Name: fmt.Sprint("n", i), Rack: fmt.Sprint("r", 1+i/3), BMC: fmt.Sprintf("ipmi://u@192.0.2.%d", 1+i)})
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: specs}); err != nil {
		t.Fatal(err)
	}
	ask := func(node string) string {
		id := newID()
		req := api.OpRequest{ID: id, Node: node, Action: power.ActOn, Options: power.Options{IfBusy: power.Queue}}
		if _, err := r.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{req}}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	var ids []string
	for i := range 11 {
		ids = append(ids, ask(fmt.Sprint("n", i%3)))
	}
	own := r.as(t, "o1", api.AddUser{Role: "operator", Nodes: "@r1"})
	for range 7 {
		ask("n4") // newer ones of others
	}
	for limit := 1; limit < 13; limit++ {
		var got []string
		in := api.QueryOps{Limit: limit, Nodes: []string{"n0", "n1", "n2", "n4"}}
		for range 30 {
			page, err := own.QueryOps(t.Context(), in)
			if err != nil || len(page.Ops) > limit {
				t.Fatalf("limit %d: %d, %v", limit, len(page.Ops), err)
			}
			part := make([]string, len(page.Ops))
			for i, o := range page.Ops {
				part[i] = o.ID
			}
			got = append(part, got...)
			if in.Before = page.Next; in.Before == "" {
				break
			}
		}
		if !slices.Equal(got, ids) {
			t.Errorf("limit %d: %v, want %v", limit, got, ids)
		}
	}
	if found, err := own.QueryOps(t.Context(), api.QueryOps{Nodes: []string{"n4"}}); err != nil || len(found.Ops) > 0 {
		t.Errorf("of others: %+v, %v", found, err)
	}
	_, err := own.QueryOps(t.Context(), api.QueryOps{Before: "yesterday"})
	wantCode(t, err, api.CodeBadRequest)
}
