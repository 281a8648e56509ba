package httpserver

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"rackpower/central/api"
	"rackpower/power/noderange"
)

// PageQuery are the parameters of a list that Page reads.
var PageQuery = []string{"limit", "page"}

// Page puts a list into the order of its names, one for each thing, and returns the part of it
// that the parameters limit and page ask for, all of it without them. The header Link (RFC 8288)
// then names the next page, which begins behind the last name: what comes, goes or changes
// meanwhile has nothing else missed or doubled.
func Page[T any](w http.ResponseWriter, r *http.Request, all []T, name func(T) string) ([]T, error) {
	q := r.URL.Query()
	all = slices.Clone(all)
	if all == nil {
		all = []T{}
	}
	slices.SortStableFunc(all, func(a, b T) int { return noderange.Compare(name(a), name(b)) })
	if q.Get("limit") == "" && q.Get("page") == "" {
		return all, nil
	}
	limit, behind, err := pageOf(q)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(one T) bool { return behind != "" && noderange.Compare(name(one), behind) <= 0 })
	if len(all) > limit {
		all = all[:limit]
		q.Set("page", base64.RawURLEncoding.EncodeToString([]byte(name(all[limit-1]))))
		LinkNext(w, r, q)
	}
	return all, nil
}

// LinkNext names the next page of an answer.
func LinkNext(w http.ResponseWriter, r *http.Request, q url.Values) {
	w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
}

func pageOf(q url.Values) (limit int, behind string, err error) {
	limit = api.MaxPage
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > api.MaxPage {
			return 0, "", api.Problemf(api.CodeBadRequest, "limit %.100q is not between 1 and %d", text, api.MaxPage)
		}
	}
	name, err := base64.RawURLEncoding.DecodeString(q.Get("page"))
	if err != nil {
		return 0, "", api.Problemf(api.CodeBadRequest, "page %.100q is none that was named here", q.Get("page"))
	}
	return limit, string(name), nil
}
