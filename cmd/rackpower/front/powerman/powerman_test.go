package powerman

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/cmd/rackpower/front"
	"rackpower/power"
)

// fleet answers as central's nodes would. n3 fails whatever it is asked for, and says so in
// words that would end an answer if they were passed on as they are.
type fleet struct {
	asked []front.Request
	err   error
	short bool // leave the last node out of the results
}

const nasty = "failed: no answer\r\n102 Command completed successfully"

func (f *fleet) Names(context.Context) ([]string, error) { return []string{"n1", "n2", "n3"}, f.err }

func (f *fleet) known(names []string) error {
	var unknown front.Unknown
	for _, name := range names {
		if !slices.Contains([]string{"n1", "n2", "n3"}, name) {
			unknown.Names = append(unknown.Names, name)
		}
	}
	if len(unknown.Names) > 0 {
		return unknown
	}
	return f.err
}

func (f *fleet) Read(_ context.Context, names []string, _ time.Duration) ([]front.Reading, error) {
	if len(names) == 0 {
		names = []string{"n1", "n2", "n3"}
	}
	var all []front.Reading
	for _, name := range names {
		all = append(all, map[string]front.Reading{
			"n1": {Node: "n1", State: power.On}, "n2": {Node: "n2", State: power.Off}, "n3": {Node: "n3", State: power.Unknown, Why: nasty},
		}[name])
	}
	return all, f.known(names)
}

func (f *fleet) Operate(_ context.Context, in front.Request) ([]front.Result, error) {
	if err := f.known(in.Names); err != nil {
		return nil, err
	}
	f.asked = append(f.asked, in)
	var all []front.Result
	for _, name := range in.Names {
		r := front.Result{Node: name, OK: true, Text: "on"}
		if name == "n3" {
			r = front.Result{Node: name, Text: nasty}
		}
		all = append(all, r)
	}
	if f.short {
		all = all[1:]
	}
	return all, nil
}

func config(f front.Fleet) Config {
	return Config{Fleet: f, Version: "v1", Wait: time.Second, Logger: slog.New(slog.DiscardHandler)}
}

// said is what a client is answered to lines, without the greeting.
func said(t *testing.T, f front.Fleet, lines string) string {
	t.Helper()
	var out strings.Builder
	if err := Converse(t.Context(), strings.NewReader(lines), &out, "peer", config(f)); err != nil {
		t.Fatal(err)
	}
	text, greeted := strings.CutPrefix(out.String(), "001 v1\r\npowerman> ")
	if !greeted {
		t.Errorf("no greeting: %q", out.String())
	}
	return text
}

func TestAnswers(t *testing.T) {
	const p = "\r\npowerman> "
	nastyLine := "failed: no answer\\r; 102 Command completed successfully"
	for line, want := range map[string]string{
		"nodes":               "306 n[1-3]\r\n103 Query complete" + p,
		"status":              "302 on:      n1\r\n302 off:     n2\r\n302 unknown: n3\r\n308 n3: " + nastyLine + "\r\n211 Query completed with errors" + p,
		"status n[1-2]":       "302 on:      n1\r\n302 off:     n2\r\n302 unknown: \r\n103 Query complete" + p,
		"on n[1-2]":           "102 Command completed successfully" + p,
		"ON n2,n1,n2":         "102 Command completed successfully" + p,
		"off n[1-3]":          "308 n3: " + nastyLine + "\r\n210 Command completed with errors" + p,
		"on n[1-4]":           "209 No such nodes: n4" + p,
		"on n[1-":             "205 Hostlist error: ",
		"on @r1":              "205 Hostlist error: ",
		"on !n1":              "205 Hostlist error: ",
		"on n1 n2":            "202 Parse error" + p,
		"on":                  "202 Parse error" + p,
		"":                    "201 Unknown command" + p,
		"nodes n1":            "201 Unknown command" + p,
		"frobnicate":          "201 Unknown command" + p,
		"device":              "213 Command cannot be handled by power control device(s)" + p,
		"flash n1":            "213 Command cannot be handled by power control device(s)" + p,
		"telemetry":           "104 Telemetry ON" + p,
		"exprange\r\nnodes":   "105 Hostrange expansion ON" + p + "307 n1\r\n307 n2\r\n307 n3\r\n103 Query complete" + p,
		"exprange\nstatus n2": "105 Hostrange expansion ON" + p + "303 n2: off\r\n103 Query complete" + p,
		"quit\r\non n1":       "101 Goodbye\r\n",
		"on " + strings.Repeat("n1,", MaxLine) + "n1": "203 Command too long" + p,
	} {
		got := said(t, &fleet{}, line+"\r\n")
		if got != want && (!strings.HasSuffix(want, ": ") || !strings.HasPrefix(got, want)) {
			t.Errorf("%.40q: %q, want %q", line, got, want)
		}
	}
}

func TestWhatIsAskedFor(t *testing.T) {
	f := &fleet{}
	said(t, f, "reset n2,n1\r\ncycle n[1-2]\r\non n")
	if len(f.asked) != 2 || f.asked[0].Action != power.ActReset || f.asked[1].Action != power.ActCycle ||
		!slices.Equal(f.asked[0].Names, []string{"n1", "n2"}) || f.asked[0].Reason != "powerman, peer" {
		t.Errorf("%+v", f.asked)
	}
}

// TestNothingUnknownIsASuccess has central away, and an answer that is short of a node.
func TestNothingUnknownIsASuccess(t *testing.T) {
	away := &fleet{err: errors.New("central is away\nperhaps")}
	for line, want := range map[string]string{
		"on n1":  "308 n1: central is away; perhaps\r\n210 Command completed with errors\r\npowerman> ",
		"status": "308 central is away; perhaps\r\n211 Query completed with errors\r\npowerman> ",
		"nodes":  "308 central is away; perhaps\r\n211 Query completed with errors\r\npowerman> ",
	} {
		if got := said(t, away, line+"\n"); got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
	if got := said(t, &fleet{short: true}, "on n[1-2]\n"); !strings.HasPrefix(got, "210 ") {
		t.Errorf("%q", got)
	}
}

// TestServeEnds has connections end with the context, idle ones too, and the place of one that left free again.
func TestServeEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, config(&fleet{})) }()
	for range maxClients + 10 { // one after the other
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "quit\r\n"); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(text), "101 Goodbye\r\n") {
			t.Fatalf("%q, %v", text, err)
		}
		conn.Close()
	}
	idle, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := idle.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(idle); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("the idle connection ended with %v", err)
	}
}

// FuzzConverse holds any input to the protocol: each line of an answer begins with a number, each
// answer has one last line, and one answer with a prompt comes for each line.
func FuzzConverse(f *testing.F) {
	for _, seed := range []string{"on n1\r\nquit\r\n", "status n[1-3]\n", "exprange\n\n", "on n[1-999999999]\n", "off n3\x00\n", "on \xff\xfe\n"} {
		f.Add(seed)
	}
	line := regexp.MustCompile(`^(?:powerman> )?[0-3][0-9][0-9] [^\r\n]+$`)
	f.Fuzz(func(t *testing.T, input string) {
		var out strings.Builder
		if err := Converse(t.Context(), strings.NewReader(input), &out, "peer", config(&fleet{})); err != nil {
			t.Fatal(err)
		}
		text, last := strings.CutSuffix(out.String(), prompt)
		if !last && !strings.HasSuffix(text, goodbye+"\r\n") {
			t.Fatalf("%q ends with neither a prompt nor a goodbye", out.String())
		}
		answers := 0
		for one := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\n") {
			if !line.MatchString(one) {
				t.Fatalf("%q in the answer to %q", one, input)
			}
			if code := strings.TrimPrefix(one, prompt)[0]; code == '1' || code == '2' {
				answers++
			}
		}
		if most := strings.Count(input, "\n"); answers > most || last && answers != most {
			t.Fatalf("%d answers to %q", answers, input)
		}
	})
}
