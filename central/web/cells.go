package web

import (
	"fmt"
	"html"
	"html/template"
	"net/url"
	"strings"

	"rackpower/central/api"
	"rackpower/power"
)

// cell is a node as the site shows it: the fill of its square is the power as it was read, the
// border the power as it is desired, and a mark says what else there is. Each has a shape of its
// own besides a colour.
type cell struct {
	class string
	mark  string
	words string // for those who point at it, and those who hear the page
}

// Classes of cells: of the fill, of the border, and of what else there is.
const (
	classOn, classOff, classUnknown = "n", "f", "u"
	classWantOn, classWantOff       = "N", "F"
	classStale, classDiffers        = "s", "d"
	classFault, classSilent         = "e", "x"
)

func cellOf(n api.Node) cell {
	class := []string{"c"}
	switch n.State {
	case power.On:
		class = append(class, classOn)
	case power.Off:
		class = append(class, classOff)
	default:
		class = append(class, classUnknown)
	}
	switch n.Desired {
	case power.WantOn:
		class = append(class, classWantOn)
	case power.WantOff:
		class = append(class, classWantOff)
	}
	if n.Stale && n.State != power.Unknown {
		class = append(class, classStale)
	}
	mark := ""
	switch {
	case n.Fault != "":
		mark, class = "!", append(class, classFault)
	case n.Reach == power.ReachAuthFailed || n.Reach == power.ReachPrivilege:
		mark, class = "k", append(class, classSilent)
	case n.Reach == power.ReachUnreachable || n.Reach == power.ReachBusy:
		mark, class = "×", append(class, classSilent)
	case n.Drift:
		mark, class = "≠", append(class, classDiffers)
	case n.Op != nil:
		mark = "›"
	case n.Pending:
		mark = "…"
	case n.Hold != nil:
		mark = "h"
	case n.State == power.Unknown:
		mark = "?"
	}
	return cell{strings.Join(class, " "), mark, wordsOf(n)}
}

// wordsOf is a node in a line, with the words of rackpower status.
func wordsOf(n api.Node) string {
	words := []string{stateWord(n)}
	if n.Desired == power.WantOn || n.Desired == power.WantOff {
		words = append(words, "desired "+string(n.Desired))
	}
	if n.Reach != power.ReachOK && n.Reach != "" {
		words = append(words, string(n.Reach))
	}
	if n.Hold != nil {
		words = append(words, "held by "+n.Hold.By)
	}
	switch {
	case n.Fault != "":
		words = append(words, "fault")
	case n.Drift:
		words = append(words, "drift")
	case n.Op != nil:
		words = append(words, string(n.Op.Action)+" "+n.Op.Phase)
	case n.Pending:
		words = append(words, strings.TrimSuffix("pending: "+string(n.Waits), ": "))
	}
	return n.Name + ": " + strings.Join(words, ", ")
}

func stateWord(n api.Node) string {
	if n.Stale && n.State != power.Unknown {
		return string(n.State) + " (stale)"
	}
	return string(n.State)
}

// cells are the squares of a rack. There may be ten thousand on a page, so they are written
// here, and not by a template.
func cells(nodes []api.Node) template.HTML {
	var out strings.Builder
	for i := range nodes {
		c := cellOf(nodes[i])
		fmt.Fprintf(&out, `<a tabindex=-1 class="%s" href="/ui/nodes/%s" title="%s">%s</a>`, c.class,
			html.EscapeString(url.PathEscape(nodes[i].Name)), html.EscapeString(c.words), c.mark)
	}
	return template.HTML(out.String()) //nolint:gosec // all texts in it are escaped
}
