package cmd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/power"
)

// TestARestartUnderLoadLosesNothing kills central and stops it while people ask over TLS and
// watch: what was taken is there, once, and each who watches hears of all of it.
func TestARestartUnderLoadLosesNothing(t *testing.T) {
	const askers, watchers, each, nodes = 6, 20, 40, 30
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	s.overTLS()
	s.startCentral()
	s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(t.Context()); return err == nil })
	var specs []api.NodeSpec
	for i := range nodes {
		specs = append(specs, api.NodeSpec{Name: fmt.Sprintf("n%02d", i), Rack: "r1", BMC: fmt.Sprintf("ipmi://u@192.0.2.%d", i+1)})
	}
	s.addNodes(specs...) // of an agent that is not there: nothing ends
	text, err := os.ReadFile(filepath.Join(s.dir, "central", auth.CACertFile))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := auth.ParseCert(text)
	if err != nil {
		t.Fatal(err)
	}
	remote := func(name, role string) *api.Client {
		t.Helper()
		out, err := s.client.AddUser(t.Context(), api.AddUser{Name: name, Role: role})
		if err != nil {
			t.Fatal(err)
		}
		client, err := api.NewClient("https://" + s.tls)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		client.Secure(auth.Pinned(auth.Hash(ca), nil), out.Token)
		return client
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var heard [watchers]map[string]bool
	var watching sync.WaitGroup
	for w := range watchers {
		heard[w] = map[string]bool{}
		client := remote(fmt.Sprintf("watcher%d", w), "viewer")
		watching.Go(func() {
			for rev := int64(0); len(heard[w]) < askers*each && ctx.Err() == nil; {
				found, err := client.QueryOps(ctx, api.QueryOps{AfterRev: rev, Wait: 20 * time.Second})
				if err != nil {
					time.Sleep(10 * time.Millisecond) // it is away
					continue
				}
				rev = found.Rev
				for _, o := range found.Ops {
					heard[w][o.ID] = true
				}
			}
		})
	}
	var ids [askers][]string // taken, by the answers
	var taken atomic.Int64
	var asking sync.WaitGroup
	for a := range askers {
		client := remote(fmt.Sprintf("asker%d", a), "operator")
		asking.Go(func() {
			for i := range each {
				req := api.OpRequest{
					ID: uuid.Must(uuid.NewV7()).String(), Node: fmt.Sprintf("n%02d", (a*each+i)%nodes), Action: power.ActOn,
					Options: power.Options{IfBusy: power.Queue},
				}
				for ctx.Err() == nil {
					ops, err := client.AskOps(ctx, api.AskOps{Ops: []api.OpRequest{req}})
					if err != nil { // the same again, until there is an answer
						time.Sleep(10 * time.Millisecond)
						continue
					}
					if ops[0].Outcome != "" {
						t.Errorf("%+v", ops[0])
					}
					ids[a] = append(ids[a], req.ID)
					taken.Add(1)
					break
				}
			}
		})
	}
	for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		s.until(time.Minute, "a part is taken", func() bool { return taken.Load() >= int64((i+1)*askers*each/5) })
		s.mu.Lock()
		cmd := s.procs["central"]
		delete(s.procs, "central")
		s.mu.Unlock()
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		s.startCentral()
	}
	asking.Wait()
	watching.Wait()
	found, err := s.client.QueryOps(t.Context(), api.QueryOps{})
	if err != nil || len(found.Ops) != askers*each {
		t.Fatalf("%d operations of %d, %v", len(found.Ops), askers*each, err)
	}
	there := map[string]bool{}
	for _, o := range found.Ops {
		there[o.ID] = true
	}
	for a := range ids {
		for _, id := range ids[a] {
			if !there[id] {
				t.Errorf("%s was taken and is not there", id)
			}
			for w := range heard {
				if !heard[w][id] {
					t.Errorf("watcher %d did not hear of %s", w, id)
				}
			}
		}
	}
	if out := s.mustRun("audit", "verify"); out == "" {
		t.Error("nothing said of the audit log")
	}
}
