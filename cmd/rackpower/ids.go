package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
)

// idsAmong is how many of the newest operations an abbreviated id may be one of, beside
// those that are outstanding.
const idsAmong = 1000

// whole reports whether an id is written in full.
func whole(id string) bool {
	return len(id) == 36 && uuid.Validate(id) == nil
}

// shortID is an id as a table has it: the end, which is what differs between operations
// that were asked for at the same time.
func shortID(id string) string {
	if !whole(id) {
		return id
	}
	return id[strings.LastIndexByte(id, '-')+1:]
}

// opIDs completes ids of operations of which the beginning or the end is given. What none
// is like stays as it is: central has the last word on it.
func (s *session) opIDs(given []string) ([]string, error) {
	if !slices.ContainsFunc(given, func(id string) bool { return !whole(id) }) {
		return given, nil
	}
	var known []api.Op
	for _, q := range []api.QueryOps{{Outstanding: true}, {Limit: idsAmong}} {
		found, err := s.client.FindOps(s.ctx, q)
		if err != nil {
			return nil, err
		}
		known = append(known, found.Ops...)
	}
	ids := make([]string, len(known))
	for i, op := range known {
		ids[i] = op.ID
	}
	out := make([]string, len(given))
	for i, part := range given {
		id, like := complete(part, ids)
		if len(like) > 1 {
			return nil, settings.Usage("%s is the beginning or the end of %d ids:%s", term.Clean(part), len(like), s.candidates(known, like))
		}
		out[i] = id
	}
	return out, nil
}

// complete finds the one id that begins or ends with a part, and those that do.
func complete(part string, ids []string) (id string, like []string) {
	if part == "" || slices.Contains(ids, part) {
		return part, nil
	}
	for _, id := range ids {
		shown := strings.HasPrefix(shortID(id), part)
		if (shown || strings.HasPrefix(id, part) || strings.HasSuffix(id, part)) && !slices.Contains(like, id) {
			like = append(like, id)
		}
	}
	if len(like) != 1 {
		return part, like
	}
	return like[0], like
}

// candidates lists operations, each in a line.
func (s *session) candidates(known []api.Op, ids []string) string {
	const most = 10
	text := ""
	for i, id := range ids {
		if i == most {
			return text + fmt.Sprintf("\n  and %d more", len(ids)-most)
		}
		o := known[slices.IndexFunc(known, func(o api.Op) bool { return o.ID == id })]
		text += fmt.Sprintf("\n  %s  %s %s, %s ago, %s", term.Clean(id), term.Clean(o.Node), o.Action, s.Age(&o.AskedAt), term.Clean(opResult(o)))
	}
	return text
}

// planID completes the id of a plan that awaits an approval.
func (s *session) planID() (string, error) {
	given := s.c.Args().First()
	if whole(given) {
		return given, nil
	}
	plans, err := s.client.Approvals(s.ctx)
	if err != nil {
		return given, nil // what is asked next says what is wrong
	}
	ids := make([]string, len(plans))
	for i, p := range plans {
		ids[i] = p.ID
	}
	id, like := complete(given, ids)
	if len(like) > 1 {
		return "", settings.Usage("%s is the beginning or the end of %d ids:\n  %s", term.Clean(given), len(like), strings.Join(like, "\n  "))
	}
	return id, nil
}
