package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestConfigRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no name":               {func(c *Config) { c.Name = "" }, "name"},
		"an overlong name":      {func(c *Config) { c.Name = strings.Repeat("x", 200) }, "name"},
		"no port":               {func(c *Config) { c.Bind = "127.0.0.1" }, "port"},
		"the network, plain":    {func(c *Config) { c.Bind = "192.0.2.1:7946" }, "unencrypted"},
		"everywhere, plain":     {func(c *Config) { c.Bind, c.Advertise = "0.0.0.0:7946", "127.0.0.1" }, "unencrypted"},
		"advertised, plain":     {func(c *Config) { c.Advertise = "192.0.2.1" }, "unencrypted"},
		"joining out, plain":    {func(c *Config) { c.Join = []string{"192.0.2.1:7946"} }, "unencrypted"},
		"a key of another size": {func(c *Config) { c.Key = []byte("short") }, "key"},
		"everywhere": {func(c *Config) {
			c.Bind, c.Key = "0.0.0.0:7946", bytes.Repeat([]byte{1}, 32)
		}, "advertise"},
	} {
		cfg := Config{Name: "r1", Role: RoleAgent, Bind: "127.0.0.1:0", tuning: quick()}
		c.change(&cfg)
		cluster, err := New(cfg)
		if err == nil {
			crash(cluster)
			t.Errorf("%s was taken", what)
		} else if !strings.Contains(strings.ToLower(err.Error()), c.want) {
			t.Errorf("%s: %v, want a word of %q", what, err, c.want)
		}
	}
}

func TestKeysStayHidden(t *testing.T) {
	cfg := Config{Key: []byte("0123456789abcdef")}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", cfg.Key)
	for _, shown := range []string{log.String(), fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg.Key)} {
		if strings.Contains(shown, "0123") || strings.Contains(shown, "48 49") || strings.Contains(shown, "0x30") {
			t.Errorf("the key shows: %s", shown)
		}
	}
}

func TestPortInUseIsAnError(t *testing.T) {
	t.Parallel()
	a := start(t, "a")
	if c, err := New(Config{Name: "b", Role: RoleAgent, Bind: a.Addr(), tuning: quick()}); err == nil {
		crash(c)
		t.Error("two members listen at one address")
	}
}

func TestLogsAreBridged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &Cluster{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	logger := newBridge(a)
	logger.Printf("[INFO] serf: EventMemberJoin: r1")
	logger.Printf("[ERR] memberlist: failed")
	logger.Printf("no level")
	for _, want := range []string{
		"level=DEBUG msg=\"serf: EventMemberJoin: r1\"", "level=WARN msg=\"memberlist: failed\"",
		"level=DEBUG msg=\"no level\"",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if got := a.warnings.Load(); got != 1 {
		t.Errorf("%d warnings", got)
	}
}
