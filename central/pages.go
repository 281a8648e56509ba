package central

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"rackpower/central/api"
	"rackpower/power/noderange"
)

// maxPage bounds limit.
const maxPage = 10_000

// paged makes a handler of a function that lists things, each with a name of its own. With
// limit the answer has so many of them, in the order of their names, and the header Link (RFC
// 8288) names the next page, which begins behind the last name: what comes, goes or changes
// meanwhile has nothing else missed or doubled.
func paged[T any](c *Central, list func(*http.Request) ([]T, error), name func(T) string) endpoint {
	e := query(c, list)
	whole := e.handler
	e.query = []string{"limit", "page"}
	e.handler = func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("limit") == "" && q.Get("page") == "" {
			whole(w, r)
			return
		}
		out, err := caught(c, func() ([]T, error) {
			limit, behind, err := pageOf(q)
			if err != nil {
				return nil, err
			}
			all, err := list(r)
			if err != nil {
				return nil, err
			}
			all, more := pageFrom(all, name, behind, limit)
			if more {
				next := name(all[len(all)-1])
				q.Set("page", base64.RawURLEncoding.EncodeToString([]byte(next)))
				linkNext(w, r, q)
			}
			return all, nil
		})
		c.answerTo(w, r, out, ended(r, err))
	}
	return e
}

// linkNext names the next page of an answer.
func linkNext(w http.ResponseWriter, r *http.Request, q url.Values) {
	w.Header().Set("Link", "<"+r.URL.Path+"?"+q.Encode()+`>; rel="next"`)
}

func pageOf(q url.Values) (limit int, behind string, err error) {
	limit = maxPage
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			return 0, "", api.Problemf(api.CodeBadRequest, "limit %.100q is not between 1 and %d", text, maxPage)
		}
	}
	name, err := base64.RawURLEncoding.DecodeString(q.Get("page"))
	if err != nil {
		return 0, "", api.Problemf(api.CodeBadRequest, "page %.100q is none that this central named", q.Get("page"))
	}
	return limit, string(name), nil
}

// pageFrom is the first things behind a name, in order; more says that there are others.
func pageFrom[T any](all []T, name func(T) string, behind string, limit int) (page []T, more bool) {
	page = slices.DeleteFunc(slices.Clone(all), func(one T) bool {
		return behind != "" && noderange.Compare(name(one), behind) <= 0
	})
	slices.SortFunc(page, func(a, b T) int { return noderange.Compare(name(a), name(b)) })
	return page[:min(limit, len(page))], len(page) > limit
}
