package cmd_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rackpower/central/api"
	"rackpower/power"
	"rackpower/power/bmcsim"
)

// freeze has whoever writes to the volume wait until thaw, as on a disk that hangs.
func (v *volume) freeze() error { return runTool(0, "fsfreeze", "--freeze", v.dir) }

func (v *volume) thaw() error { return runTool(0, "fsfreeze", "--unfreeze", v.dir) }

// scrape reads the metrics at a socket.
func scrape(t *testing.T, socket string) string {
	t.Helper()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://socket/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", socket, res.Status, err)
	}
	return string(text)
}

// TestADiskThatHangs: while the disks of central and of an agent do not answer, everything is
// answered that needs none; what was asked meanwhile is carried out once afterwards.
func TestADiskThatHangs(t *testing.T) {
	if inOwnMounts(t) {
		return
	}
	if why := canMount(); why != "" {
		t.Skip("LEFT OUT: " + why)
	}
	if _, err := exec.LookPath("fsfreeze"); err != nil {
		t.Skip("LEFT OUT: needs fsfreeze")
	}
	s := siteIn(t, t.TempDir())
	var volumes []*volume
	for _, name := range []string{"central", "r1"} {
		v, err := newVolume(filepath.Join(s.dir, name), volumeMB)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := v.unmount(); err != nil {
				t.Error(err)
			}
		})
		volumes = append(volumes, v)
	}
	t.Cleanup(s.stop)
	s.startCentral()
	s.until(20*time.Second, "central answers", func() bool { _, err := s.client.Info(t.Context()); return err == nil })
	s.startWatchful()
	farm := startFarm(t, bmcsim.Config{Count: 3, Initial: power.Off})
	s.addAs(farm, "")
	s.read("all", power.Off)
	frozen := true
	for _, v := range volumes {
		if err := v.freeze(); err != nil {
			t.Fatal(err)
		}
	}
	thaw := func() {
		for _, v := range volumes {
			if err := v.thaw(); err != nil {
				t.Error(err)
			}
		}
		frozen = false
	}
	t.Cleanup(func() {
		if frozen {
			thaw()
		}
	})
	asked := make(chan error, 1)
	go func() {
		_, err := s.ask("n01", power.ActOn, nil)
		asked <- err
	}()
	answered := func(what string, ask func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := ask(ctx); err != nil {
			t.Errorf("while the disks hang, %s: %v", what, err)
		}
	}
	s.until(30*time.Second, "central says that its disk hangs", func() bool {
		items, err := s.client.Attention(t.Context())
		for _, x := range items {
			if x.Kind == api.AttentionDisk {
				return true
			}
		}
		return err != nil
	})
	local := clientOf(t, s.agentSocket("r1"))
	answered("the status at central", func(ctx context.Context) error { _, err := s.client.Nodes(ctx, "all"); return err })
	answered("the racks", func(ctx context.Context) error { _, err := s.client.Racks(ctx); return err })
	answered("the members", func(ctx context.Context) error { _, err := s.client.Members(ctx); return err })
	answered("the status at the agent", func(ctx context.Context) error { _, err := local.Nodes(ctx, "all"); return err })
	answered("explain at the agent", func(ctx context.Context) error { _, err := local.Explain(ctx, "n02"); return err })
	for _, socket := range []string{s.socket(), s.agentSocket("r1")} {
		answered("the metrics at "+socket, func(context.Context) error {
			text := scrape(t, socket)
			if socket == s.socket() && (!strings.Contains(text, "rackpower_central_database_disk_wait_seconds ") ||
				strings.Contains(text, "rackpower_central_database_disk_wait_seconds 0\n")) {
				t.Errorf("the metrics do not say that the disk hangs")
			}
			return nil
		})
	}
	select {
	case err := <-asked:
		t.Errorf("what no disk holds was taken: %v", err)
	default:
	}
	if state := farm.BMC(0).Power(); state != power.Off {
		t.Errorf("n01 is %s before anything of it is durable", state)
	}
	thaw()
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
	ops := s.allEnded(60 * time.Second)
	if len(ops) != 1 || ops[0].Outcome != power.Succeeded || farm.BMC(0).Power() != power.On {
		t.Errorf("%+v", ops)
	}
	s.until(20*time.Second, "nothing wants a person", func() bool {
		items, err := s.client.Attention(t.Context())
		return err == nil && len(items) == 0
	})
	_ = os.Remove(volumes[0].image)
}
