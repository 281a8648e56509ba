package printer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"pgregory.net/rapid"
)

func TestTablesStayAlignedInANarrowTerminal(t *testing.T) {
	rows := func() [][]string {
		return [][]string{
			{"NODE", "STATE", "DRIFT", "OPERATION"},
			{"r1n01", "on", "", "cycle (asked by admin, 4 s ago) running: waiting for off"},
			{"r1n02", "off", "", ""},
		}
	}
	for columns, want := range map[int]string{
		0: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s ago) running: waiting for off\nr1n02  off\n",
		40: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s\n              ago) running: waiting for\n              " +
			"off\nr1n02  off\n",
		30: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by\n              admin, 4 s ago)\n              running: waiting\n" +
			"              for off\nr1n02  off\n",
		10: "NODE   STATE  OPERATION\nr1n01  on     cycle\n              (asked by\n              admin, 4\n              s ago)\n" +
			"              running:\n              waiting\n              for off\nr1n02  off\n",
	} {
		if got := string((Printer{}).tableIn(columns, rows())); got != want {
			t.Errorf("%d columns: got\n%s\nwant\n%s", columns, got, want)
		}
	}
}

// TestTablesFitAndBreakNoWord lays out any table in any terminal: all words are there whole,
// column by column, and no line is longer than the terminal unless words are.
func TestTablesFitAndBreakNoWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "columns")
		cell := rapid.StringMatching(`([a-z]{1,9}( [a-z]{1,9}){0,5})?`)
		var rows [][]string
		head := make([]string, n)
		for i := range head {
			head[i] = fmt.Sprintf("H%d", i)
		}
		rows = append(rows, head)
		for range rapid.IntRange(1, 4).Draw(t, "rows") {
			row := make([]string, n)
			for i := range row {
				row[i] = cell.Draw(t, "cell")
			}
			rows = append(rows, row)
		}
		var words []string
		least := -gutter
		for i := range n {
			longest := 0
			for r, row := range rows {
				for _, word := range strings.Fields(row[i]) {
					if r > 0 {
						words = append(words, word)
						longest = max(longest, len(word), len(head[i]))
					}
				}
			}
			if longest > 0 {
				least += longest + gutter
			}
		}
		columns := rapid.IntRange(1, 100).Draw(t, "width")
		out := string((Printer{}).tableIn(columns, rows))
		for i, line := range strings.Split(out, "\n") {
			if len(line) > max(columns, least) {
				t.Fatalf("line %d is longer than %d:\n%s", i, columns, out)
			}
		}
		got := slices.DeleteFunc(strings.Fields(out), func(w string) bool { return w[0] == 'H' })
		slices.Sort(got)
		slices.Sort(words)
		if !slices.Equal(got, words) {
			t.Fatalf("words %q, want %q:\n%s", got, words, out)
		}
	})
}

func TestTemplatesSeeWhatJSONHas(t *testing.T) {
	type row struct {
		Name  string    `json:"name"`
		Count int       `json:"count"`
		At    time.Time `json:"at"`
	}
	var out bytes.Buffer
	p := Printer{Out: &out, Format: TemplateFormat}
	p.Template = template.Must(template.New("").Parse(`{{range .}}{{.name}} {{.count}} {{.at}}{{"\n"}}{{end}}`))
	at := time.Date(2026, 3, 1, 14, 0, 0, 0, time.FixedZone("", 7200))
	if err := Show(p, Listing[row]{Rows: []row{{"a", 1_000_000, at}, {"b", 2, at}}}); err != nil {
		t.Fatal(err)
	}
	if want := "a 1000000 2026-03-01T12:00:00Z\nb 2 2026-03-01T12:00:00Z\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// TestArraysAreAsEncodingJSONHasThem: they are written row by row.
func TestArraysAreAsEncodingJSONHasThem(t *testing.T) {
	type row struct {
		Name string    `json:"name"`
		At   time.Time `json:"at"`
		In   []string  `json:"in,omitempty"`
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("x", 3600))
	all := []row{{"a<b>", at, []string{"1", "2"}}, {"b\nc", at, nil}, {"", at, []string{"&"}}}
	for n := range len(all) + 1 {
		var got, want strings.Builder
		if err := Show(Printer{Out: &got, Format: "json"}, Listing[row]{Rows: all[:n]}); err != nil {
			t.Fatal(err)
		}
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(inUTC(all[:n])); err != nil || got.String() != want.String() {
			t.Errorf("%v: got %s, want %s", err, got.String(), want.String())
		}
	}
}
