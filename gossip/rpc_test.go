package gossip

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"rackpower/power"
)

const serfVersion = "v0.11.0" // as go.mod has it

// stockSerf builds the serf binary of the module that go.mod names, once, or skips.
func stockSerf(t *testing.T) string {
	t.Helper()
	stock.once.Do(func() {
		if stock.path, stock.err = exec.LookPath("serf"); stock.err == nil {
			return
		}
		var dir string
		if dir, stock.err = os.MkdirTemp("", "stock-serf-*"); stock.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "install", "github.com/hashicorp/serf/cmd/serf@"+serfVersion)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
		var out []byte
		if out, stock.err = cmd.CombinedOutput(); stock.err != nil {
			stock.err = errors.New(stock.err.Error() + ": " + string(out))
		}
		stock.path, stock.dir = filepath.Join(dir, "serf"), dir
	})
	if stock.err != nil {
		t.Skipf("LEFT OUT: the stock serf binary cannot be had: %v", stock.err)
	}
	return stock.path
}

var stock struct {
	once      sync.Once
	path, dir string
	err       error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if stock.dir != "" {
		os.RemoveAll(stock.dir)
	}
	os.Exit(code)
}

// serf runs the stock binary and returns what it prints.
func runSerf(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, stockSerf(t), args...).CombinedOutput()
	return string(out), err
}

func withRPC(token Token) func(*Config) {
	return func(c *Config) { c.RPC, c.RPCToken = "127.0.0.1:0", token }
}

func TestStockSerfListsTheMembers(t *testing.T) {
	t.Parallel()
	stockSerf(t)
	all := team(t, 3, withRPC(""))
	to := "-rpc-addr=" + all[0].RPCAddr()
	crash(all[2])
	eventually(t, "r2 failed", func() bool { m, _ := all[0].member("r2"); return m.Status == StatusFailed })
	for _, c := range []struct {
		args, want string
		not        string
	}{
		{"members", "r2", ""},
		{"members -status=failed", "r2", "r1"},
		{"members -tag rack=r1", "r1", "r2"},
		{"members -name r[01]", "r0", "r2"},
		{"info", "exchanges", ""},
		{"reachability", "contacted all live", ""},
	} {
		words := strings.Fields(c.args)
		out, err := runSerf(t, append([]string{words[0], to}, words[1:]...)...)
		if err != nil || !strings.Contains(out, c.want) || c.not != "" && strings.Contains(out, c.not) {
			t.Errorf("serf %s: %v\n%s", c.args, err, out)
		}
	}
	for _, args := range [][]string{
		{"leave", to},
		{"event", to, "rp", "x"},
		{"tags", to, "-set", "role=x"},
		{"keys", to, "-list"},
		{"force-leave", to, "r2"},
		{"join", to, "127.0.0.1:1"},
		{"query", to, "_serf_list-keys"},
	} {
		if out, err := runSerf(t, args...); err == nil || !strings.Contains(out, "refused") {
			t.Errorf("serf %v: %v\n%s", args, err, out)
		}
	}
	if alive(all[1]) != 2 {
		t.Errorf("%+v", all[1].Members())
	}
}

func TestStockSerfWithTheTokenMayChangeKeys(t *testing.T) {
	t.Parallel()
	stockSerf(t)
	before, after := NewKey(), NewKey()
	c := start(t, "a", withKey(before), withRPC("open sesame"))
	to, auth := "-rpc-addr="+c.RPCAddr(), "-rpc-auth=open sesame"
	if out, err := runSerf(t, "members", to); err == nil {
		t.Errorf("without a token:\n%s", out)
	}
	if out, err := runSerf(t, "members", to, "-rpc-auth=wrong"); err == nil {
		t.Errorf("with a wrong token:\n%s", out)
	}
	if out, err := runSerf(t, "query", to, auth, "_serf_list-keys"); err == nil || !strings.Contains(out, "internal") {
		t.Errorf("an internal query was sent: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"-install", after.Reveal()}, {"-use", after.Reveal()}, {"-remove", before.Reveal()}} {
		if out, err := runSerf(t, append([]string{"keys", to, auth}, args...)...); err != nil {
			t.Errorf("keys %s: %v\n%s", args[0], err, out)
		}
	}
	if out, err := runSerf(t, "keys", to, auth, "-list"); err != nil || !strings.Contains(out, after.Reveal()) ||
		strings.Contains(out, before.Reveal()) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestStockSerfAgentJoins has a stock agent be a member, with the key only.
func TestStockSerfAgentJoins(t *testing.T) {
	t.Parallel()
	key := NewKey()
	all := team(t, 2, withKey(key), withRPC(""))
	all[0].SetNodes(rack("r0", 3, power.On))
	agent := func(name string, more ...string) (output func() string) {
		ctx, cancel := context.WithCancel(context.Background())
		var mu sync.Mutex
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, stockSerf(t), append([]string{
			"agent", "-node=" + name, "-bind=127.0.0.1:0", "-rpc-addr=127.0.0.1:0", "-join=" + all[0].Addr(),
		}, more...)...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 5 * time.Second
		w := lockedWriter{&mu, &out}
		cmd.Stdout, cmd.Stderr = w, w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cancel(); cmd.Wait() })
		return func() string { mu.Lock(); defer mu.Unlock(); return out.String() }
	}
	with := agent("stock", "-encrypt="+key.Reveal())
	for _, c := range all {
		eventually(t, "the stock agent is a member", func() bool { m, _ := c.member("stock"); return m.Status == StatusAlive })
	}
	agent("stranger", "-encrypt="+NewKey().Reveal())
	agent("plain")
	eventually(t, "the others are refused", func() bool { s := all[0].Stats(); return s.ForeignKey > 0 && s.Plain > 0 })
	for _, name := range []string{"stranger", "plain"} {
		if _, ok := all[0].member(name); ok {
			t.Errorf("%s came in", name)
		}
	}
	if took, err := all[1].Ping(context.Background(), "stock"); err != nil {
		t.Errorf("%v %v\n%s", took, err, with())
	}
	out, err := runSerf(t, "members", "-rpc-addr="+all[1].RPCAddr())
	if err != nil || !strings.Contains(out, "stock") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRPCStaysOnTheLoopback(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:7373", "0.0.0.0:7373", ":7373", "x"} {
		if err := (Config{Name: "a", Bind: "127.0.0.1:0", RPC: addr}).Validate(); err == nil {
			t.Errorf("%s was taken", addr)
		}
	}
	if s := (Config{RPCToken: "secret"}); strings.Contains(strings.ToLower(s.RPCToken.String()+s.RPCToken.GoString()), "secret") {
		t.Error("the token shows")
	}
}

// rpcTalk is a raw client.
type rpcTalk struct {
	conn net.Conn
	enc  *codec.Encoder
	dec  *codec.Decoder
}

func dialRPC(t *testing.T, c *Cluster) *rpcTalk {
	conn, err := net.Dial("tcp", c.RPCAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &rpcTalk{conn, codec.NewEncoder(conn, rpcHandle()), codec.NewDecoder(bufio.NewReader(conn), rpcHandle())}
}

func (r *rpcTalk) say(t *testing.T, command string, body any) string {
	t.Helper()
	if err := r.enc.Encode(rpcHeader{command, 1}); err != nil {
		return err.Error()
	}
	if body != nil {
		r.enc.Encode(body)
	}
	var h rpcResponse
	if err := r.dec.Decode(&h); err != nil {
		return err.Error()
	}
	return h.Error
}

func TestRPCKeepsToTheProtocol(t *testing.T) {
	t.Parallel()
	c := start(t, "a", withRPC("token"))
	hello := map[string]int{"Version": 1}
	for what, f := range map[string]func(*rpcTalk) (got, want string){
		"no handshake": func(r *rpcTalk) (string, string) { return r.say(t, "members", nil), rpcNoHandshake },
		"version 2": func(r *rpcTalk) (string, string) {
			return r.say(t, "handshake", map[string]int{"Version": 2}), rpcBadVersion
		},
		"twice": func(r *rpcTalk) (string, string) {
			r.say(t, "handshake", hello)
			return r.say(t, "handshake", hello), rpcTwice
		},
		"no token": func(r *rpcTalk) (string, string) {
			r.say(t, "handshake", hello)
			return r.say(t, "members", nil), rpcAuthRequired
		},
		"no such command": func(r *rpcTalk) (string, string) {
			r.say(t, "handshake", hello)
			return r.say(t, "x", nil), rpcUnsupported
		},
		"a bad expression": func(r *rpcTalk) (string, string) {
			r.say(t, "handshake", hello)
			r.say(t, "auth", map[string]string{"AuthKey": "token"})
			got := r.say(t, "members-filtered", map[string]string{"Name": "("})
			return got[:min(len(got), 15)], "Failed to compi"
		},
	} {
		if got, want := f(dialRPC(t, c)); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	long := dialRPC(t, c)
	long.conn.Write(bytes.Repeat([]byte{0xdb, 0x7f, 0xff, 0xff, 0xff}, 40_000))
	if _, err := io.ReadAll(long.conn); err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a request without end: %v", err)
	}
	began := time.Now()
	dialRPC(t, c) // an idle client does not hold Close up
	if err := c.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// scripted is a connection whose client has said everything already.
type scripted struct {
	net.Conn
	in io.Reader
}

func (s scripted) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s scripted) Write(b []byte) (int, error)      { return len(b), nil }
func (s scripted) SetReadDeadline(time.Time) error  { return nil }
func (s scripted) SetWriteDeadline(time.Time) error { return nil }

// FuzzRPC feeds requests, with a handshake before them.
func FuzzRPC(f *testing.F) {
	c, err := New(Config{Name: "a", Bind: "127.0.0.1:0", tuning: quick()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { crash(c) })
	request := func(parts ...any) []byte {
		var out bytes.Buffer
		enc := codec.NewEncoder(&out, rpcHandle())
		for _, p := range parts {
			enc.Encode(p)
		}
		return out.Bytes()
	}
	greeting := request(rpcHeader{"handshake", 1}, map[string]int{"Version": 1})
	f.Add(request(rpcHeader{"members", 2}))
	f.Add(request(rpcHeader{"stats", 2}))
	f.Add(request(rpcHeader{"members-filtered", 2}, rpcFilter{map[string]string{"role": "a.*"}, "alive", "x"}))
	f.Add(request(rpcHeader{"auth", 2}, map[string]string{"AuthKey": "x"}))
	f.Add(request(rpcHeader{"query", 2}, rpcQuery{Name: "_serf_list-keys"}))
	f.Add([]byte{0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		newRPCClient(c, scripted{in: io.MultiReader(bytes.NewReader(greeting), bytes.NewReader(data))}).run()
	})
}
