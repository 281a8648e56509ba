package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// AuditEntry is one line of the audit log.
type AuditEntry struct {
	ID int64 `json:"id"` // grows in the order in which entries became durable
	// At is when central wrote it down. HappenedAt is when it happened, which is earlier
	// for what a rack told of later, by that rack's clock; zero in what is given to the
	// store: at the same time.
	At         time.Time `json:"at"`
	HappenedAt time.Time `json:"happened_at,omitzero"`
	Who        string    `json:"who"`
	What       string    `json:"what"` // asked, accepted, started, ended, status, hold, drift, fault, brake, ...
	Node       string    `json:"node,omitempty"`
	Op         string    `json:"op,omitempty"`
	Why        string    `json:"why,omitempty"`
	Outcome    string    `json:"outcome,omitempty"`
	Detail     string    `json:"detail,omitempty"`
	// Via is how who asked was authenticated (socket, certificate, token), Address where
	// from; both empty for what central, a schedule or an agent did.
	Via     string `json:"via,omitempty"`
	Address string `json:"address,omitempty"`
	// Hash is what Sum makes of the entry and of Before, the hash of the entry before it;
	// both are empty for entries of before there were hashes.
	Before string `json:"before,omitempty"`
	Hash   string `json:"hash,omitempty"`
}

// Sum is the SHA-256, in hex, of the hash of the entry before and of the other fields, in
// the order and as the texts in which JSON has them, "" for those that are left out; each
// as a netstring: its length in bytes, a colon, the text and a comma.
func (e AuditEntry) Sum(before string) string {
	if e.HappenedAt.IsZero() {
		e.HappenedAt = e.At
	}
	text := make([]byte, 0, 512)
	for _, field := range []string{
		before, strconv.FormatInt(e.ID, 10), timeText(e.At), timeText(e.HappenedAt), e.Who, e.What, e.Node, e.Op, e.Why, e.Outcome, e.Detail,
		e.Via, e.Address,
	} {
		text = strconv.AppendInt(text, int64(len(field)), 10)
		text = append(text, ':')
		text = append(text, field...)
		text = append(text, ',')
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// AuditCheck is what a check of the audit log found.
type AuditCheck struct {
	Entries int   `json:"entries"` // that fit, from First to Last
	First   int64 `json:"first,omitempty"`
	Last    int64 `json:"last,omitempty"`
	// Head is the hash of Last.
	Head string `json:"head,omitempty"`
	// Unhashed counts the entries of before there were hashes.
	Unhashed int `json:"unhashed,omitempty"`
	// Wanted is the hash that was looked for, such as the Head of an earlier check, "" for
	// none; Found says that it is among those of the entries that fit.
	Wanted string `json:"wanted,omitempty"`
	Found  bool   `json:"found,omitempty"`
	// Wrong is the first entry that does not fit, 0 for none, and Why says how.
	Wrong int64  `json:"wrong,omitempty"`
	Why   string `json:"why,omitempty"`
}

// Add holds the next entry against those before it, and reports whether it fits.
func (c *AuditCheck) Add(e AuditEntry, before string) bool {
	switch {
	case e.ID <= c.Last:
		c.Why = fmt.Sprintf("it stands behind entry %d", c.Last)
	case e.Hash == "":
		c.Why = "it has no hash"
	case e.Before != before && e.Before != "" && e.Hash == e.Sum(e.Before):
		c.Why = fmt.Sprintf("entries between %d and it are missing; an export by a user with a scope leaves out what is beyond it, and cannot "+
			"be checked", c.Last)
	case e.Hash != e.Sum(before):
		c.Why = "its hash is not that of what it says and of the entry before it"
		if c.Last > 0 {
			c.Why = fmt.Sprintf("its hash is not that of what it says and of entry %d before it", c.Last)
		}
	default:
		if c.Entries++; c.First == 0 {
			c.First = e.ID
		}
		c.Last, c.Head = e.ID, e.Hash
		c.Found = c.Found || e.Hash == c.Wanted
		return true
	}
	c.Wrong = e.ID
	return false
}

// OK reports whether all is as it was written, as far as hashes can show.
func (c AuditCheck) OK() bool { return c.Wrong == 0 && (c.Wanted == "" || c.Found) }

// String says what was found in a sentence.
func (c AuditCheck) String() string {
	text := "no entries with hashes"
	switch {
	case c.Wrong != 0:
		text = fmt.Sprintf("entry %d does not fit: %s; %d entries before it are unchanged", c.Wrong, c.Why, c.Entries)
	case c.Entries > 0:
		text = fmt.Sprintf("%d entries from %d to %d are unchanged; head %s", c.Entries, c.First, c.Last, c.Head)
	}
	if c.Wanted != "" && !c.Found {
		text += "; no entry has the hash " + c.Wanted
	}
	if c.Unhashed > 0 {
		text += fmt.Sprintf("; %d of before there were hashes cannot be checked", c.Unhashed)
	}
	return text
}

// AuditQuery is a question to the audit log; its zero value asks for the newest entries of
// all kinds.
type AuditQuery struct {
	Nodes        string // a NODES expression; "": of all, and those that speak of no node
	Who, What    string // "": all
	Since, Until time.Time
	Limit        int   // 0: as many as central gives
	Before       int64 // only entries before the one with this id; 0: all
}

// MaxAuditPage is how many entries one answer of central has at most.
const MaxAuditPage = 5000

func (q AuditQuery) values() url.Values {
	v := url.Values{}
	for key, text := range map[string]string{"select": q.Nodes, "who": q.Who, "what": q.What} {
		if text != "" {
			v.Set(key, text)
		}
	}
	for key, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			v.Set(key, timeText(at))
		}
	}
	if q.Before > 0 {
		v.Set("before", strconv.FormatInt(q.Before, 10))
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}
