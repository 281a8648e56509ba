package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rackpower/central/api"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// entries is an audit log in memory.
type entries struct {
	mu     sync.Mutex
	all    []api.AuditEntry
	passed int64
	saves  int
	news   chan struct{}
	broken error
}

func newEntries() *entries { return &entries{news: make(chan struct{})} }

func (e *entries) add(node, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := int64(1)
	if n := len(e.all); n > 0 {
		id = e.all[n-1].ID + 1
	}
	e.all = append(e.all, api.AuditEntry{ID: id, At: time.Now(), Node: node, What: what})
	close(e.news)
	e.news = make(chan struct{})
}

func (e *entries) Database() api.Database { return api.Database{CentralID: "c"} }

func (e *entries) Begin(context.Context) (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.passed, e.broken
}

func (e *entries) After(_ context.Context, id int64, limit int) (page []api.AuditEntry, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, entry := range e.all {
		if entry.ID > id && len(page) < limit {
			page = append(page, entry)
		}
	}
	return page, e.broken
}

func (e *entries) Passed(_ context.Context, id int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id < e.passed {
		return fmt.Errorf("went back from %d to %d", e.passed, id)
	}
	e.passed = id
	e.saves++
	return e.broken
}

func (e *entries) News() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.news
}

func (e *entries) at() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.passed
}

// receiver answers what its function says, and notes what came. It is asked without a network.
type receiver struct {
	answer func(e api.AuditEntry) (status int, wait time.Duration)

	mu    sync.Mutex
	taken []api.AuditEntry
	tries map[int64]int
	open  map[string]int // requests of a node at once
	twice []string
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	text, _ := io.ReadAll(req.Body)
	var e Event
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, err
	}
	r.mu.Lock()
	if r.tries == nil {
		r.tries, r.open = map[int64]int{}, map[string]int{}
	}
	r.tries[e.Event.ID]++
	if r.open[e.Event.Node]++; r.open[e.Event.Node] > 1 {
		r.twice = append(r.twice, e.Event.Node)
	}
	status, wait := r.answer(e.Event)
	r.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-req.Context().Done():
		status = 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[e.Event.Node]--
	if status == 0 {
		return nil, errors.New("no answer")
	}
	if status < 300 {
		r.taken = append(r.taken, e.Event)
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{}}, nil
}

func (r *receiver) got(node string) (ids []int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.taken {
		if e.Node == node {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// sending runs a sender in a bubble of synctest until stop is called.
func sending(t *testing.T, log *entries, r *receiver, change func(*Config)) (s *Sender, stop func()) {
	t.Helper()
	cfg := Config{URL: "https://receiver.example/", Secret: secret}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	s.client = &http.Client{Transport: r, Timeout: within}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	return s, func() { cancel(); <-ended }
}

func ok(api.AuditEntry) (int, time.Duration) { return 200, 0 }

func TestEventsOfANodeComeInOrderAndAllCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newEntries()
		flaky := 0
		r := &receiver{answer: func(e api.AuditEntry) (int, time.Duration) {
			flaky++
			switch flaky % 5 {
			case 1:
				return 500, 0
			case 2:
				return 0, 0
			case 3:
				return 302, 0
			}
			return 204, time.Duration(flaky%7) * time.Millisecond
		}}
		for i := range 300 {
			log.add(fmt.Sprint("n", i%20), "asked")
		}
		_, stop := sending(t, log, r, nil)
		time.Sleep(time.Hour)
		log.add("n1", "ended")
		time.Sleep(time.Hour)
		stop()
		for i := range 20 {
			ids := r.got(fmt.Sprint("n", i))
			if want := 15; len(ids) < want || !slices.IsSorted(ids) {
				t.Errorf("n%d: %v", i, ids)
			}
		}
		if len(r.twice) > 0 {
			t.Errorf("two events of a node at once: %v", r.twice)
		}
		if log.at() != 301 {
			t.Errorf("passed %d", log.at())
		}
	})
}

// TestANodeWhoseEventsAreNotTakenHoldsUpNoOther, up to the bound.
func TestANodeWhoseEventsAreNotTakenHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newEntries()
		dead := true
		r := &receiver{answer: func(e api.AuditEntry) (int, time.Duration) {
			if e.Node == "bad" && dead {
				return 503, within * 2
			}
			return 200, time.Millisecond
		}}
		log.add("bad", "asked")
		s, stop := sending(t, log, r, nil)
		for range Window - 1 {
			log.add("good", "asked")
		}
		time.Sleep(time.Hour)
		if n := len(r.got("good")); n != Window-1 {
			t.Errorf("%d events of the good node came", n)
		}
		log.add("good", "over the bound")
		time.Sleep(time.Hour)
		if n := len(r.got("good")); n != Window-1 {
			t.Errorf("%d events of the good node came over the bound", n)
		}
		s.mu.Lock()
		full, waiting := s.full, s.waiting
		s.mu.Unlock()
		if !full || waiting != 1 || log.at() != 0 {
			t.Errorf("full %v, waiting %d, passed %d", full, waiting, log.at())
		}
		r.mu.Lock()
		dead = false
		r.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		if len(r.got("bad")) != 1 || len(r.got("good")) != Window || log.at() != Window+1 {
			t.Errorf("%d, %d came, passed %d", len(r.got("bad")), len(r.got("good")), log.at())
		}
	})
}

func TestPausesGrowAndAnEventThatIsWrongIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newEntries()
		r := &receiver{answer: func(e api.AuditEntry) (int, time.Duration) {
			return map[string]int{"wrong": 422, "away": 0, "fine": 200}[e.What], 0
		}}
		log.add("a", "wrong")
		log.add("a", "fine")
		log.add("b", "away")
		s, stop := sending(t, log, r, nil)
		time.Sleep(24 * time.Hour)
		stop()
		if got := r.got("a"); !slices.Equal(got, []int64{2}) || r.tries[1] != refusals {
			t.Errorf("%v came, the wrong one was tried %d times", got, r.tries[1])
		}
		if n := r.tries[3]; n < 24*12 || n > 24*12*2 {
			t.Errorf("what never answered was asked %d times in a day", n)
		}
		if log.at() != 2 {
			t.Errorf("passed %d", log.at())
		}
		_ = s
	})
}

func TestOnlyWhatIsAskedForIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, r := newEntries(), &receiver{answer: ok}
		_, stop := sending(t, log, r, func(c *Config) { c.What = []string{"brake", "fault"} })
		for _, what := range []string{"asked", "brake", "ended", "fault", "asked"} {
			log.add("", what)
			time.Sleep(time.Minute)
		}
		stop()
		if got := r.got(""); !slices.Equal(got, []int64{2, 4}) || log.at() != 5 {
			t.Errorf("%v, passed %d", got, log.at())
		}
	})
}

func TestALogThatCannotBeReadIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, r := newEntries(), &receiver{answer: ok}
		log.broken = errors.New("broken")
		log.add("a", "asked")
		_, stop := sending(t, log, r, nil)
		time.Sleep(time.Minute)
		log.mu.Lock()
		log.broken = nil
		log.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		if len(r.got("a")) != 1 || log.at() != 1 {
			t.Errorf("%v, passed %d", r.got("a"), log.at())
		}
	})
}

func TestWhatWasPrunedIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, r := newEntries(), &receiver{answer: ok}
		for range 10 {
			log.add("a", "asked")
		}
		log.all = log.all[4:]
		s, stop := sending(t, log, r, nil)
		time.Sleep(time.Minute)
		stop()
		got := counted{}
		s.Collect(got)
		if got["rackpower_webhook_events_dropped_total pruned"] != 4 || got["rackpower_webhook_events_sent_total"] != 6 {
			t.Errorf("%v", got)
		}
	})
}

func TestWhereEventsMayGo(t *testing.T) {
	for u, says := range map[string]string{
		"https://a.example/x": "", "http://127.0.0.1:8080/": "", "http://[::1]/": "",
		"http://a.example/": "without TLS", "http://localhost/": "without TLS", "http://10.0.0.1/": "without TLS",
		"https://u:p@a.example/": "password", "ftp://a.example/": "https", "https:///x": "https", "": "https", "https://a b/": "cannot be read",
	} {
		err := Config{URL: u, Secret: secret}.Validate()
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", u, err, says)
		}
	}
	for text, good := range map[string]bool{
		"whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=": true, "whsec_%%": false, "short": false, strings.Repeat("x", 24): true,
	} {
		if _, err := ParseSecret(text); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestRedirectsAndAddressesOfTheLinkAreNotFollowed over a real network.
func TestRedirectsAndAddressesOfTheLinkAreNotFollowed(t *testing.T) {
	followed := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		followed = followed || r.URL.Path == "/other"
		http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	post := func(u, ca string) error {
		s, err := New(Config{URL: u, Secret: secret, CAFile: ca}, newEntries())
		if err != nil {
			return err
		}
		return s.post(t.Context(), Event{})
	}
	var refused refusedError
	if err := post(srv.URL, ""); !errors.As(err, &refused) || refused.status != http.StatusTemporaryRedirect || followed {
		t.Errorf("%v, followed: %v", err, followed)
	}
	secured := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer secured.Close()
	if err := post(secured.URL, ""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}
	for _, c := range []struct {
		address string
		refused bool
	}{{"169.254.169.254:443", true}, {"[fe80::1]:443", true}, {"[fd00:ec2::254]:443", true}, {"[::ffff:169.254.169.254]:443", true}} {
		client, err := Config{URL: "https://a.example/", Secret: secret}.client()
		if err != nil {
			t.Fatal(err)
		}
		tr := client.Transport.(*http.Transport)
		if _, err := tr.DialContext(t.Context(), "tcp", c.address); err == nil || !strings.Contains(err.Error(), "no receiver's address") {
			t.Errorf("%s: %v", c.address, err)
		}
	}
}
