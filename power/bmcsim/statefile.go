package bmcsim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"rackpower/power"
)

// stateRecord is one line of the state file; the last line of a BMC counts.
type stateRecord struct {
	BMC   string      `json:"bmc"`
	State power.State `json:"state"`
}

// openState reads the state file at path and opens it for what follows, each
// known BMC on one line. Lines that cannot be read are skipped: a process that
// was killed may have left one.
func openState(path string) (map[string]power.State, *logFile, error) {
	if path == "" {
		return nil, nil, nil
	}
	known, err := readState(path)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the power states: %w", err)
	}
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot rewrite the power states: %w", err)
	}
	f, err := openForAppend(tmp)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot rewrite the power states: %w", err)
	}
	if err = writeStates(f, known); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, fmt.Errorf("cannot rewrite the power states: %w", err)
	}
	return known, &logFile{f: f}, nil
}

func readState(path string) (map[string]power.State, error) {
	known := map[string]power.State{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r stateRecord
		if json.Unmarshal(lines.Bytes(), &r) == nil && (r.State == power.On || r.State == power.Off) {
			known[r.BMC] = r.State
		}
	}
	return known, lines.Err()
}

func writeStates(f *os.File, known map[string]power.State) error {
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for name, s := range known {
		if err := enc.Encode(stateRecord{BMC: name, State: s}); err != nil {
			return err
		}
	}
	return w.Flush()
}
