package web

import "testing"

func TestTimesInTextsAreTagged(t *testing.T) {
	const tagged = `<time datetime="2026-03-01T12:00:02Z">2026-03-01 12:00:02 UTC</time>`
	for text, want := range map[string]string{
		"":                        "",
		"off & <b>":               "off &amp; &lt;b&gt;",
		"2026-03-01T12:00:02Z":    tagged,
		"2026-03-01T12:00:02.75Z": tagged,
		"<i> since 2026-03-01T12:00:02Z, until 2026-03-01T12:00:02Z.": "&lt;i&gt; since " + tagged + ", until " + tagged + ".",
		"2026-02-32T12:00:00Z is none, \"x\"":                         "2026-02-32T12:00:00Z is none, &#34;x&#34;",
	} {
		if got := string(textTags(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
