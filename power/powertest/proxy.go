package powertest

import (
	"net"
	"strconv"
	"sync"
	"testing"

	"rackpower/power"
)

// Filter decides what becomes of a datagram: what it returns is sent on in its
// place, in order; nothing loses it. It may keep and change what it is given.
type Filter func(datagram []byte) [][]byte

// Pass is the Filter that changes nothing.
func Pass(datagram []byte) [][]byte { return [][]byte{datagram} }

// Lose is the Filter that loses everything.
func Lose([]byte) [][]byte { return nil }

// Proxy is between a driver and a BMC and does what networks and attackers
// do. Methods may be called concurrently.
type Proxy struct {
	ep    power.Endpoint
	front *net.UDPConn
	wg    sync.WaitGroup

	mu       sync.Mutex // held while a filter runs
	toBMC    Filter
	fromBMC  Filter
	requests int
	backs    map[string]*net.UDPConn // by the driver's address
	closed   bool
}

// StartProxy starts a proxy to the BMC of ep that passes everything on, until the
// test ends.
func StartProxy(t testing.TB, ep power.Endpoint) *Proxy {
	t.Helper()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{ep: ep, front: front, toBMC: Pass, fromBMC: Pass, backs: map[string]*net.UDPConn{}}
	p.wg.Go(p.forth)
	t.Cleanup(p.Close)
	return p
}

// Endpoint is the BMC's endpoint by way of the proxy.
func (p *Proxy) Endpoint() power.Endpoint {
	ep := p.ep
	addr := p.front.LocalAddr().(*net.UDPAddr)
	ep.Host, ep.Port = addr.IP.String(), addr.Port
	return ep
}

// ToBMC sets the filter for what the driver sends.
func (p *Proxy) ToBMC(f Filter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.toBMC = f
}

// FromBMC sets the filter for what the BMC answers.
func (p *Proxy) FromBMC(f Filter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fromBMC = f
}

// Requests returns how many datagrams the driver sent, lost ones included.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

// Close ends the proxy. It may be called twice.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.front.Close()
	for _, back := range p.backs {
		back.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// forth carries datagrams to the BMC.
func (p *Proxy) forth() {
	for {
		buf := make([]byte, 2048)
		n, from, err := p.front.ReadFromUDP(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.requests++
		if back := p.back(from); back != nil {
			for _, d := range p.toBMC(buf[:n]) {
				back.Write(d)
			}
		}
		p.mu.Unlock()
	}
}

// back returns the socket that stands for the driver at that address.
func (p *Proxy) back(from *net.UDPAddr) *net.UDPConn {
	if back := p.backs[from.String()]; back != nil || p.closed {
		return back
	}
	conn, err := net.Dial("udp", net.JoinHostPort(p.ep.Host, strconv.Itoa(p.ep.Port)))
	if err != nil {
		return nil
	}
	back := conn.(*net.UDPConn)
	p.backs[from.String()] = back
	p.wg.Go(func() { p.backwards(back, from) })
	return back
}

// backwards carries the answers for one driver.
func (p *Proxy) backwards(back *net.UDPConn, to *net.UDPAddr) {
	for {
		buf := make([]byte, 2048)
		n, err := back.Read(buf)
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return
		}
		if err == nil { // else the BMC's port is closed just now
			for _, d := range p.fromBMC(buf[:n]) {
				p.front.WriteToUDP(d, to)
			}
		}
		p.mu.Unlock()
	}
}
