package settings

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestALogThatNobodyReadsHoldsNobodyUp has the reader of a pipe halt.
func TestALogThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read, write := io.Pipe()
		w := newLogWriter(write, func(n int) { fmt.Fprintf(write, "%d are missing\n", n) })
		defer write.Close()
		defer close(w.lines)
		began := time.Now()
		const lines = 2 * logKept
		for i := range lines {
			if n, err := fmt.Fprintf(w, "line %d\n", i); err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if took := time.Since(began); took != logPatience {
			t.Errorf("%d lines took %s", lines, took)
		}
		var got bytes.Buffer
		go func() { _, _ = io.Copy(&got, read) }()
		synctest.Wait()
		// What is written is written when Write returns, from here on again.
		fmt.Fprint(w, "the last\n")
		synctest.Wait()
		text := got.String()
		missing := lines - logKept - 1
		if !strings.HasPrefix(text, "line 0\nline 1\n") || !strings.HasSuffix(text, fmt.Sprintf("%d are missing\nthe last\n", missing)) {
			t.Errorf("%d bytes, %q", len(text), text[max(0, len(text)-200):])
		}
		if took := time.Since(began); took != logPatience {
			t.Errorf("the rest took %s", took-logPatience)
		}
	})
}
