package settings

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rackpower/central/auth"
)

// DefaultProfile is the profile of who names none and chose none.
const DefaultProfile = "default"

// CurrentProfile is the profile of who names none: the one that was chosen last.
func CurrentProfile() string {
	path, err := chosenPath()
	if err != nil {
		return DefaultProfile
	}
	text, err := os.ReadFile(path)
	name := strings.TrimSpace(string(text))
	if _, wrong := profilePath(name); err != nil || wrong != nil {
		return DefaultProfile
	}
	return name
}

// UseProfile chooses the profile of who names none.
func UseProfile(name string) error {
	path, err := chosenPath()
	if err != nil {
		return err
	}
	if _, found, err := LoadProfile(name); err != nil || !found {
		return cmp.Or(err, Usage("there is no profile %s: rackpower login URL --profile %s", name, name))
	}
	return auth.WriteFile(path, []byte(name+"\n"), 0o600)
}

// chosenPath is the file that names the chosen profile.
func chosenPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", errNoHome
	}
	return filepath.Join(dir, "rackpower", "profile"), nil
}

// Profiles names the profiles that there are.
func Profiles() ([]string, error) {
	path, err := profilePath(DefaultProfile)
	if errors.Is(err, errNoHome) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, f := range files {
		if name, is := strings.CutSuffix(f.Name(), ".json"); is && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names, nil
}

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
	if chosen, bad := chosenPath(); bad == nil && CurrentProfile() == name {
		_ = os.Remove(chosen) // which there need not be
	}
	err = os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
