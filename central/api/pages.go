package api

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"rackpower/power"
)

// MaxPage is how many things a page of a list has at most.
const MaxPage = 10_000

// pageSize is how many things the client asks for at once; tests ask for fewer.
var pageSize = MaxPage

var nextPage = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`<([^>]*)>; *rel="next"`) })

// pages asks for the pages of a list one after the other, for as long as they are taken.
func pages[T any](ctx context.Context, c *Client, path string) iter.Seq2[[]T, error] {
	route, query, _ := strings.Cut(path, "?")
	if query != "" {
		query += "&"
	}
	next := route + "?" + query + "limit=" + strconv.Itoa(pageSize)
	return func(yield func([]T, error) bool) {
		for at := next; at != ""; {
			var page []T
			header, err := c.do(ctx, http.MethodGet, at, nil, &page, 0)
			before := at
			at = ""
			if m := nextPage().FindStringSubmatch(header.Get("Link")); m != nil {
				at = m[1]
			}
			if at == before || at != "" && !strings.HasPrefix(at, route+"?") {
				err = cmp.Or(err, error(Problemf(CodeInternal, "%s: the page behind %.200q is %.200q", c.target, before, at)))
			}
			if !yield(page, err) || err != nil {
				return
			}
		}
	}
}

// list is all of a list, read page by page.
func list[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	all := []T{}
	for page, err := range pages[T](ctx, c, path) {
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
	}
	return all, nil
}

// FindOps finds operations as QueryOps does, page by page: all of them, or the newest in.Limit,
// in the order of their sequences. Rev is that of the first page: what changed since is above it.
func (c *Client) FindOps(ctx context.Context, in QueryOps) (FoundOps, error) {
	var parts [][]Op
	var first FoundOps
	for left := in.Limit; ; {
		in.Limit = pageSize
		if left > 0 {
			in.Limit = min(left, pageSize)
		}
		page, err := c.QueryOps(ctx, in)
		if err != nil {
			return FoundOps{}, err
		}
		if parts == nil {
			first = page
		}
		parts = append(parts, page.Ops)
		if left > 0 {
			if left -= len(page.Ops); left <= 0 {
				break
			}
		}
		if page.Next == "" || page.Next == in.Before {
			break
		}
		in.Before = page.Next
	}
	slices.Reverse(parts)
	return FoundOps{Ops: append([]Op{}, slices.Concat(parts...)...), Rev: first.Rev}, nil
}

// OpPlace is where an operation is among others, for QueryOps.Before.
func OpPlace(o Op) string { return fmt.Sprintf("%d.%s", o.Seq, o.ID) }

// ReadOpPlace is the inverse of OpPlace, 0 and "" of "".
func ReadOpPlace(text string) (power.Seq, string, error) {
	if text == "" {
		return 0, "", nil
	}
	number, id, found := strings.Cut(text, ".")
	seq, err := strconv.ParseUint(number, 10, 63)
	if err != nil || !found {
		return 0, "", Problemf(CodeBadRequest, "before: %.200q is none that was named here", text)
	}
	return power.Seq(seq), id, nil
}
