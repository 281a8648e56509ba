package web

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"rackpower/central/api"
	"rackpower/central/facts"
	"rackpower/power"
	"rackpower/power/noderange"
)

// Bounds of what a page shows.
const (
	topShown   = 5
	opsShown   = 200
	auditShown = 30
)

// tile is a rack as the site shows it.
type tile struct {
	api.Rack
	Worst   api.Severity // "": nothing is the matter
	Items   []api.Attention
	Members []api.Node
	On, Off int
	Other   int
}

// siteView is what the page of the site shows.
type siteView struct {
	Tiles []tile
	Top   []api.Attention
	More  int
	Nodes int
	On    int
	Off   int
	Other int
}

var rank = map[api.Severity]int{api.SeverityCritical: 0, api.SeverityWarning: 1, api.SeverityNotice: 2, "": 3}

// tiles are the racks, those in trouble first, and what is pressing.
func (v *visit) tiles() (out siteView, err error) {
	ctx := v.r.Context()
	racks, err := v.api.Racks(ctx)
	if err != nil {
		return out, err
	}
	items, err := v.attention()
	if err != nil {
		return out, err
	}
	out.Top = items
	if len(items) > topShown {
		out.Top, out.More = items[:topShown], len(items)-topShown
	}
	at := map[string]int{}
	for _, r := range racks {
		if r.Nodes > 0 {
			at[r.Name] = len(out.Tiles)
			out.Tiles = append(out.Tiles, tile{Rack: r})
		}
	}
	for _, x := range items { // the most pressing first
		if i, known := at[x.Rack]; known {
			t := &out.Tiles[i]
			t.Items, t.Worst = append(t.Items, x), cmp.Or(t.Worst, x.Severity)
		}
	}
	return out, nil
}

func (p *Page) showSite(v *visit) error {
	out, err := v.tiles()
	if err != nil {
		return err
	}
	nodes, err := v.api.Nodes(v.r.Context(), "all")
	if api.CodeOf(err) == api.CodeNotFound { // a scope without nodes
		err = nil
	}
	if err != nil {
		return err
	}
	at := map[string]int{}
	for i, t := range out.Tiles {
		at[t.Name] = i
	}
	for _, n := range nodes {
		i, known := at[n.Agent]
		if !known {
			i = len(out.Tiles)
			at[n.Agent] = i
			out.Tiles = append(out.Tiles, tile{Rack: api.Rack{Name: cmp.Or(n.Agent, n.Rack)}})
		}
		t := &out.Tiles[i]
		t.Members = append(t.Members, n)
		switch n.State {
		case power.On:
			t.On++
			out.On++
		case power.Off:
			t.Off++
			out.Off++
		default:
			t.Other++
			out.Other++
		}
	}
	out.Tiles = slices.DeleteFunc(out.Tiles, func(t tile) bool { return len(t.Members) == 0 }) // of another's part of the site
	slices.SortStableFunc(out.Tiles, func(a, b tile) int {
		return cmp.Or(rank[a.Worst]-rank[b.Worst], noderange.Compare(a.Name, b.Name))
	})
	out.Nodes = len(nodes)
	return v.show("site", "Site", "site", "cells", out)
}

// showHeads is what stands over the squares: the script puts it in place of what was there.
func (p *Page) showHeads(v *visit) error {
	out, err := v.tiles()
	if err != nil {
		return err
	}
	return v.show("heads", "Site", "site", "", out)
}

func (p *Page) showAttention(v *visit) error {
	items, err := v.attention()
	if err != nil {
		return err
	}
	return v.show("attention", "Attention", "attention", "page", items)
}

// rackView is what the page of a rack shows.
type rackView struct {
	tile
	Units     []unit // nil: no node has a place
	Elsewhere []string
	Form      changeForm
}

func (v *visit) rack(name string) (api.Rack, error) {
	racks, err := v.api.Racks(v.r.Context())
	if err != nil {
		return api.Rack{}, err
	}
	if i := slices.IndexFunc(racks, func(r api.Rack) bool { return r.Name == name }); i >= 0 {
		return racks[i], nil
	}
	return api.Rack{}, api.Problemf(api.CodeNotFound, "no such rack: %s", name)
}

func (p *Page) showRack(v *visit) error {
	name := v.r.PathValue("name")
	r, err := v.rack(name)
	if err != nil {
		return err
	}
	out := rackView{tile: tile{Rack: r}, Form: v.changeForm()}
	nodes, err := v.api.Nodes(v.r.Context(), "@"+name)
	if code := api.CodeOf(err); err != nil && code != api.CodeNotFound && code != api.CodeForbidden { // of another's part of the site
		return err
	}
	out.Members = nodes
	out.Units, out.Elsewhere = elevation(nodes)
	items, err := v.attention()
	if err != nil {
		return err
	}
	for _, x := range items {
		if x.Rack == name || x.Rack == "" && x.Kind == string(power.ReasonPaused) {
			out.Items, out.Worst = append(out.Items, x), cmp.Or(out.Worst, x.Severity)
		}
	}
	v.what = url.Values{"rack": {name}}
	return v.show("rack", "Rack "+name, "site", "page", out)
}

// nodeView is what the page of a node shows.
type nodeView struct {
	Node    api.Node
	E       api.Explanation
	Message string
	Facts   []facts.Fact
	Hints   []facts.Hint
	Seen    []api.ReadingRun
	Decided []api.Decision
	Line    []span
	From    time.Time
	Ops     []api.Op
	Audit   []api.AuditEntry
	Form    changeForm
	Retry   bool
}

// span is a part of the line that shows the power over time, in thousandths of its length.
type span struct {
	X, Width int
	Class    string
	Words    string
}

func (p *Page) showNode(v *visit) error {
	name, ctx := v.r.PathValue("name"), v.r.Context()
	if err := api.CheckName(name); err != nil { // an expression could select others
		return api.Problemf(api.CodeNotFound, "no such node: %s", name)
	}
	nodes, err := v.api.Nodes(ctx, name)
	if err != nil {
		return err
	}
	e, err := v.api.Explain(ctx, name)
	if err != nil {
		return err
	}
	out := nodeView{Node: nodes[0], E: e, Form: v.changeForm(), Ops: slices.Clone(e.Ops)}
	out.Message = facts.Lead(e)
	out.Facts = facts.Of(e, out.Node, v.now)
	out.Hints = facts.Hints(facts.AtCentral, v.now, e, out.Node)
	out.Retry = e.Monitor.Fault != "" || e.BMC != nil && e.BMC.BreakerOpen != "" || e.Reading.Reach != power.ReachOK
	out.Seen, out.Decided = slices.Clone(e.RecentReadings), slices.Clone(e.RecentDecisions)
	slices.Reverse(out.Seen)
	slices.Reverse(out.Decided)
	out.Line, out.From = lineOf(e.RecentReadings, v.now)
	slices.SortStableFunc(out.Ops, func(a, b api.Op) int {
		over := func(o api.Op) int { return min(len(o.Outcome), 1) }
		return cmp.Or(over(a)-over(b), b.AskedAt.Compare(a.AskedAt))
	})
	if out.Audit, err = v.api.Audit(ctx, name, auditShown); err != nil {
		return err
	}
	slices.SortStableFunc(out.Audit, func(a, b api.AuditEntry) int { return cmp.Compare(b.ID, a.ID) })
	v.what = url.Values{"node": {name}}
	return v.show("node", name, "site", "page", out)
}

// lineOf is the power of a node over the readings that its agent remembers. Between two of
// them the power was as the earlier one says.
func lineOf(runs []api.ReadingRun, now time.Time) (line []span, from time.Time) {
	if len(runs) == 0 || !runs[0].First.Before(now) {
		return nil, from
	}
	from = runs[0].First
	const width = 1000
	at := func(t time.Time) int {
		return max(0, min(width, int(width*t.Sub(from).Seconds()/now.Sub(from).Seconds())))
	}
	for i, r := range runs {
		end := now
		if i+1 < len(runs) {
			end = runs[i+1].First
		}
		class := "u"
		switch {
		case r.Reach != power.ReachOK:
			class = "x"
		case r.State == power.On:
			class = "n"
		case r.State == power.Off:
			class = "f"
		}
		words := fmt.Sprintf("%s, %s, from %s", r.State, r.Reach, power.At(r.First))
		line = append(line, span{at(r.First), max(at(end)-at(r.First), 2), class, words})
	}
	return line, from
}

// opsView is what the page of operations shows.
type opsView struct {
	Open, Ended []api.Op
	Total       int // outstanding
}

func (p *Page) showOps(v *visit) error {
	open, err := v.api.FindOps(v.r.Context(), api.QueryOps{Outstanding: true})
	if err != nil {
		return err
	}
	newest, err := v.api.QueryOps(v.r.Context(), api.QueryOps{Limit: opsShown})
	if err != nil {
		return err
	}
	out := opsView{Open: open.Ops, Total: len(open.Ops)}
	slices.SortStableFunc(out.Open, func(a, b api.Op) int {
		return cmp.Or(noderange.Compare(a.Node, b.Node), cmp.Compare(a.Seq, b.Seq))
	})
	out.Open = out.Open[:min(len(out.Open), opsShown)]
	for _, o := range slices.Backward(newest.Ops) {
		if o.EndedAt != nil {
			out.Ended = append(out.Ended, o)
		}
	}
	return v.show("ops", "Operations", "ops", "page", out)
}

// domainView is a power domain with how long its queue takes.
type domainView struct {
	api.Domain
	Left time.Duration       // until the last power-on that waits has started; 0: none waits, or not known
	Sum  *api.ConsumptionSum // nil: it was not asked for
}

// domainsView is what the page of power domains shows.
type domainsView struct {
	Domains []domainView
	Read    bool // the BMCs were asked how much power the nodes take
}

// wattsWait is how long the page waits for BMCs to say how much power the nodes take.
const wattsWait = 20 * time.Second

func (p *Page) showDomains(v *visit) error {
	all, err := v.api.Domains(v.r.Context())
	if err != nil {
		return err
	}
	sums := map[string]*api.ConsumptionSum{}
	out := domainsView{Read: v.r.URL.Query().Get("watts") != ""}
	live := "page"
	if out.Read {
		live = "" // BMCs are not asked again and again
		if sums, err = v.watts(); err != nil {
			return err
		}
	}
	for _, d := range all {
		row := domainView{Domain: d, Sum: sums[d.Name]}
		if d.Rate > 0 {
			row.Left = time.Duration(float64(d.Waiting) / d.Rate * float64(time.Second))
		}
		out.Domains = append(out.Domains, row)
	}
	return v.show("domains", "Power domains", "domains", live, out)
}

// watts has the BMCs of all nodes in power domains say what the nodes take.
func (v *visit) watts() (map[string]*api.ConsumptionSum, error) {
	sums := map[string]*api.ConsumptionSum{}
	nodes, err := v.api.Nodes(v.r.Context(), "all")
	if err != nil && api.CodeOf(err) != api.CodeNotFound {
		return nil, err
	}
	var names []string
	for _, n := range nodes {
		if n.Domain != "" {
			names = append(names, n.Name)
		}
	}
	if len(names) == 0 {
		return sums, nil
	}
	all, err := v.api.Consumption(v.r.Context(), api.ReadConsumption{Names: names, Wait: wattsWait})
	for i := range all.Domains {
		sums[all.Domains[i].Name] = &all.Domains[i]
	}
	return sums, err
}

func (p *Page) showApprovals(v *visit) error {
	all, err := v.api.Approvals(v.r.Context())
	if err != nil {
		return err
	}
	return v.show("approvals", "Approvals", "approvals", "page", all)
}

// find leads to the rack or the node of a name.
func (p *Page) find(v *visit) error {
	name := strings.TrimSpace(v.r.URL.Query().Get("q"))
	to := "nodes/"
	if _, err := v.rack(name); err == nil {
		to = "racks/"
	} else if api.CodeOf(err) != api.CodeNotFound {
		return err
	}
	http.Redirect(v.w, v.r, Prefix+to+url.PathEscape(name), http.StatusSeeOther)
	return nil
}
