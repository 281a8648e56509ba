package bmcsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"rackpower/power"
)

// View is what the control endpoint shows of a BMC.
type View struct {
	Name     string           `json:"name"`
	Addr     string           `json:"addr"`
	Power    power.State      `json:"power"`
	Pending  power.State      `json:"pending,omitempty"` // what the power is about to be, if it is not that yet
	Boot     power.BootDevice `json:"boot,omitempty"`
	LastBoot power.BootDevice `json:"last_boot,omitempty"`
	Sessions int              `json:"sessions"`
	Commands int              `json:"commands"`
	Cuts     int              `json:"cuts"`
	PowerOns int              `json:"power_ons"`
	Resets   int              `json:"resets"`
	Diags    int              `json:"diags"`
	counts
	Redfish         string  `json:"redfish,omitempty"` // its URL
	Pin             string  `json:"pin,omitempty"`     // of its key
	Profile         string  `json:"profile,omitempty"`
	RedfishSessions int     `json:"redfish_sessions,omitempty"`
	Limit           int     `json:"limit,omitempty"` // in watts
	Fault           Fault   `json:"fault"`
	Log             []Entry `json:"log,omitempty"`
}

// view returns the state of the BMC, with its log if wanted.
func (b *BMC) view(withLog bool) View {
	now, unlock := b.look()
	defer unlock()
	b.evict(now)
	n, s := b.node, b.faults
	v := View{
		Name: b.name, Addr: b.addr.String(), Power: stateOf(n.on), Boot: n.bootDevice(), LastBoot: n.lastBoot,
		Sessions: len(b.sessions), Cuts: n.cuts, PowerOns: n.powerOns, Resets: n.resets, Diags: n.diags, counts: b.counts, Limit: n.limit,
		Fault: Fault{
			Mute: &s.mute, LossRx: &s.lossRx, LossTx: &s.lossTx, Delay: (*Duration)(&s.delay), Duplicate: &s.duplicate,
			Stuck: &n.stuck, Deaf: &n.deaf, OnAfter: (*Duration)(&n.onAfter), OffAfter: (*Duration)(&n.offAfter),
			SoftOffTakes: (*Duration)(&n.softAfter), ComesBack: (*Duration)(&n.backAfter),
			FailCode: &s.failCode, FailNext: &s.failNext, LoseAnswers: &s.loseNext, LoseRequests: &s.loseRequests,
			Lag:          (*Duration)(&n.lag),
			SessionLimit: &s.limit, SessionIdle: (*Duration)(&s.idle), BootTime: (*Duration)(&s.bootTime),
			IgnoreProbes: &s.ignoreProbes, NoIPMI20: &s.noIPMI20, BadChecksums: &s.badChecksums, RAKP2Status: &s.rakp2Status,
			RAKP4Status: &s.rakp4Status,
		},
	}
	if w := b.redfish; w != nil {
		w.evict(now)
		v.Redfish, v.Profile, v.RedfishSessions, v.Fault.Redfish = b.RedfishURL(), w.profile.Name, len(w.sessions), w.view()
		v.Pin = w.pin()
	}
	if n.target != n.on {
		v.Pending = stateOf(n.target)
	}
	for _, e := range b.entries {
		if !e.Event {
			v.Commands++
		}
	}
	if withLog {
		v.Log = append([]Entry{}, b.entries...)
	}
	return v
}

// ControlHandler serves the control endpoint: see the package's README.
func (f *Farm) ControlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		views := make([]View, 0, len(f.bmcs))
		for _, b := range f.bmcs {
			views = append(views, b.view(false))
		}
		answer(w, views)
	})
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		if fault, ok := readFault(w, r); ok {
			for _, b := range f.bmcs {
				b.Set(fault)
			}
			answer(w, map[string]int{"changed": len(f.bmcs)})
		}
	})
	mux.HandleFunc("GET /bmc/{name}", f.withBMC(func(w http.ResponseWriter, _ *http.Request, b *BMC) {
		answer(w, b.view(true))
	}))
	mux.HandleFunc("POST /bmc/{name}", f.withBMC(func(w http.ResponseWriter, r *http.Request, b *BMC) {
		if fault, ok := readFault(w, r); ok {
			b.Set(fault)
			answer(w, b.view(false))
		}
	}))
	return mux
}

func (f *Farm) withBMC(h func(http.ResponseWriter, *http.Request, *BMC)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b := f.byName[r.PathValue("name")]
		if b == nil {
			http.Error(w, fmt.Sprintf("no BMC is named %q", r.PathValue("name")), http.StatusNotFound)
			return
		}
		h(w, r, b)
	}
}

func readFault(w http.ResponseWriter, r *http.Request) (Fault, bool) {
	var f Fault
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	dec.DisallowUnknownFields()
	err := dec.Decode(&f)
	if err == nil {
		err = f.Validate()
	}
	if err != nil {
		http.Error(w, "cannot use this as a fault: "+err.Error(), http.StatusBadRequest)
		return f, false
	}
	return f, true
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the other side may have left
}

// ControlAddr returns where the control endpoint listens, nil without one.
func (f *Farm) ControlAddr() net.Addr { return f.control }

// serveControl opens the control endpoint, if one is configured, and returns how
// to stop it.
func (f *Farm) serveControl() (stop func() error, err error) {
	if f.cfg.Control == "" {
		return nil, nil
	}
	l, err := listenControl(f.cfg.Control)
	if err != nil {
		return nil, fmt.Errorf("cannot open the control endpoint: %w", err)
	}
	f.control = l.Addr()
	srv := &http.Server{Handler: f.ControlHandler(), ReadHeaderTimeout: 5 * time.Second}
	f.wg.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			f.cfg.Logger.Error("the control endpoint has ended", "err", err)
		}
	})
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil { // someone is slow
			return srv.Close()
		}
		return nil
	}, nil
}

// listenControl listens on a loopback address, or on a unix socket when there is
// a slash in addr. Anyone who gets through may do anything to the farm.
func listenControl(addr string) (net.Listener, error) {
	addr = strings.TrimPrefix(addr, "unix://")
	if strings.Contains(addr, "/") {
		if info, err := os.Lstat(addr); err == nil && info.Mode()&os.ModeSocket != 0 {
			_ = os.Remove(addr) // left by a process that was killed
		}
		l, err := net.Listen("unix", addr)
		if err != nil {
			return nil, err
		}
		return l, os.Chmod(addr, 0o600)
	}
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address", addr)
	}
	return net.ListenTCP("tcp", tcp)
}
