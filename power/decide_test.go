package power

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the expected lines of testdata/decide")

// TestDecideTranscripts plays testdata/decide/*.txt. A line in the first column
// is a command, an indented one what is expected of the command above it; #
// begins a comment. The commands:
//
//	ask ACTION [by WHO] [id=X] [seq=N] [boot=D] [grace=T] [no-escalate] [limit=WATTS] [if-busy=B]
//	fill N      N operations queue up, on and off in turn
//	start       the first of the lane starts
//	safe        the running one, being cancelled, reaches a safe point
//	done        the running one ends by itself
//	cancel      somebody asks to cancel the running one
func TestDecideTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/decide/*.txt")
	if err != nil || len(files) < 12 {
		t.Fatalf("found %d transcripts, want at least 12 (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	var s stage
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimRight(script, "\n"), "\n") {
		if strings.HasPrefix(line, "    ") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, l := range s.do(t, strings.Fields(line)) {
			fmt.Fprintf(&out, "    %s\n", l)
		}
	}
	return out.String()
}

// stage is the lane of one transcript and the number of requests so far.
type stage struct {
	lane  Lane
	asked int
}

func (s *stage) do(t *testing.T, words []string) []string {
	switch words[0] {
	case "ask":
		req := s.request(t, words[1:])
		d := Decide(s.lane, req)
		s.lane = carryOut(s.lane, req, d)
		return []string{drawDecision(d), drawLane(s.lane)}
	case "fill":
		n, err := strconv.Atoi(words[1])
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			a := []string{"on", "off"}[i%2]
			req := s.request(t, []string{a, "if-busy=queue"})
			s.lane = carryOut(s.lane, req, Decide(s.lane, req))
		}
		return []string{fmt.Sprintf("lane: %d outstanding", len(s.lane.Outstanding))}
	case "start":
		s.lane = begin(s.lane)
	case "safe":
		if len(s.lane.Outstanding) == 0 || !s.lane.Outstanding[0].Cancelling {
			t.Fatal("safe: nothing is being cancelled")
		}
		s.lane = finish(s.lane)
	case "done":
		s.lane = finish(s.lane)
	case "cancel":
		s.lane = stop(s.lane)
	default:
		t.Fatalf("unknown command %q", words)
	}
	return []string{drawLane(s.lane)}
}

func (s *stage) request(t *testing.T, words []string) Op {
	s.asked++
	req := Op{ID: fmt.Sprintf("op%d", s.asked), Action: Action(words[0]), Seq: Seq(s.asked * 10), Options: Options{IfBusy: Supersede}}
	for i := 1; i < len(words); i++ {
		key, value, _ := strings.Cut(words[i], "=")
		var err error
		switch key {
		case "by":
			i++
			req.AskedBy = words[i]
		case "id":
			req.ID = value
		case "seq":
			var n int
			n, err = strconv.Atoi(value)
			req.Seq = Seq(n)
		case "boot":
			req.Boot = BootDevice(value)
		case "grace":
			req.Grace, err = time.ParseDuration(value)
		case "limit":
			req.Limit, err = strconv.Atoi(value)
		case "no-escalate":
			req.NoEscalate = true
		case "if-busy":
			req.IfBusy = IfBusy(value)
		default:
			t.Fatalf("unknown word %q", words[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	req.Node = "n1"
	if err := req.Validate(); err != nil {
		t.Fatalf("%v: %v", words, err)
	}
	return req
}
