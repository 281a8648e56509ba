package central

import (
	"net/http"

	"rackpower/central/httpserver"
)

// paged makes a handler of a function that lists things, each with a name of its own, see
// httpserver.Page.
func paged[T any](c *Central, list func(*http.Request) ([]T, error), name func(T) string) endpoint {
	e := query(c, list)
	e.query = httpserver.PageQuery
	e.handler = func(w http.ResponseWriter, r *http.Request) {
		out, err := caught(c, func() ([]T, error) {
			all, err := list(r)
			if err != nil {
				return nil, err
			}
			return httpserver.Page(w, r, all, name)
		})
		c.answerTo(w, r, out, ended(r, err))
	}
	return e
}
