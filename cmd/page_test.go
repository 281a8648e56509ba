package cmd_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"rackpower/power"
	"rackpower/power/bmcsim"
)

// paged is a site with a page: central over TLS, and a rack r1 of so many nodes that are on.
func paged(t *testing.T, nodes int) (*site, *bmcsim.Farm) {
	t.Helper()
	farm := startFarm(t, bmcsim.Config{Count: nodes, Initial: power.On})
	s := siteIn(t, t.TempDir())
	t.Cleanup(s.stop)
	s.overTLS()
	s.startCentral()
	s.until(20*time.Second, "central answers", s.answers)
	s.startMonitor("r1", "@every 1s")
	s.addFarm(farm)
	s.read("all", power.On)
	return s, farm
}

func (s *site) answers() bool { _, err := s.client.Info(s.t.Context()); return err == nil }

// TestThePageInABrowser is what two persons do with the page, from opening it to nodes that
// are off, and on again.
func TestThePageInABrowser(t *testing.T) {
	s, farm := paged(t, 3)
	s.mustRun("policy", "set", "approve-above", "2", "--reason", "as agreed")
	browser := s.startBrowser()
	alice, carol := s.tab(browser, "alice"), s.tab(browser, "carol")

	alice.open("/ui/")
	alice.tabTo(`input[name=token]`)
	alice.press("nonsense" + kb.Enter)
	alice.sees("That is no token")
	alice.logsIn(s.user("alice", "operator"))
	alice.sees("3 nodes: 3 on", "Nothing wants a person", "agent alive")
	carol.logsIn(s.user("carol", "operator"))

	// Alice has no mouse.
	alice.tabTo(`a[href="/ui/racks/r1"]`)
	alice.press(kb.Enter)
	alice.sees("Rack r1", "n03")
	alice.tabTo(`#all`)
	alice.press(" ")
	alice.tabTo(`.act summary`)
	alice.press(kb.Enter)
	alice.tabTo(`fieldset input[name=reason]`)
	alice.press("maintenance")
	alice.tabTo(`button[value=off]`)
	alice.press(kb.Enter)
	alice.sees("n[01-03]", "3 nodes will lose power", "A second person has to approve")
	alice.tabTo(`form[action$="/apply"] button`)
	alice.press(kb.Enter)
	alice.sees("State: awaiting")
	plan := alice.at()
	carol.sees("Approvals 1", "Attention 1")
	if title := js[string](carol, "document.title"); !strings.HasPrefix(title, "(1) Site") {
		t.Errorf("the title of carol's tab is %q", title)
	}

	carol.tabTo(`nav a[href="/ui/approvals"]`)
	carol.press(kb.Enter)
	carol.sees("off", "3 nodes", "asked by alice")
	carol.tabTo(`a[href="` + plan + `"]`)
	carol.press(kb.Enter)
	carol.tabTo(`input[name=reason]`)
	carol.press("seen")
	carol.tabTo(`button[value=approve]`)
	if n := commanded(bmcs(farm), power.PowerOff); n != 0 {
		t.Fatalf("%d nodes were turned off before anybody approved that", n)
	}
	carol.press(kb.Enter)
	carol.sees("State: applied by carol: seen")
	alice.sees("State: applied by carol: seen", "succeeded") // on the page that was open all the time
	s.read("all", power.Off)

	carol.tabTo(`.brand`)
	carol.press(kb.Enter)
	carol.sees("3 nodes: 0 on, 3 off")
	js[int](carol, "window.opened = 1")
	alice.tabTo(`.brand`)
	alice.press(kb.Enter)
	alice.tabTo(`.cells a`)
	alice.press(kb.ArrowRight + kb.Enter)
	alice.sees("n02")
	alice.tabTo(`button[value=on]`)
	alice.press(kb.Enter)
	alice.sees("What became of it", "succeeded")
	carol.sees("3 nodes: 1 on, 2 off")
	if title := js[string](carol, "document.title"); !strings.HasPrefix(title, "Site") {
		t.Errorf("the title of carol's tab is %q", title)
	}
	if !js[bool](carol, "window.opened === 1") {
		t.Error("the page of carol was loaded again")
	}
	alice.blameless("status of 401")
	carol.blameless("status of 401")
}
