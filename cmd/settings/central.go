package settings

import (
	"path/filepath"
	"strings"
)

// CheckCentral refuses an address of central that anybody on the way, or on this
// machine, may put himself behind: passwords of BMCs go there.
func CheckCentral(target string) error {
	if strings.HasPrefix(strings.ToLower(target), "http://") {
		return Usage("--central: %s is not encrypted, and any program may take its port: use unix:///run/rackpower/central.sock on the "+
			"machine of central, https:// from others", target)
	}
	return nil
}

// SocketURL is the address of a socket whose path may begin in the working directory.
func SocketURL(path string) string {
	path = strings.TrimPrefix(path, "unix://")
	if path == "" || strings.Contains(path, "://") {
		return path
	}
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return "unix://" + path
}
