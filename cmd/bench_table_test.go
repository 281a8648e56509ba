package cmd_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// series is what several runs gave.
type series struct {
	Values []float64 `json:"values"`
	CPU    []float64 `json:"cpu_ms,omitempty"`
}

func (s *series) add(f figure) {
	s.Values = append(s.Values, f.value)
	if f.cpu > 0 {
		s.CPU = append(s.CPU, float64(f.cpu)/1e6)
	}
}

// quantile is the smallest value that so much of all does not exceed.
func (s *series) quantile(q float64) float64 { return quantile(s.Values, q) }

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

func (s *series) median() float64 { return s.quantile(0.5) }

// benchLine is a row beside one baseline, or beside none.
type benchLine struct {
	Row      string  `json:"row"`
	Unit     string  `json:"unit"`
	Ours     series  `json:"ours"`
	Baseline string  `json:"baseline,omitempty"`
	Other    *series `json:"other,omitempty"`
	AtMost   float64 `json:"target,omitempty"`       // in Unit
	More     bool    `json:"more,omitempty"`         // the target is what it is to be at least
	Times    float64 `json:"target_times,omitempty"` // of the baseline's median
	Ratio    float64 `json:"ratio,omitempty"`
	Quantile float64 `json:"quantile"` // which one of ours is Value
	Value    float64 `json:"value"`
	Verdict  string  `json:"verdict,omitempty"` // met, missed; "": no target
	Note     string  `json:"note,omitempty"`
	Plot     string  `json:"plot,omitempty"` // the name of the plot that has it
	X        float64 `json:"x,omitempty"`    // where it is there
}

func (l benchLine) judged() benchLine {
	l.Value = l.Ours.quantile(l.Quantile)
	missed := l.AtMost > 0 && (l.Value > l.AtMost) != l.More
	if l.Other != nil && l.Other.median() > 0 {
		l.Ratio = l.Value / l.Other.median()
		missed = missed || l.Times > 0 && l.Ratio > l.Times
	}
	switch {
	case l.AtMost == 0 && l.Times == 0:
	case missed:
		l.Verdict = "missed"
	default:
		l.Verdict = "met"
	}
	return l
}

// amount is a value for people, with three digits.
func amount(v float64, unit string) string {
	switch {
	case unit == "ms" && v >= 10_000:
		v, unit = v/1000, "s"
	case unit == "% of a core":
		unit = "%"
	}
	text := fmt.Sprintf("%.0f", v)
	switch {
	case v < 10:
		text = fmt.Sprintf("%.2f", v)
	case v < 100:
		text = fmt.Sprintf("%.1f", v)
	}
	return text + " " + unit
}

// target is what ours may be at most.
func (l benchLine) target() string {
	switch {
	case l.Times > 0 && l.AtMost > 0:
		return fmt.Sprintf("%s %.3gx", amount(l.AtMost, l.Unit), l.Times)
	case l.Times > 0:
		return fmt.Sprintf("%.3gx", l.Times)
	case l.AtMost > 0:
		return fmt.Sprintf("%.5g %s", l.AtMost, strings.TrimSuffix(l.Unit, " of a core"))
	}
	return ""
}

// nameWidth is the width of the column of names; a longer one has a line of its own.
const nameWidth = 26

func (b *bench) print(w io.Writer, m platform) {
	fmt.Fprintf(w, "\n%s, %d cores, Linux %s, %s, %s\n\n", m.CPU, m.Cores, m.Kernel, m.Go, m.Commit)
	fmt.Fprintf(w, "%-*s %8s %-19s %5s %11s %s\n", nameWidth, "ROW", "OURS", "BASELINE", "RATIO", "TARGET", "")
	last := ""
	for _, l := range b.lines {
		l = l.judged()
		name, base, ratio := l.Row, "", ""
		ours := amount(l.Value, l.Unit)
		if name == last {
			name, ours = "", ""
		}
		if last = l.Row; l.Other != nil {
			base = l.Baseline + " " + amount(l.Other.median(), l.Unit)
			ratio = strings.TrimSuffix(amount(l.Ratio, ""), " ")
		}
		if len(name) > nameWidth {
			fmt.Fprintln(w, name)
			name = ""
		}
		if len(base) > 19 {
			fmt.Fprintf(w, "%-*s %8s %s\n", nameWidth, name, ours, base)
			name, ours, base = "", "", ""
		}
		text := fmt.Sprintf("%-*s %8s %-19s %5s %11s %s", nameWidth, name, ours, base, ratio, l.target(), l.Verdict)
		fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
	fmt.Fprintf(w, "\n%-*s %-19s %4s %8s %8s %8s\n", nameWidth, "ROW", "OF", "RUNS", "LEAST", "MOST", "CPU EACH")
	last = ""
	each := func(name, who string, s *series, unit string) {
		if len(name) > nameWidth {
			fmt.Fprintln(w, name)
			name = ""
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-*s %-19s %4d %8s %8s %8s", nameWidth, name, who, len(s.Values),
			amount(slices.Min(s.Values), unit), amount(slices.Max(s.Values), unit), cpuText(s.CPU)), " "))
	}
	for _, l := range b.lines {
		if l.Row != last && l.Quantile == 0.5 && len(l.Ours.Values) > 1 {
			each(l.Row, "ours", &l.Ours, l.Unit)
		}
		if last = l.Row; l.Other != nil && len(l.Ours.Values) > 1 {
			each("", l.Baseline, l.Other, l.Unit)
		}
	}
	for _, text := range b.left {
		fmt.Fprintf(w, "LEFT OUT: %s\n", text)
	}
	fmt.Fprintf(w, "\nMedians of %d runs or as said, in %.0f s; load at the start %s.\n", b.runs, time.Since(b.began).Seconds(), m.Load)
}

func cpuText(runs []float64) string {
	if len(runs) == 0 {
		return ""
	}
	return amount(quantile(runs, 0.5), "ms")
}

// platform is where the figures come from.
type platform struct {
	CPU    string    `json:"cpu"`
	Cores  int       `json:"cores"`
	Kernel string    `json:"kernel"`
	Go     string    `json:"go"`
	Commit string    `json:"commit"`
	Load   string    `json:"load"`
	At     time.Time `json:"at"`
}

func platformNow() platform {
	m := platform{CPU: "unknown processor", Cores: runtime.NumCPU(), Go: runtime.Version(), Commit: os.Getenv("COMMIT"), At: time.Now()}
	m.Kernel = firstWords("/proc/sys/kernel/osrelease", 1)
	m.Load = firstWords("/proc/loadavg", 1)
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
				m.CPU = strings.Trim(name, " \t:")
				break
			}
		}
	}
	return m
}

func firstWords(path string, n int) string {
	text, _ := os.ReadFile(path)
	words := strings.Fields(string(text))
	return strings.Join(words[:min(n, len(words))], " ")
}

// save writes the figures as JSON.
func (b *bench) save(path string, m platform) error {
	for i := range b.lines {
		b.lines[i] = b.lines[i].judged()
	}
	text, err := json.MarshalIndent(struct {
		Machine platform    `json:"machine"`
		Runs    int         `json:"runs"`
		Lines   []benchLine `json:"lines"`
		LeftOut []string    `json:"left_out"`
	}{m, b.runs, b.lines, b.left}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
