package central

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/central/store"
	"rackpower/power"
)

// running is a central that Run serves.
type running struct {
	*api.Client
	c      *Central
	cfg    Config
	addrs  []net.Addr
	cancel context.CancelFunc
	ended  chan error
}

func run(t testing.TB, cfg Config) *running {
	t.Helper()
	if cfg.Data == "" {
		cfg.Data = t.TempDir()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(cfg.Data, "central.sock")
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{c: c, cfg: cfg, cancel: cancel, ended: make(chan error, 1)}
	ready := make(chan []net.Addr, 1)
	go func() { r.ended <- c.RunReady(ctx, func(a []net.Addr) { ready <- a }) }()
	select {
	case r.addrs = <-ready:
	case err := <-r.ended:
		t.Fatal(err)
	}
	if r.Client, err = api.NewClient("unix://" + cfg.Socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t testing.TB) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.ended:
		r.ended <- err
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Run does not end")
	}
}

// TestNoPortIsOpened: nobody who asks at a port is known, also one that systemd opened.
func TestNoPortIsOpened(t *testing.T) {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Data: t.TempDir(), Listeners: []net.Listener{port}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no unix socket") {
		t.Errorf("%v", err)
	}
	r := run(t, Config{})
	if info, err := os.Stat(r.cfg.Socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	for _, addr := range r.addrs {
		if addr.Network() != "unix" {
			t.Errorf("%s is served", addr)
		}
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.cfg.Socket)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://unix/v1/ops", "text/plain", strings.NewReader(`{"ops":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnsupportedMediaType || resp.Header.Get("Content-Type") != "application/problem+json" ||
		bytes.Contains(text, []byte("0 operations")) {
		t.Errorf("a form: %s %s", resp.Status, text)
	}
}

// TestAnAdministratorIsNoAgent asks as a user who may use the socket, and no more.
func TestAnAdministratorIsNoAgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("LEFT OUT: only root can ask as another user")
	}
	r := run(t, Config{})
	if _, err := r.Hello(t.Context(), "r1", api.Hello{JournalID: "j", Epoch: 1}); err != nil {
		t.Errorf("root: %v", err)
	}
	if _, err := r.AddUser(t.Context(), api.AddUser{Name: "nobody", Role: "operator", NoToken: true}); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(r.cfg.Socket); dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(r.cfg.Socket, 0o666); err != nil {
		t.Fatal(err)
	}
	other := make(chan net.Conn)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its user
		const keep = ^uintptr(0)
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, 65534, keep); errno != 0 {
			t.Error(errno)
		}
		conn, err := net.Dial("unix", r.cfg.Socket)
		if err != nil {
			t.Error(err)
		}
		other <- conn
	}()
	conn := <-other
	defer conn.Close()
	for path, want := range map[string]string{
		"GET /v1/info": "200 OK", "POST /v1/agents/r1/hello": "403 Forbidden",
		"POST /v1/agents/r1/enrol": "403 Forbidden",
	} {
		fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: unix\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", path)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		if resp.Status != want || strings.HasPrefix(path, "POST") && !strings.Contains(string(text), "not permitted") {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
}

// TestAgentsAreKnownByTheirUser asks over a connection that tells nothing of who asks.
func TestAgentsAreKnownByTheirUser(t *testing.T) {
	s := newSite(t)
	srv := httptest.NewServer(s.c.Handler())
	defer srv.Close()
	for _, path := range []string{"enrol", "hello", "poll", "report"} {
		resp, err := http.Post(srv.URL+"/v1/agents/r1/"+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || !bytes.Contains(text, []byte("is not known: log in")) {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
}

func TestTheUserOfTheSocketIsKnown(t *testing.T) {
	r := run(t, Config{})
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r1", BMC: "ipmi://x@192.0.2.1"}}}); err != nil {
		t.Fatal(err)
	}
	ops, err := r.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{
		{ID: newID(), Node: "a", Action: power.ActOn},
		{ID: newID(), Node: "a", Action: power.ActOff, AskedBy: "somebody"},
	}})
	if err != nil || ops[0].AskedBy != me.Username || ops[1].AskedBy != meFor("somebody") {
		t.Errorf("%+v, %v", ops, err)
	}
	entries, err := r.Audit(t.Context(), "", 10)
	if err != nil || entries[0].Who != me.Username {
		t.Errorf("%+v, %v", entries, err)
	}
}

func TestAStopEndsLongPollsAtOnce(t *testing.T) {
	r := run(t, Config{})
	w, err := r.Hello(t.Context(), "r1", api.Hello{JournalID: "j"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.Poll(t.Context(), "r1", api.Poll{Session: w.Session})
	if err != nil {
		t.Fatal(err)
	}
	type end struct {
		what string
		err  error
	}
	ends := make(chan end, 2)
	go func() {
		_, err := r.Poll(context.Background(), "r1", api.Poll{Session: w.Session, Database: w.Database, Rev: first.Rev, Wait: time.Minute})
		ends <- end{"poll", err}
	}()
	go func() {
		_, err := r.QueryOps(context.Background(), api.QueryOps{Wait: time.Minute})
		ends <- end{"query", err}
	}()
	d := r.c.sessions.of("r1")
	until(t, "the poll is in flight", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.polls == 1 })
	began := time.Now()
	r.stop(t)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("stopping took %s", took)
	}
	for range 2 {
		if e := <-ends; e.err != nil && !errors.Is(e.err, api.ErrUnreachable) {
			t.Errorf("%s: %v", e.what, e.err)
		}
	}
	if _, err := os.Stat(r.cfg.Socket); err == nil {
		t.Error("the socket is left")
	}
	run(t, Config{Data: r.cfg.Data})
}

func TestASocketThatIsServedIsNotTaken(t *testing.T) {
	r := run(t, Config{})
	other, err := New(Config{Data: t.TempDir(), Socket: r.cfg.Socket, Log: r.cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process serves it") {
		t.Errorf("%v", err)
	}
	if _, err := New(Config{Data: r.cfg.Data, Log: r.cfg.Log}); !errors.Is(err, store.ErrInUse) {
		t.Errorf("two on one database: %v", err)
	}
	if _, err := r.Info(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestALeftSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "central.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	r := run(t, Config{Data: dir})
	if _, err := r.Info(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestExpiryRunsByItself(t *testing.T) {
	r := run(t, Config{})
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r1", BMC: "ipmi://x@192.0.2.1"}}}); err != nil {
		t.Fatal(err)
	}
	ops, err := r.AskOps(t.Context(), api.AskOps{Ops: []api.OpRequest{{
		ID: newID(), Node: "a", Action: power.ActOn,
		Deadline: 50 * time.Millisecond,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.QueryOps(t.Context(), api.QueryOps{AfterRev: ops[0].Rev, Wait: 20 * time.Second})
	if err != nil || len(found.Ops) != 1 || found.Ops[0].Outcome != power.Expired {
		t.Errorf("%+v, %v", found, err)
	}
}

// TestHoldsAndSchedulesRunByThemselves has a clock that is just before a full minute.
func TestHoldsAndSchedulesRunByThemselves(t *testing.T) {
	began := time.Now()
	shift := began.Truncate(time.Minute).Add(time.Minute - 500*time.Millisecond).Sub(began)
	r := run(t, Config{Now: func() time.Time { return time.Now().Add(shift) }})
	if _, err := r.AddNodes(t.Context(), api.AddNodes{Nodes: []api.NodeSpec{{Name: "a", Rack: "r1"}, {Name: "b", Rack: "r1"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutSchedule(t.Context(),
		api.PutSchedule{Schedule: api.Schedule{Name: "x", Cron: "* * * * *", Nodes: "a", Want: power.WantOff}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SetHold(t.Context(), api.SetHold{
		Names: []string{"b"}, Want: power.WantOn, For: 50 * time.Millisecond,
		Reason: "x",
	}); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for after, end := int64(0), time.Now().Add(20*time.Second); !(found["a "+auditHold] && found["b "+auditHoldOver]) &&
		time.Now().Before(end); {
		all, err := r.AuditAfter(t.Context(), "a,b", after, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			after, found[e.Node+" "+e.What] = e.ID, true
		}
	}
	if !found["a "+auditHold] || !found["b "+auditHoldOver] {
		t.Errorf("%v", found)
	}
}

func TestAStopEndsWhoFollowsTheTrail(t *testing.T) {
	r := run(t, Config{})
	ended := make(chan error, 1)
	go func() {
		_, err := r.AuditAfter(context.Background(), "", 0, time.Minute)
		ended <- err
	}()
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	r.stop(t)
	if err := <-ended; err != nil || time.Since(began) > 3*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// fakeGossip is a cluster of which only what is asked here is told.
type fakeGossip struct {
	api.Cluster
	seeded []string
}

func (g *fakeGossip) Members() []api.Member {
	return []api.Member{{Name: "r1", Status: "failed"}, {Name: "central", Status: "alive"}}
}
func (g *fakeGossip) Addr() string { return "127.0.0.1:4711" }
func (g *fakeGossip) Join(addrs ...string) error {
	g.seeded = append(g.seeded, addrs...)
	return nil
}

func TestGossipIsShown(t *testing.T) {
	s := newSite(t)
	r := s.rack("r1")
	g := new(fakeGossip)
	if err := s.c.UseGossip(g); err != nil {
		t.Fatal(err)
	}
	r.mustHello()
	s.rack("r2")
	if len(g.seeded) != 3 || r.w.Gossip != g.Addr() {
		t.Errorf("joined %v, told %q", g.seeded, r.w.Gossip)
	}
	members, err := s.Members(t.Context())
	info, _ := s.Info(t.Context())
	if err != nil || len(members) != 2 || info.Gossip != g.Addr() || info.Agents != 2 {
		t.Errorf("%+v, %v, %+v", members, err, info)
	}
	s.later(time.Minute)
	s.c.MemberChanged("r1", "failed", 0)
	if a := s.agent("r1"); a.State != "failed" {
		t.Errorf("%+v", a)
	}
	if a := s.agent("r2"); a.State != "away" {
		t.Errorf("%+v", a)
	}
}
