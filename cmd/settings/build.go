package settings

import (
	"cmp"
	"runtime"
	"runtime/debug"
)

// commit and date are set by the linker: what the program was built from, and when that was
// committed (RFC 3339, UTC). Without, what Go noted is taken.
var commit, date string

// Build says what a program was built from and by.
type Build struct {
	Commit string `json:"commit,omitempty"`
	Date   string `json:"date,omitempty"` // of the commit
	Go     string `json:"go"`
}

// ThisBuild is that of this program.
func ThisBuild() Build {
	noted := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			noted[s.Key] = s.Value
		}
	}
	return Build{Commit: cmp.Or(commit, noted["vcs.revision"]), Date: cmp.Or(date, noted["vcs.time"]), Go: runtime.Version()}
}
