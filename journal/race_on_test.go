//go:build race

package journal_test

// pace is by how much the exhaustive tests are thinned out: the race detector
// makes them slow and learns nothing from the hundredth turn.
const pace = 13
