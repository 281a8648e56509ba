package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rackpower/power"
)

// inPages has the client ask for so many things at once.
func inPages(t *testing.T, size int) {
	t.Helper()
	before := pageSize
	pageSize = size
	t.Cleanup(func() { pageSize = before })
}

// TestListsAreReadPageByPage: no answer is longer than a page, the selection stays, and all comes.
func TestListsAreReadPageByPage(t *testing.T) {
	inPages(t, 3)
	for n := range 8 {
		var asked []string
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.RequestURI())
			q := r.URL.Query()
			from, _ := strconv.Atoi(q.Get("page"))
			to := min(from+3, n)
			page := make([]Node, 0, 3)
			for i := from; i < to; i++ {
				page = append(page, Node{Name: fmt.Sprint("n", i)})
			}
			if to < n {
				w.Header().Set("Link", fmt.Sprintf(`<%s?select=%s&limit=3&page=%d>; rel="next"`, r.URL.Path, q.Get("select"), to))
			}
			_ = json.NewEncoder(w).Encode(page)
		})
		nodes, err := c.Nodes(t.Context(), "@r1")
		if err != nil || len(nodes) != n || nodes == nil {
			t.Errorf("%d nodes: %v, %v", n, nodes, err)
		}
		for i, one := range nodes {
			if one.Name != fmt.Sprint("n", i) {
				t.Errorf("%d nodes: %s in place %d", n, one.Name, i)
			}
		}
		if len(asked) != max(1, (n+2)/3) || !strings.Contains(asked[0], "select=%40r1&limit=3") {
			t.Errorf("%d nodes: asked %v", n, asked)
		}
	}
}

// TestAPageThatLeadsNowhereIsAnError, and so does what breaks between two pages: half a list is none.
func TestAPageThatLeadsNowhereIsAnError(t *testing.T) {
	for what, next := range map[string]string{
		"another route":  "/v1/users?limit=3",
		"another server": "https://elsewhere.example/v1/nodes?page=1",
		"the same page":  "/v1/agents?limit=" + strconv.Itoa(MaxPage),
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "<"+next+`>; rel="next"`)
			_, _ = w.Write([]byte(`[{"name": "r1"}]`))
		})
		if all, err := c.Agents(t.Context()); CodeOf(err) != CodeInternal || all != nil {
			t.Errorf("%s: %v, %v", what, all, err)
		}
	}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("page") {
			Problemf(CodeUnavailable, "it stops").Write(w)
			return
		}
		w.Header().Set("Link", `</v1/agents?page=x>; rel="next"`)
		_, _ = w.Write([]byte(`[{"name": "r1"}]`))
	})
	if all, err := c.Agents(t.Context()); CodeOf(err) != CodeUnavailable || all != nil {
		t.Errorf("%v, %v", all, err)
	}
}

// TestOperationsAreFoundPageByPage: all, or the newest that are asked for, in the order of their
// sequences, though some have the same; the revision is that of the first page.
func TestOperationsAreFoundPageByPage(t *testing.T) {
	inPages(t, 3)
	var all []Op
	for i := range 10 {
		all = append(all, Op{ID: fmt.Sprintf("id-%d", i), Seq: power.Seq(1 + i/4)})
	}
	rev := int64(70)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var in QueryOps
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Limit < 1 || in.Limit > 3 {
			Problemf(CodeBadRequest, "%v, limit %d", err, in.Limit).Write(w)
			return
		}
		seq, id, err := ReadOpPlace(in.Before)
		if err != nil {
			Problemf(CodeOf(err), "%v", err).Write(w)
			return
		}
		older := slices.DeleteFunc(slices.Clone(all), func(o Op) bool {
			return in.Before != "" && (o.Seq > seq || o.Seq == seq && o.ID >= id)
		})
		found := FoundOps{Ops: older[max(0, len(older)-in.Limit):], Rev: rev}
		if len(found.Ops) == in.Limit {
			found.Next = OpPlace(found.Ops[0])
		}
		rev++
		_ = json.NewEncoder(w).Encode(found)
	})
	for limit := range 12 {
		want := all
		if limit > 0 {
			want = all[max(0, len(all)-limit):]
		}
		first := rev
		got, err := c.FindOps(t.Context(), QueryOps{Limit: limit})
		if err != nil || !slices.Equal(got.Ops, want) || got.Rev != first {
			t.Errorf("limit %d: %v, rev %d, %v", limit, got.Ops, got.Rev, err)
		}
	}
}
