//go:build !race

package journal_test

const pace = 1
