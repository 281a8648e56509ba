// Command benchplot draws what make growth measured as SVG: one file for each plot that the lines
// of a file of figures name.
//
//	go run ./benchplot FIGURES.json DIRECTORY
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// line is what is read of a line of figures.
type line struct {
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	Plot  string  `json:"plot"`
	X     float64 `json:"x"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: benchplot FIGURES.json DIRECTORY")
		os.Exit(2)
	}
	if err := draw(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "benchplot: %v\n", err)
		os.Exit(1)
	}
}

func draw(from, dir string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var figures struct{ Lines []line }
	if err := json.Unmarshal(text, &figures); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	plots := map[string][]line{}
	for _, l := range figures.Lines {
		if l.Plot != "" {
			plots[l.Plot] = append(plots[l.Plot], l)
		}
	}
	if len(plots) == 0 {
		return fmt.Errorf("%s has nothing to draw: run make growth", from)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, lines := range plots {
		if err := save(name, lines, dir); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

func save(name string, lines []line, dir string) error {
	who, what, _ := strings.Cut(name, ", ")
	slices.SortFunc(lines, func(a, b line) int { return int(a.X - b.X) })
	points := make(plotter.XYs, len(lines))
	most := 0.0
	for i, l := range lines {
		points[i].X, points[i].Y = l.X, l.Value
		most = max(most, l.Value)
	}
	p := plot.New()
	p.Title.Text = name
	p.X.Label.Text = map[string]string{"agent": "nodes of the agent", "central": "agents, 40 nodes each"}[who]
	p.Y.Label.Text = what + " (" + lines[0].Unit + ")"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	curve, marks, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	p.Add(plotter.NewGrid(), curve, marks)
	p.Y.Min, p.Y.Max = 0, 1.1*most
	file := notInNames.ReplaceAllString(strings.ToLower(name), "-") + ".svg"
	return p.Save(14*vg.Centimeter, 8*vg.Centimeter, filepath.Join(dir, file))
}
