package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rackpower/central"
	"rackpower/central/api"
	"rackpower/cmd/rackpower/agentd"
	"rackpower/internal/metrics"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

const monitoringDir = "../docs/monitoring/"

// described are the metrics of central and agents by name.
func described(t *testing.T) map[string]*metrics.Metric {
	t.Helper()
	all := map[string]*metrics.Metric{}
	for _, m := range slices.Concat(central.Metrics(), agentd.Metrics()) {
		if old := all[m.Name]; old != nil && old != m {
			t.Errorf("%s is described twice", m.Name)
		}
		all[m.Name] = m
	}
	return all
}

// TestMetricsAreNamedAsPrometheusWants looks at the names: counters end in _total, and no other
// metric does; times are in seconds, sizes in bytes. No label names a node.
func TestMetricsAreNamedAsPrometheusWants(t *testing.T) {
	for name, m := range described(t) {
		if !regexp.MustCompile(`^rackpower_[a-z_]+$`).MatchString(name) || strings.HasSuffix(name, "_total") != (m.Kind == metrics.KindCounter) {
			t.Errorf("%s is not named as a %s", name, m.Kind)
		}
		if m.Help == "" || !strings.HasSuffix(m.Help, ".") && name != "rackpower_build_info" {
			t.Errorf("%s: %q is no sentence", name, m.Help)
		}
		if slices.Contains(m.Labels, "node") || strings.Contains(name, "milli") || strings.Contains(name, "minutes") {
			t.Errorf("%s: label or unit", name)
		}
	}
}

// TestMonitoringSpeaksOfMetricsThatThereAre: what the rules and the dashboard ask for is shown, and
// the README lists all of it.
func TestMonitoringSpeaksOfMetricsThatThereAre(t *testing.T) {
	all := described(t)
	used := regexp.MustCompile(`\brackpower_[a-z_]+`)
	for _, file := range []string{"rules.yml", "rules_test.yml", "dashboard.json"} {
		text, err := os.ReadFile(monitoringDir + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range used.FindAllString(string(text), -1) {
			base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
			if all[name] == nil && (all[base] == nil || all[base].Kind != metrics.KindHistogram) {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
	var dashboard map[string]any
	text, err := os.ReadFile(monitoringDir + "dashboard.json")
	if err == nil {
		err = json.Unmarshal(text, &dashboard)
	}
	if err != nil {
		t.Error(err)
	}
	readme, err := os.ReadFile(monitoringDir + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(rackpower_[a-z_]+)` \\|").FindAllStringSubmatch(string(readme), -1) {
		listed[m[1]] = true
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := all[name]
		line := fmt.Sprintf("| `%s` | %s | %s | %s |", name, m.Kind, strings.Join(m.Labels, ", "), m.Help)
		if !strings.Contains(string(readme), line+"\n") {
			t.Errorf("docs/monitoring/README.md lacks the line\n%s", line)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("docs/monitoring/README.md has %s, which there is not", name)
	}
}

func promtool(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"promtool", "prometheus"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("LEFT OUT: alert rules: %v (Debian: prometheus)", err)
		}
	}
}

func TestAlertRules(t *testing.T) {
	promtool(t)
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = monitoringDir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// prometheus is a Prometheus that scrapes a site each second.
type prometheus struct {
	t   *testing.T
	url string
}

// scrape starts one, with the rules of docs/monitoring but for how long they wait.
func (s *site) scrape(central, agent, tokenFile string) prometheus {
	s.t.Helper()
	rules, err := os.ReadFile(monitoringDir + "rules.yml")
	if err != nil {
		s.t.Fatal(err)
	}
	at := func(name string, text string) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
		return path
	}
	at("rules.yml", regexp.MustCompile(`(?m)^ +for: .*\n`).ReplaceAllString(string(rules), ""))
	config, err := os.ReadFile(monitoringDir + "prometheus.yml")
	if err != nil {
		s.t.Fatal(err)
	}
	path := at("prometheus.yml", strings.NewReplacer("15s", "1s", "/etc/prometheus/rackpower-ca.crt",
		filepath.Join(s.dir, "central", "ca.crt"),
		"/etc/prometheus/rackpower.token", tokenFile, "central.example:7620", central, "127.0.0.1:9620", agent).Replace(string(config)))
	p := prometheus{s.t, "http://" + freeAddress(s.t)}
	s.spawn("prometheus", "prometheus", "--config.file", path, "--storage.tsdb.path", filepath.Join(s.dir, "tsdb"),
		"--web.listen-address", strings.TrimPrefix(p.url, "http://"), "--log.level", "warn")
	return p
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get asks Prometheus' API.
func (p prometheus) get(path string, out any) error {
	resp, err := http.Get(p.url + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, out)
	}
	return err
}

// value is that of an expression of one series, false where there is none.
func (p prometheus) value(expr string) (string, bool) {
	var out struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := p.get("/api/v1/query?query="+url.QueryEscape(expr), &out); err != nil || len(out.Data.Result) != 1 {
		return "", false
	}
	text, ok := out.Data.Result[0].Value[1].(string)
	return text, ok
}

// fires reports whether an alert fires for a rack.
func (p prometheus) fires(name, rack string) bool {
	var out struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	if err := p.get("/api/v1/alerts", &out); err != nil {
		return false
	}
	for _, a := range out.Data.Alerts {
		if a.State == "firing" && a.Labels["alertname"] == name && a.Labels["rack"] == rack {
			return true
		}
	}
	return false
}

// TestPrometheusSeesABrakeAndADeadAgent scrapes central over TLS, with a viewer's token, and an agent,
// and sees the alerts of docs/monitoring.
func TestPrometheusSeesABrakeAndADeadAgent(t *testing.T) {
	promtool(t)
	t.Parallel()
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	s.overTLS()
	s.startCentral()
	s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(t.Context()); return err == nil })
	agent := freeAddress(t)
	s.startWatchful("--metrics", agent)
	farm := startFarm(t, bmcsim.Config{Count: 12, Initial: power.On})
	s.addAs(farm, "DEPLOYED")
	user, err := s.client.AddUser(t.Context(), api.AddUser{Name: "prometheus", Role: "viewer"})
	if err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(s.dir, "prometheus.token")
	if err := os.WriteFile(token, []byte(user.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.scrape(s.tls, agent, token)
	s.read("all", power.On)
	s.matched("n01", "n12")
	is := func(expr, want string) {
		t.Helper()
		var got string
		s.until(30*time.Second, fmt.Sprintf("%s is %s", expr, want), func() bool { got, _ = p.value(expr); return got == want })
	}
	is(`up{job="rackpower-central"}`, "1")
	is(`up{job="rackpower-agent"}`, "1")
	is(`rackpower_nodes{rack="r1",state="on"}`, "12")
	is(`rackpower_agent_bmcs{breaker="closed"}`, "12")
	if p.fires("RackpowerBrake", "r1") || p.fires("RackpowerAgentGone", "r1") {
		t.Error("an alert fires although all is well")
	}
	s.everyMetricIsThere(p)

	var names []string
	for _, b := range bmcs(farm) {
		names = append(names, b.Name())
	}
	if _, err := s.client.SetStatus(t.Context(), api.SetStatus{Names: names, Status: "READY", AskedBy: "script"}); err != nil {
		t.Fatal(err)
	}
	s.until(30*time.Second, "the brake's alert fires", func() bool { return p.fires("RackpowerBrake", "r1") })
	s.kill("r1")
	s.until(60*time.Second, "the agent's alert fires", func() bool { return p.fires("RackpowerAgentGone", "r1") })
	s.until(30*time.Second, "the target's alert fires", func() bool { return p.fires("RackpowerTargetDown", "") })
}

// rarely are the metrics that a site shows only when there is something of their kind.
var rarely = []string{
	"rackpower_rack_alarms", "rackpower_agent_alarms", "rackpower_agent_domain_waiting", "rackpower_agent_domain_in_flight",
	"rackpower_operations_asked_total", "rackpower_operations_ended_total", "rackpower_operation_duration_seconds",
	"rackpower_operations_open",
	"rackpower_agent_operations_ended_total", "rackpower_agent_operation_duration_seconds", "rackpower_agent_operations_open",
	"rackpower_agent_journal_failures_total",
}

// everyMetricIsThere looks for each metric that is described.
func (s *site) everyMetricIsThere(p prometheus) {
	s.t.Helper()
	var missing []string
	s.until(30*time.Second, "all metrics are there", func() bool {
		missing = nil
		var out struct{ Data []string }
		if p.get("/api/v1/label/__name__/values", &out) != nil {
			return false
		}
		for name, m := range described(s.t) {
			if m.Kind == metrics.KindHistogram {
				name += "_count"
			}
			if strings.HasPrefix(name, "rackpower_webhook_") { // there is none
				continue
			}
			if !slices.Contains(out.Data, name) && !slices.Contains(rarely, strings.TrimSuffix(name, "_count")) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			s.t.Logf("missing: %v", missing)
		}
		return len(missing) == 0
	})
}
