package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// network is central, agents and people on hosts of their own, which speak TLS. Who asks from
// outside is openssl, curl and Python, which know nothing of rackpower.
type network struct {
	*site
	*hosts
	asked int // from addresses of the host "people" so far
}

const (
	netCentral = hostsNet + ".1"
	netAgent   = hostsNet + ".11"
	netTwin    = hostsNet + ".12"
	netPeople  = hostsNet + ".21"
	netSim     = hostsNet + ".31"
	netPort    = ":7620"
)

func newNetwork(t *testing.T, tools ...string) *network {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: clients from outside: %v (Debian: %s)", err, tool)
		}
	}
	n := &network{hosts: newHosts(t), site: siteIn(t, t.TempDir())}
	t.Cleanup(func() { n.site.stop() })
	n.add("central", netCentral)
	n.add("r1", netAgent)
	n.add("people", netPeople)
	return n
}

// as runs a line of the README on a host, as somebody with a home of their own.
func (n *network) as(host, who, line string) (stdout, stderr string, exit int) {
	n.site.t.Helper()
	ctx, cancel := context.WithTimeout(n.site.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", n.in(host, "sh", "-c", line)...)
	cmd.Dir = n.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(n.cli)+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+filepath.Join(n.dir, who))
	if host == "central" {
		cmd.Env = append(cmd.Env, "RACKPOWER_CENTRAL=unix://"+n.socket())
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exitErr *exec.ExitError
	if err != nil && !errors.As(err, &exitErr) {
		n.site.t.Fatalf("%s: %v", line, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (n *network) must(host, who, line string) string {
	n.site.t.Helper()
	out, errs, exit := n.as(host, who, line)
	if exit != 0 {
		n.site.t.Fatalf("%s: exit status %d\n%s%s", line, exit, out, errs)
	}
	return out
}

// readme is a command of the README, which must be there as it is, with the names of this
// network in place of its own.
func (n *network) readme(line string, names ...string) string {
	n.site.t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		n.site.t.Fatal(err)
	}
	if !strings.Contains(string(text), line+"\n") {
		n.site.t.Fatalf("the README does not say %q", line)
	}
	line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
	return strings.NewReplacer(append(names, "central.example:7620", netCentral+netPort)...).Replace(line)
}

// config writes a file of settings, of lines of the README and others.
func (n *network) config(name string, lines ...string) string {
	n.site.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		n.site.t.Fatal(err)
	}
	return path
}

// serveTLS starts central with the README's lines.
func (n *network) serveTLS() {
	n.site.t.Helper()
	path := n.config("central.yaml", "data: "+filepath.Join(n.dir, "central"), "socket: "+n.socket(), "gossip: "+netCentral+":7947",
		n.readme("    listen: 10.0.0.5:7620", "10.0.0.5", netCentral),
		"tls-name: ["+netCentral+"]")
	n.spawn("central", "ip", n.in("central", n.serve, "serve", "--config", path)...)
	n.until(20*time.Second, "central answers", func() bool { _, err := n.client.Info(n.site.t.Context()); return err == nil })
}

// startTLS starts an agent on a host with the README's lines.
func (n *network) startTLS(host, name, addr string) {
	n.site.t.Helper()
	path := n.config(name+".yaml", "name: r1", "data: "+filepath.Join(n.dir, name), "socket: "+n.agentSocket(name), "gossip: "+addr+":7946",
		"monitor: \"@every 1s\"", n.readme("    central: https://central.example:7620"),
		n.readme("    token-file: /etc/rackpower/r1.token", "/etc/rackpower", n.dir))
	n.spawn(name, "ip", n.in(host, n.cli, "agent", "--config", path)...)
}

// commands is the file in which the simulator has all commands that came to its BMCs.
func (n *network) commands() string { return filepath.Join(n.dir, "commands") }

// firstPowerOn is the way from nothing to a first power-on, by the commands of the README.
func (n *network) firstPowerOn(sim string) {
	t := n.site.t
	t.Helper()
	n.serveTLS()
	n.must("central", "root", n.readme("$ rackpower agents token r1 > r1.token"))
	hash := strings.TrimSpace(n.must("central", "root", n.readme("$ rackpower-central ca")+" --data central"))
	n.startTLS("r1", "r1", netAgent)
	added := n.must("central", "root", n.readme("$ rackpower user add alice --role operator --nodes @r1"))
	token := regexp.MustCompile(`rpt_\S+`).FindString(added)
	if err := os.WriteFile(filepath.Join(n.dir, "alice.token"), []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.dir, "pw"), []byte("made-up\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.spawn("sim", "ip", n.in("r1", n.cli, "sim", "--count", "2", "--listen", sim, "--on-after", "100ms", "--off-after", "100ms",
		"--same-address", "--password-file", filepath.Join(n.dir, "pw"), "--log", n.commands())...)
	for i := range 2 {
		n.must("central", "root", n.readme("    rackpower node add r1n01 --rack r1 --bmc ipmi://admin@10.0.1.1 --password-file pw", "r1n01",
			fmt.Sprintf("r1n%d", i+1), "10.0.1.1", fmt.Sprintf("%s:%d", sim, power.DefaultIPMIPort+i)))
	}
	login := n.readme("$ rackpower login https://central.example:7620 --ca-hash sha256:e922bf85[...]", "sha256:e922bf85[...]", hash)
	n.must("people", "alice", strings.Replace(login, "rackpower login", "rackpower login --token-file alice.token", 1))
	out := n.must("people", "alice", n.readme("$ rackpower on r1n[1-2]"))
	if !strings.Contains(out, "r1n[1-2] on") {
		t.Fatalf("%q", out)
	}
}

// outside is what a program from outside got.
type outside struct {
	from string // its address
	text string // all that it printed
}

// from runs a program on the host "people" from an address that nobody has asked from
// before: what is refused is told once a minute for each, and guesses are slowed down.
func (n *network) from(run func(address string) []string) outside {
	n.site.t.Helper()
	n.asked++
	address := fmt.Sprintf("%s.%d", hostsNet, 100+n.asked)
	if err := ipBatch(n.prefix+"people", "addr add "+address+"/24 dev eth0"); err != nil {
		n.site.t.Fatal(err)
	}
	cmd := exec.Command("ip", n.in("people", run(address)...)...)
	cmd.Dir = n.dir
	out, _ := cmd.CombinedOutput() // a refusal is an exit status for some
	return outside{address, string(out)}
}

// curl asks central with curl, which trusts the site's CA.
func (n *network) curl(path string, args ...string) outside {
	n.site.t.Helper()
	return n.from(func(address string) []string {
		return append([]string{
			"curl", "-sS", "-m", "30", "--interface", address, "--cacert", "central/ca.crt", "-H", "Content-Type: application/json",
			"https://" + netCentral + netPort + path,
		}, args...)
	})
}

// posted writes a body to a file, for --data-binary.
func (n *network) posted(name string, body any) string {
	n.site.t.Helper()
	text, err := json.Marshal(body)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, name), text, 0o600)
	}
	if err != nil {
		n.site.t.Fatal(err)
	}
	return "@" + name
}

// refused checks the words, and that the audit log has them with the address.
func (n *network) refused(what string, got outside, words, audited string) {
	t := n.site.t
	t.Helper()
	if !strings.Contains(got.text, words) {
		t.Errorf("%s: it got %q, want %q", what, got.text, words)
	}
	n.until(10*time.Second, "the audit log has "+what+": "+audited, func() bool {
		all, err := n.client.FindAudit(t.Context(), api.AuditQuery{What: "access-refused"})
		return err == nil && slices.ContainsFunc(all, func(e api.AuditEntry) bool {
			return e.Address == got.from && strings.Contains(e.Detail, audited)
		})
	})
}

// enrolled has a rack r9 enrol by openssl and curl alone: r9.key and r9.crt are its identity.
func (n *network) enrolled(name string) (secret, csr string) {
	t := n.site.t
	t.Helper()
	line := strings.TrimSpace(n.must("central", "root", "rackpower agents token "+name))
	e, err := auth.ParseEnrolment(line)
	if err != nil {
		t.Fatal(err)
	}
	csr = n.must("people", "r9", "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "+name+".key -subj /CN="+name)
	got := n.curl("/v1/join", "--data-binary", n.posted("join", api.JoinSite{Agent: name, Secret: e.Secret, Request: csr}))
	var cert api.SiteCertificate
	if err := json.Unmarshal([]byte(got.text), &cert); err != nil || cert.Certificate == "" {
		t.Fatalf("%v: %s", err, got.text)
	}
	if err := os.WriteFile(filepath.Join(n.dir, name+".crt"), []byte(cert.Certificate), 0o600); err != nil {
		t.Fatal(err)
	}
	return e.Secret, csr
}

// TestFromNothingToAPowerOnOverTLS types what the README says, and then tries as openssl, curl
// and Python what must be refused: each with its words, and in the audit log.
func TestFromNothingToAPowerOnOverTLS(t *testing.T) {
	n := newNetwork(t, "openssl", "curl")
	n.firstPowerOn("127.0.20.1") // which is in the agent's network only

	// A hash that is not the CA's.
	wrong := "sha256:" + strings.Repeat("0", 64)
	out, errs, exit := n.as("people", "mallory", "rackpower login https://"+netCentral+netPort+" --token-file alice.token --ca-hash "+wrong)
	if exit == 0 || !strings.Contains(errs, "CA") {
		t.Errorf("login with another hash: %d %q %q", exit, out, errs)
	}
	n.refused("a wrong CA", outside{netPeople, errs}, "", "TLS handshake: remote error: tls: ")

	// What is no TLS 1.3.
	tls12 := n.from(func(a string) []string {
		return []string{"openssl", "s_client", "-tls1_2", "-bind", a + ":0", "-connect", netCentral + netPort}
	})
	n.refused("TLS 1.2", tls12, "protocol version", "TLS handshake: tls: client offered only unsupported versions")
	plain := n.from(func(a string) []string {
		return []string{"curl", "-sS", "--interface", a, "http://" + netCentral + netPort + "/v1/nodes"}
	})
	n.refused("plain HTTP", plain, "Client sent an HTTP request to an HTTPS server", "TLS handshake: client sent an HTTP request")

	// People.
	bearer := func(user, more string) string {
		added := n.must("central", "root", "rackpower user add "+user+" "+more)
		return "Authorization: Bearer " + regexp.MustCompile(`rpt_\S+`).FindString(added)
	}
	viewer, narrow := bearer("vera", "--role viewer"), bearer("ned", "--role operator --nodes @r2")
	on := n.posted("on", api.AskOps{Ops: []api.OpRequest{{ID: "0198c0de-0000-7000-8000-000000000001", Node: "r1n1", Action: power.ActOff}}})
	n.refused("no certificate", n.curl("/v1/nodes"), "who asks is not known: log in (rackpower login)", "GET /v1/nodes: who asks is not known")
	n.refused("a role too low", n.curl("/v1/ops", "-H", viewer, "--data-binary", on), "this needs the role operator, and vera is a viewer",
		"this needs the role operator, and vera is a viewer")
	n.refused("a scope too narrow", n.curl("/v1/ops", "-H", narrow, "--data-binary", on), "ned may see and act on @r2 only, and not on r1n1",
		"POST /v1/ops: not permitted: ned may see and act on @r2 only, and not on r1n1")
	n.refused("a guessed token", n.curl("/v1/nodes", "-H", "Authorization: Bearer "+auth.NewToken()), "the token is not known, or was revoked",
		"the token is not known")
	expired := bearer("eve", "--role viewer --ttl 1ms")
	n.refused("an expired token", n.curl("/v1/nodes", "-H", expired), "the token of eve expired", "the token of eve expired")

	// Enrolment.
	secret, csr := n.enrolled("r9")
	join := func(agent, secret string) outside {
		return n.curl("/v1/join", "--data-binary", n.posted("join", api.JoinSite{Agent: agent, Secret: secret, Request: csr}))
	}
	n.refused("a used token", join("r9", secret), "not known, or was used already", "the enrolment token is not known, or was used already")
	guess := auth.NewEnrolment("r9", wrong).Secret
	n.refused("a guessed enrolment", join("r9", guess), "not known, or was used already", "the enrolment token is not known")
	line := strings.TrimSpace(n.must("central", "root", "rackpower agents token r8 --ttl 1ms"))
	late, err := auth.ParseEnrolment(line)
	if err != nil {
		t.Fatal(err)
	}
	n.refused("an expired enrolment", join("r8", late.Secret), "the enrolment token expired at", "the enrolment token expired at")

	// Certificates.
	r9 := []string{"--cert", "r9.crt", "--key", "r9.key"}
	hello := n.posted("hello", api.Hello{Protocol: api.Protocol, Version: "curl", JournalID: "of-curl", Epoch: 1, LSN: 1})
	asks := func(agent, what, body string, with []string) outside {
		return n.curl("/v1/agents/"+agent+"/"+what, slices.Concat(with, []string{"--data-binary", body})...)
	}
	n.refused("another rack's certificate", asks("r1", "poll", n.posted("poll", api.Poll{}), r9),
		"the certificate is agent r9's, who speaks for itself only", "POST /v1/agents/r1/poll: not permitted: the certificate is agent r9's")
	n.refused("an agent that asks as people do", n.curl("/v1/nodes", r9...), "agent r9 reports on its own nodes",
		"agent r9 reports on its own nodes")
	n.refused("an expired certificate", asks("r9", "hello", hello, n.oldCertificate("r9", csr)), "the certificate expired at 2020-",
		"the certificate expired at 2020-")

	n.foreignReports(r9, hello, asks)

	n.must("central", "root", `rackpower agents revoke r9 --reason "test"`)
	n.refused("a revoked agent", asks("r9", "hello", hello, r9), "the certificate of agent r9 was revoked at", "of agent r9 was revoked at")
	n.python()
	if out := n.must("central", "root", "rackpower audit --what access-refused -o wide"); strings.Count(out, "\n") < 15 {
		t.Errorf("rackpower audit shows less:\n%s", out)
	}
}

// oldCertificate is one of the site's CA that expired long ago.
func (n *network) oldCertificate(name, csr string) []string {
	t := n.site.t
	t.Helper()
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	ca, err := auth.OpenCA(filepath.Join(n.dir, "central"), "default", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := ca.SignAgent(name, []byte(csr), at)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, "old.crt"), cert, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--cert", "old.crt", "--key", name + ".key"}
}

// foreignReports has r9 tell of a node of r1, and tell of its own operation twice.
func (n *network) foreignReports(r9 []string, hello string, asks func(agent, what, body string, with []string) outside) {
	t := n.site.t
	t.Helper()
	n.must("central", "root", "rackpower node add r9n1 --rack r9 --bmc ipmi://admin@192.0.2.9 --password-file pw")
	op, err := n.ask("r9n1", power.ActOn, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := asks("r9", "hello", hello, r9)
	welcome := decodeJSON[api.Welcome](t, got.text)
	poll := asks("r9", "poll", n.posted("poll", api.Poll{Session: welcome.Session}), r9)
	given := decodeJSON[api.Assignment](t, poll.text)
	if len(given.Ops) != 1 || given.Ops[0].ID != op.ID {
		t.Fatalf("%s", poll.text)
	}
	now := time.Now().UTC()
	reading := api.NodeReading{Node: "r1n1", Reading: power.Reading{State: power.Off, Reach: power.ReachOK, ObservedAt: now, TriedAt: now}}
	report := n.posted("report", api.Report{
		Session: welcome.Session, JournalID: "of-curl", Epoch: 1, LSN: 9, SentAt: now,
		Readings: []api.NodeReading{reading},
		Ops: []api.OpReport{{
			Op: given.Ops[0], LSN: 9, Verdict: power.VerdictStart, Phase: api.PhaseEnded, Attempts: 1,
			End: &power.End{Outcome: power.Succeeded, Reason: power.ReasonVerified, State: power.On, At: now, Attempts: 1},
		}},
	})
	state := func() (text string) {
		nodes, err := n.client.Nodes(t.Context(), "all")
		if err != nil {
			t.Fatal(err)
		}
		found, err := n.client.QueryOps(t.Context(), api.QueryOps{IDs: []string{op.ID}})
		if err != nil {
			t.Fatal(err)
		}
		ended, err := n.client.FindAudit(t.Context(), api.AuditQuery{Nodes: "r9n1"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range nodes {
			nodes[i].ObservedAt, nodes[i].TriedAt, nodes[i].Stale, nodes[i].AgentState = nil, nil, false, api.AgentPresence{}
		}
		all, err := json.Marshal([]any{nodes, found.Ops, ended})
		if err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
	before := n.node("r1n1")
	if got := asks("r9", "report", report, r9); strings.Contains(got.text, "code") {
		t.Fatalf("%s", got.text)
	}
	once := state()
	if !strings.Contains(once, `"outcome":"succeeded"`) {
		t.Errorf("the report on its own operation had no effect: %s", once)
	}
	if after := n.node("r1n1"); after.State != before.State || after.State != power.On {
		t.Errorf("r9 says that r1n1 is off, and it is %s", after.State)
	}
	all, err := n.client.FindAudit(t.Context(), api.AuditQuery{Nodes: "r1n1", Who: "agent r9"})
	if err != nil || len(all) != 1 || all[0].Via != string(auth.ByCertificate) {
		t.Errorf("the audit log of the report on r1n1: %+v, %v", all, err)
	}
	_ = asks("r9", "report", report, r9) // the same bytes
	if twice := state(); twice != once {
		t.Errorf("a report that was sent again had an effect:\n%s\n%s", once, twice)
	}
}

func (n *network) node(name string) api.Node {
	n.site.t.Helper()
	nodes, err := n.client.Nodes(n.site.t.Context(), name)
	if err != nil || len(nodes) != 1 {
		n.site.t.Fatalf("%v, %v", nodes, err)
	}
	return nodes[0]
}

// python asks with Python's own TLS, where there is one.
func (n *network) python() {
	t := n.site.t
	t.Helper()
	if err := exec.Command("python3", "-c", "import ssl").Run(); err != nil {
		t.Log("LEFT OUT: a client in Python: no python3 with ssl")
		return
	}
	script := `import ssl, sys, http.client
c = ssl.create_default_context(cafile="central/ca.crt")
h = http.client.HTTPSConnection(sys.argv[2], 7620, context=c, source_address=(sys.argv[1], 0))
h.request("GET", "/v1/nodes")
r = h.getresponse()
print(h.sock.version() if h.sock else "", r.status, r.read().decode())`
	got := n.from(func(a string) []string { return []string{"python3", "-c", script, a, netCentral} })
	n.refused("Python without a login", got, fmt.Sprint(http.StatusUnauthorized), "GET /v1/nodes: who asks is not known")
}

// commandsBy counts the commands of power that came to BMCs, from the n-th on, by the address
// that they came from.
func (n *network) commandsBy(from int) (by map[string]int, all int) {
	t := n.site.t
	t.Helper()
	text, err := os.ReadFile(n.commands())
	if err != nil {
		t.Fatal(err)
	}
	by = map[string]int{}
	for line := range strings.Lines(string(text)) {
		var e bmcsim.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Event || strings.HasPrefix(e.Command, "set-boot") {
			continue
		}
		all++
		for _, address := range []string{netAgent, netTwin} {
			if all > from && strings.Contains(e.Source, address+":") {
				by[address]++
			}
		}
	}
	return by, all
}

// TestACopiedIdentityActsOnce: a second machine with a copy of the agent's data, certificate
// and journal, is found and named, and no BMC gets commands of both: not of what is asked, and
// not of the copy's monitor, which would enforce what was desired when it was copied.
func TestACopiedIdentityActsOnce(t *testing.T) {
	n := newNetwork(t)
	n.add("twin", netTwin)
	n.firstPowerOn(netAgent) // where both reach the BMCs
	n.mustRun("hold", "r1n2", "off", "--reason", "test", "--yes")
	n.until(20*time.Second, "the copy would keep r1n2 off", func() bool { return n.node("r1n2").State == power.Off })
	out, err := exec.Command("cp", "-a", filepath.Join(n.dir, "r1"), filepath.Join(n.dir, "twin")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	reached := func(name string) int { return n.logLines(name, "central reached") }
	n.kill("r1")
	n.startTLS("r1", "r1", netAgent)
	n.until(20*time.Second, "the agent is back", func() bool { return reached("r1") == 2 })
	n.startTLS("twin", "twin", netTwin)
	n.until(60*time.Second, "the alarm names the cause", func() bool {
		return strings.Contains(n.alarmOf("r1", api.AlarmTwoAgents), "copies of one journal")
	})
	alarm := n.alarmOf("r1", api.AlarmTwoAgents)
	if !strings.Contains(alarm, netAgent+") keeps the name") || !strings.Contains(alarm, netTwin+") is refused") {
		t.Errorf("%q", alarm)
	}
	if out, errs, _ := n.run("agents"); !strings.Contains(out+errs, "copies of one journal") {
		t.Errorf("rackpower agents does not show it:\n%s%s", out, errs)
	}
	if out := n.mustRun("audit", "-o", "json"); !strings.Contains(out, "copies of one journal") {
		t.Error("it is not in the audit log")
	}
	// each has both act, if they would, and shows that one did: the one that has the name.
	each := func(when, keeps string) {
		t.Helper()
		_, from := n.commandsBy(0)
		for _, want := range []string{"on", "off", "on"} {
			n.mustRun("hold", "r1n2", want, "--reason", "test", "--yes")
			n.mustRun(want, "r1n1")
			n.until(20*time.Second, "r1n2 is "+want, func() bool { return n.node("r1n2").State == power.State(want) })
		}
		if by, _ := n.commandsBy(from); len(by) != 1 || by[keeps] < 4 {
			t.Errorf("%s: commands came from %v, want all from %s", when, by, keeps)
		}
	}
	each("both run", netAgent)
	refused := n.logLines("twin", "central gives the name to another agent")
	n.kill("twin")
	n.startTLS("twin", "twin", netTwin)
	n.until(60*time.Second, "the copy was refused again", func() bool {
		return n.logLines("twin", "central gives the name to another agent") > refused
	})
	each("after a restart of the copy", netAgent)
	n.kill("r1")
	n.startTLS("r1", "r1", netAgent)
	n.until(60*time.Second, "one of the two has the name", func() bool { return reached("r1") == 3 || reached("twin") == 1 })
	keeps := netAgent
	if reached("twin") == 1 { // it was there first: its journal is as new as the other's
		keeps = netTwin
	}
	each("after a restart of the agent", keeps)
}
