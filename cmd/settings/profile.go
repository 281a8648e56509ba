package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rackpower/central/auth"
)

// DefaultProfile is the profile of who names none.
const DefaultProfile = "default"

// Profile is what rackpower login keeps of a central: where it is, how it is known, and the
// token of the user or what rackpower user cert put in its place.
type Profile struct {
	Name  string `json:"-"`
	URL   string `json:"url"`
	CA    string `json:"ca,omitempty"` // PEM; "": the CAs of this machine
	Token string `json:"token,omitempty"`
	User  string `json:"user,omitempty"`

	// Certificate and Key, in PEM, are used instead of the token.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
}

// errNoHome is that nobody keeps profiles here, as for a service.
var errNoHome = errors.New("there is no directory for profiles: neither HOME nor XDG_CONFIG_HOME is set")

// profilePath is the file of a profile.
func profilePath(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "/\\") || strings.HasPrefix(name, ".") {
		return "", Usage("--profile: %q is no name of a profile", name)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", errNoHome
	}
	return filepath.Join(dir, "rackpower", "profiles", name+".json"), nil
}

// LoadProfile reads a profile; found is false when there is none of that name.
func LoadProfile(name string) (p Profile, found bool, err error) {
	path, err := profilePath(name)
	if errors.Is(err, errNoHome) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) && name == DefaultProfile { // another user's home
		return p, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return p, false, Exit(ExitUsage, "cannot read profile %s (%s): %v; log in again", name, path, err)
	}
	p.Name = name
	return p, true, nil
}

// Save writes a profile, for its user alone.
func (p Profile) Save() (path string, err error) {
	if path, err = profilePath(p.Name); err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("cannot keep the profile: %w", err)
	}
	return path, auth.WriteFile(path, append(text, '\n'), 0o600)
}

// RemoveProfile removes a profile; found is false when there was none.
func RemoveProfile(name string) (found bool, err error) {
	path, err := profilePath(name)
	if err != nil {
		return false, err
	}
	err = os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
