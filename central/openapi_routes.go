package central

import "encoding/json"

// described says of each route what it does, which query parameters it has, and, where it has a
// body, an example of one. The examples are played one after the other by a test, which wants one
// of each. What stands in capitals in them comes with an answer before.
var described = map[string]struct {
	summary string
	query   []string
	example string
}{
	"GET /v1/nodes":       {"the nodes with their power, as it is and as it should be", []string{"select"}, ``},
	"GET /v1/nodes/alike": {"the nodes, those together of which the same is to be said of their power", []string{"select"}, ``},
	"POST /v1/nodes": {
		"adds nodes, or updates them; all or none", nil,
		`{"nodes": [{"name": "n9", "rack": "r1", "bmc": "ipmi://admin@192.0.2.9", "password": "secret"}]}`,
	},
	"POST /v1/nodes/remove": {"removes nodes; all or none", nil, `{"names": ["n9"], "reason": "sold"}`},
	"POST /v1/nodes/status": {
		"gives nodes a status, from which follows what power they should have", nil,
		`{"names": ["n1"], "status": "READY", "reason": "tested"}`,
	},
	"POST /v1/nodes/hold": {
		"sets holds, which stand over the status, or releases them", nil,
		`{"names": ["n1"], "want": "on", "for": 3600000000000, "reason": "a look at the fans"}`,
	},
	"POST /v1/nodes/protect": {
		"protects nodes from losing power, or no longer", nil,
		`{"names": ["n2"], "reason": "runs the licence server"}`,
	},
	"POST /v1/nodes/retry":         {"has nodes tried again that are left alone after faults", nil, `{"names": ["n1"]}`},
	"GET /v1/nodes/{name}/explain": {"why a node is as it is, as its agent knows it", nil, ``},
	"GET /v1/nodes/export":         {"all nodes as they can be added again, without passwords", nil, ``},
	"POST /v1/ops": {
		"asks for operations, one a node; each may be sent again with the same id", nil,
		`{"ops": [{"id": "019350e0-0000-7000-8000-000000000001", "node": "n1", "action": "on", "reason": "needed"}]}`,
	},
	"POST /v1/ops/query":       {"finds operations; with after_rev and wait a long poll", nil, `{"nodes": ["n1"], "limit": 10}`},
	"POST /v1/ops/{id}/cancel": {"asks for an operation to be cancelled", nil, `{"reason": "a mistake"}`},
	"POST /v1/plans": {
		"what a change would do, node by node; nothing is changed", nil,
		`{"id": "019350e0-0000-7000-8000-000000000002", "status": {"names": ["n1"], "status": "RESERVED"}}`,
	},
	"GET /v1/plans/{id}":        {"a plan", nil, ``},
	"POST /v1/plans/{id}/apply": {"makes a planned change, if it does what was shown", nil, `{}`},
	"GET /v1/approvals":         {"the plans that await an approval", nil, ``},
	"POST /v1/approvals/{id}": {
		"approves a plan, which makes the change, or denies it", nil,
		`{"deny": true, "reason": "not today"}`,
	},
	"GET /v1/policy": {"when a second person has to approve", nil, ``},
	"POST /v1/policy": {
		"sets when a second person has to approve", nil,
		`{"approve_above": 50, "approval_lasts": 7200000000000, "reason": "agreed on Monday"}`,
	},
	"POST /v1/reads": {"has nodes read now, and waits for the readings", nil, `{"names": ["n1"], "wait": 1}`},
	"POST /v1/power": {"reads what nodes consume", nil, `{"names": ["n1"], "wait": 1}`},
	"POST /v1/tests": {"logs in to BMCs once, and waits for what they answer", nil, `{"names": ["n1"], "wait": 1}`},
	"GET /v1/racks": {
		"the racks with the settings and the state of their monitors; with select those of the nodes", []string{"select"}, ``,
	},
	"POST /v1/racks/{name}": {"changes settings of a rack", nil, `{"brake_percent": 20, "reason": "a small rack"}`},
	"POST /v1/racks/{name}/pause": {
		"has the monitor of a rack rest, or go on", nil,
		`{"for": 600000000000, "reason": "work on the feed"}`,
	},
	"POST /v1/pause":          {"has the monitors of all racks rest, or go on", nil, `{"resume": true}`},
	"GET /v1/site":            {"what the monitors wait for since the database was restored", nil, ``},
	"POST /v1/site/confirm":   {"has the monitors go on after a restore", nil, `{"shown": "0123456789abcdef", "reason": "as it should be"}`},
	"GET /v1/brakes":          {"the fleet brakes that hold", nil, ``},
	"POST /v1/brakes/release": {"releases fleet brakes", nil, `{"racks": ["r1"], "reason": "the switch is back"}`},
	"GET /v1/domains":         {"the power domains and their limits", nil, ``},
	"POST /v1/domains": {
		"sets the limits of a power domain, or removes them", nil,
		`{"name": "feed-a", "rate": 2, "concurrent": 10}`,
	},
	"GET /v1/schedules": {"the schedules", nil, ``},
	"POST /v1/schedules": {
		"adds a schedule, or replaces one", nil,
		`{"name": "morning", "cron": "0 7 * * 1-5", "nodes": "n1", "want": "on", "reason": "lessons"}`,
	},
	"POST /v1/schedules/remove":     {"removes a schedule", nil, `{"name": "morning"}`},
	"GET /v1/schedules/next":        {"the next runs of schedules", []string{"name", "count"}, ``},
	"GET /v1/attention":             {"all that wants a person", nil, ``},
	"GET /v1/agents":                {"the agents", nil, ``},
	"POST /v1/agents/{name}/forget": {"ends what was with an agent that is gone", nil, `{"reason": "the rack was sold"}`},
	"POST /v1/agents/{name}/drain":  {"has an agent without nodes that others can reach, or given nodes again", nil, `{"reason": "a new disk"}`},
	"POST /v1/agents/{name}/ack":    {"acknowledges alarms of an agent", nil, `{"kind": "journal-lost", "reason": "the disk was changed"}`},
	"GET /v1/members":               {"the gossip cluster as central sees it", nil, ``},
	"GET /v1/peers":                 {"the power of the fleet as gossip knows it", nil, ``},
	"POST /v1/gossip/ping":          {"asks members for a sign of life", nil, `{"name": "r1"}`},
	"GET /v1/gossip/who":            {"which members reach the BMC of a node", []string{"node"}, ``},
	"GET /v1/gossip/keys":           {"the keys of the gossip", nil, ``},
	"POST /v1/gossip/keys":          {"changes the keys of the gossip", nil, `{"action": "use", "id": "0badcafe"}`},
	"GET /v1/audit": {
		"entries of the audit log; with after and wait a long poll",
		[]string{"select", "who", "what", "since", "until", "limit", "before", "after", "wait"},
		``,
	},
	"GET /v1/audit/verify": {"checks the hashes of the audit log", []string{"head"}, ``},
	"GET /v1/watch": {
		"server-sent events: entries of the audit log, and nodes that changed",
		[]string{"nodes", "kinds", "after"},
		``,
	},
	"GET /v1/info": {"about this central", nil, ``},
	"GET /metrics": {"numbers for Prometheus", nil, ``},
	"GET /debug/pprof/{name}": {
		"a profile of this process, for go tool pprof: profile, heap, allocs, goroutine, threadcreate; or a trace",
		[]string{"seconds", "debug", "gc"},
		``,
	},
	"GET /v1/whoami": {"who asks, as central knows it", nil, ``},
	"GET /v1/users":  {"the users", nil, ``},
	"POST /v1/users": {
		"adds a user, or changes one; the answer has the token, once", nil,
		`{"name": "vera", "role": "viewer"}`,
	},
	"POST /v1/users/{name}/rotate":       {"revokes tokens and certificates of a user, and makes a new token", nil, `{"reason": "lost"}`},
	"POST /v1/users/{name}/certificate":  {"makes a client certificate for a user", nil, `{"request": "` + exampleRequest + `"}`},
	"POST /v1/users/{name}/remove":       {"removes a user", nil, `{"reason": "has left"}`},
	"GET /v1/credentials":                {"the credentials that nodes may name, without passwords", nil, ``},
	"POST /v1/credentials/{name}":        {"adds credentials, or replaces them", nil, `{"user": "admin", "password": "secret"}`},
	"POST /v1/credentials/{name}/rotate": {"has others take their place, BMC by BMC", nil, `{"user": "admin", "password": "another"}`},
	"POST /v1/credentials/{name}/remove": {"removes credentials that no node names", nil, `{}`},
	"POST /v1/agents/{name}/token":       {"a token that enrols an agent once", nil, `{"ttl": 3600000000000}`},
	"POST /v1/agents/{name}/revoke":      {"the certificate of an agent holds no longer", nil, `{"reason": "the disk was stolen"}`},
	"POST /v1/seal/rotate":               {"another key seals the passwords; on the socket only", nil, `{}`},
	"GET /v1/ca":                         {"the CA of the site", nil, ``},
	"POST /v1/join":                      {"enrols an agent that has a token", nil, `{"agent": "r1", "secret": "SECRET", "request": "` + exampleRequest + `"}`},
	"POST /v1/agents/{name}/renew":       {"the next certificate of an agent", nil, `{"request": "` + exampleRequest + `"}`},
	"POST /v1/agents/{name}/enrol":       {"what an agent needs to gossip", nil, `{}`},
	"POST /v1/agents/{name}/hello": {
		"begins a session of an agent", nil,
		`{"protocol": 2, "version": "1.0.0", "journal_id": "f3b1", "epoch": 1, "lsn": 7, "outstanding": [], "seq": "0"}`,
	},
	"POST /v1/agents/{name}/poll": {
		"a long poll for what changed for an agent", nil,
		`{"session": "SESSION", "rev": 0, "ops": 0, "seq": "0", "wait": 0}`,
	},
	"POST /v1/agents/{name}/report": {
		"ends, phases and readings", nil,
		`{"session": "SESSION", "journal_id": "f3b1", "epoch": 1, "lsn": 7, "seq": "0", "readings": [
			{"node": "n1", "state": "on", "reach": "ok", "observed_at": "2026-11-26T16:00:00Z", "tried_at": "2026-11-26T16:00:00Z"}]}`,
	},
	"POST /v1/agents/{name}/goodbye": {"ends a session of an agent", nil, `{"session": "SESSION"}`},
	"GET /v1/openapi.json":           {"this description", nil, ``},
	"GET /docs":                      {"this description as a page", nil, ``},
}

// exampleRequest is a signing request in PEM.
const exampleRequest = `-----BEGIN CERTIFICATE REQUEST-----\nMIHLMHQCAQAwEjEQMA4GA1UEAwwHZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49\nAwEHA0IABFLbSeN0Rfr+FJafL38rJgO5tQ34tCrFktg3nZ+n20KUerLt06tWSXyP\nCPvDBQYIoD9twrjZ/0xt2FSC/du4B5qgADAKBggqhkjOPQQDAgNHADBEAiAUFRFd\nB4OkItQpFHjG4az/u4QZtQRWPxC4TXSkbICvOQIgIehc5x7dDUwFnPyh8ZAKSzGP\nP4yq6nYTkVTThIEwGyE=\n-----END CERTIFICATE REQUEST-----\n`

// queries says what query parameters mean, with an example; "": what central itself has named.
var queries = map[string]struct{ meaning, example string }{
	"select":  {"NODES: which ones; all without it", "n1"},
	"nodes":   {"NODES: which ones; all, and what concerns no node, without it", "n1"},
	"kinds":   {"audit, node, or both with a comma between: which events", "audit"},
	"after":   {"go on behind it: of watch the id of an event, of the audit log that of an entry", "1"},
	"wait":    {"for how long to wait for something new, such as 30s; with after", "1ms"},
	"limit":   {"how many at most; the header Link names the next page (rel=next)", "1"},
	"page":    {"where to go on, as the header Link of the page before says", "bjE"},
	"before":  {"only entries before the one with this id", "1000"},
	"who":     {"only what this user did, or had done in its name", "root"},
	"what":    {"only entries that say this happened", "node-add"},
	"since":   {"only entries written at or after this time (RFC 3339)", "2026-11-26T16:00:00Z"},
	"until":   {"only entries written before this time (RFC 3339)", "2026-11-26T16:00:00Z"},
	"seconds": {"for how long to record, up to 60", "1"},
	"debug":   {"0: for go tool pprof; 1 or 2: as text", "0"},
	"gc":      {"1: free what is not used before", "1"},
	"head":    {"a hash that must be among the entries", ""},
	"name":    {"of which schedule; of all without it", "morning"},
	"count":   {"how many runs of each", "3"},
	"node":    {"of which node", "n1"},
}

// rawJSON is an example as it stands in the description.
func rawJSON(text string) json.RawMessage { return json.RawMessage(text) }
