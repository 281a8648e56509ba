package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"rackpower/power"
)

// Site is the answer of GET /v1/site.
type Site struct {
	// Restored is when the database was restored last, and Of the time of the newest entry of
	// the audit log that it had then; zero: never.
	Restored time.Time `json:"restored,omitzero"`
	Of       time.Time `json:"of,omitzero"`
	// The monitors of these racks correct nothing. Untold are those whose agents have not told
	// what they enforced before the restore. Undecided ones have, and go on by themselves where
	// little changes, once the other agents have told or are known to be away. Waits are those that
	// wait for a person, and Silent those of them whose agents are of an older version that tells
	// nothing: what changes there is not known.
	Untold      []string     `json:"untold,omitempty"`
	Undecided   []string     `json:"undecided,omitempty"`
	Waits       []string     `json:"waits,omitempty"`
	Silent      []string     `json:"silent,omitempty"`
	Differences []Difference `json:"differences,omitempty"`
}

// Difference is a node of which something else is desired since the restore.
type Difference struct {
	Node  string `json:"node"`
	Agent string `json:"agent"` // that has told of the node, or has it now
	// Was is what the agent enforced, and Is what it will, with where that comes from; nil: nothing
	// was, or the node is not known any more and its agent goes on with it as it was.
	Was     *power.Desired `json:"was,omitempty"`
	WasFrom string         `json:"was_from,omitempty"`
	Is      *power.Desired `json:"is,omitempty"`
	IsFrom  string         `json:"is_from,omitempty"`
	// To is the agent that has the node now, where that is another one.
	To    string      `json:"to,omitempty"`
	State power.State `json:"state,omitempty"` // as central knows it
}

// Acts reports whether the monitor would act on the node otherwise than before.
func (d Difference) Acts() bool { return d.Is != nil && d.Is.Enforces() }

// Token names what a person was shown.
func (s Site) Token() string {
	shown := slices.Clone(s.Differences)
	for i := range shown {
		shown[i].State = "" // it may change while they read
	}
	text, err := json.Marshal([]any{s.Restored, s.Waits, shown})
	if err != nil {
		panic(err) // there is nothing in it that has no JSON
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// ConfirmSite is the body of POST /v1/site/confirm: the monitors of the racks that wait go on,
// with what the restored database desires.
type ConfirmSite struct {
	// Shown is Site.Token of what the person was shown: when something else differs by now,
	// nothing is done.
	Shown   string `json:"shown"`
	AskedBy string `json:"asked_by,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Validate checks a confirmation.
func (in ConfirmSite) Validate() error {
	if in.Shown == "" {
		return errors.New("it is not said which differences were shown")
	}
	return CheckTexts(in.AskedBy, in.Reason)
}
