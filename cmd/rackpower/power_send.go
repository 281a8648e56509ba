package main

import (
	"errors"
	"time"

	"rackpower/central/api"
	"rackpower/cmd/settings"
	"rackpower/internal/backoff"
	"rackpower/power/noderange"
)

// How long an answer that got lost is asked for again, and how often.
const (
	askAgainFor   = 5 * time.Second
	askAgainEvery = 250 * time.Millisecond
)

// ask sends requests until they are answered. Sending them again is harmless: their
// ids stay the same.
func (k connection) ask(in api.AskOps) ([]api.Op, error) {
	end := time.Now().Add(askAgainFor)
	for {
		ops, err := k.client.AskOps(k.ctx, in)
		if !lost(err) || errors.Is(err, api.ErrSilent) || api.CodeOf(err) == api.CodeTooMany || time.Now().After(end) {
			return ops, err // the client has waited where there were too many
		}
		if err := backoff.Sleep(k.ctx, askAgainEvery); err != nil {
			return nil, err
		}
	}
}

// unsure explains why requests have no answer. Those that may have been taken all
// the same are said to be so: silence would be read as "nothing was done".
func (s *session) unsure(err error, nodes []api.Node, dry bool) error {
	if dry || api.CodeOf(err) == api.CodeTooMany || !lost(err) && !interrupted(s.ctx, err) {
		return err
	}
	said := s.explain(err)
	return settings.Exit(settings.CodeOf(said), "%v\nwhat was asked for may have been taken: %s ops %s --outstanding shows it",
		said, s.server.command, noderange.Fold(namesOf(nodes)))
}

// lost reports whether a request may be sent again in a moment: nobody answered, somebody
// about to stop did, or one who has too many requests.
func lost(err error) bool {
	code := api.CodeOf(err)
	return errors.Is(err, api.ErrUnreachable) || code == api.CodeUnavailable || code == api.CodeTooMany
}
