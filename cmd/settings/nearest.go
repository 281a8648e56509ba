package settings

import (
	"fmt"
	"strings"
)

// Nearest returns the word of the list that is a typing mistake away, or that the
// word is the beginning of; "" if none is. Of equally near ones it is the first that
// begins with the word, if one does.
func Nearest(word string, list []string) string {
	best, nearest := 1+len(word)/3, ""
	for _, candidate := range list {
		d := distance(word, candidate)
		closer := d <= best || d == best+1 && nearest != "" && !strings.HasPrefix(nearest, word) && strings.HasPrefix(candidate, word)
		if closer && d < len(candidate) {
			best, nearest = d-1, candidate
		}
	}
	for _, candidate := range list {
		if nearest == "" && len(word) > 2 && strings.HasPrefix(candidate, word) {
			nearest = candidate
		}
	}
	return nearest
}

// didYouMean is the end of a message about an unknown word.
func didYouMean(word string, list []string, dashes string) string {
	if near := Nearest(word, list); near != "" {
		return fmt.Sprintf(" (did you mean %s%s?)", dashes, near)
	}
	return ""
}

// distance counts the letters to insert, delete or change between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
