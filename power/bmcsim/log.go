package bmcsim

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"rackpower/power"
)

// Words in an Entry beside those of power.Command. The commands arrive over the
// network; the events happen to the node.
const (
	CommandCycle     = "power-cycle" // chassis control "power cycle"
	CommandSoftReset = "soft-reset"  // a Reset "GracefulRestart": the system restarts itself

	EventOn      = "went-on"      // the node is on from now
	EventOff     = "went-off"     // the node is off from now
	EventButton  = "button"       // SetPower was called
	EventRestart = "bmc-restart"  // the BMC began to restart
	EventExpired = "boot-expired" // no chassis command within a minute of the boot device
	// "set-boot pxe" is a command, "booted pxe" an event; likewise the other devices.
)

// Entry is one thing that happened at a BMC.
type Entry struct {
	Time    time.Time `json:"time"`
	BMC     string    `json:"bmc"`
	Addr    string    `json:"addr"`
	Command string    `json:"command"` // as power.Command, "power-cycle", "set-boot pxe", or an event
	Event   bool      `json:"event,omitempty"`
	// Before is the power when the entry was made, After what it will be once
	// everything accepted so far has taken effect.
	Before power.State `json:"before"`
	After  power.State `json:"after"`
	// Source is the session and the address a command came from, "node" or
	// "button" for events.
	Source string `json:"source"`
	// Code is the completion code answered; when it is not zero the command was
	// not executed.
	Code byte `json:"code,omitempty"`
	// ResetType is the type of a Reset that came by Redfish.
	ResetType string `json:"reset_type,omitempty"`
}

// logFile appends entries to a file, one write each, so that what was written
// survives the end of the process whatever ends it. The nil logFile drops them.
type logFile struct {
	mu sync.Mutex
	f  *os.File
}

func openLog(path string) (*logFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := openForAppend(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log of commands: %w", err)
	}
	return &logFile{f: f}, nil
}

// openForAppend opens a file of lines and completes a torn last line.
func openForAppend(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, size-1); err == nil && last[0] != '\n' {
			_, err = f.Write([]byte("\n"))
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (l *logFile) append(v any) error {
	if l == nil {
		return nil
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.f.Write(append(line, '\n'))
	return err
}

func (l *logFile) close() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}
