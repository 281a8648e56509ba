package power

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// DefaultIPMIPort is the UDP port of RMCP (IPMI v2.0 section 13.1.2).
const DefaultIPMIPort = 623

// ParseEndpoint reads "ipmi://USER@HOST[:PORT][?suite=3]". A password in the
// text is an error: it would stand in the shell's history and the process list.
func ParseEndpoint(s string) (Endpoint, error) {
	const form = "want ipmi://USER@HOST[:PORT][?suite=N]"
	u, err := url.Parse(s)
	if err != nil {
		return Endpoint{}, fmt.Errorf("cannot read the BMC address: it is no URL; %s", form)
	}
	if _, has := u.User.Password(); has {
		return Endpoint{}, fmt.Errorf("cannot take a BMC address with a password in it: leave it out and use --password-file")
	}
	ep := Endpoint{Scheme: u.Scheme, Host: u.Hostname(), Port: DefaultIPMIPort, User: u.User.Username()}
	switch {
	case u.Scheme != "ipmi":
		return Endpoint{}, fmt.Errorf("cannot read BMC address %q: scheme %q is not supported, %s", s, u.Scheme, form)
	case ep.Host == "":
		return Endpoint{}, fmt.Errorf("cannot read BMC address %q: the host is missing", s)
	case strings.Contains(ep.Host, ":") && net.ParseIP(strings.SplitN(ep.Host, "%", 2)[0]) == nil:
		return Endpoint{}, fmt.Errorf("cannot read BMC address %q: %q is no IPv6 address", s, ep.Host)
	case u.Path != "" && u.Path != "/" || u.Fragment != "" || u.Opaque != "":
		return Endpoint{}, fmt.Errorf("cannot read BMC address %q: nothing may follow the host but ?suite=N", s)
	}
	if p := u.Port(); p != "" {
		if ep.Port, err = strconv.Atoi(p); err != nil || ep.Port < 1 || ep.Port > 65535 {
			return Endpoint{}, fmt.Errorf("cannot read BMC address %q: port %q is not between 1 and 65535", s, p)
		}
	}
	for key, values := range u.Query() {
		if key != "suite" || len(values) != 1 {
			return Endpoint{}, fmt.Errorf("cannot read BMC address %q: unknown option %q, known is suite, once", s, key)
		}
		if ep.Suite, err = strconv.Atoi(values[0]); err != nil || (ep.Suite != 3 && ep.Suite != 17) {
			return Endpoint{}, fmt.Errorf("cannot read BMC address %q: suite %q is not one of 3, 17", s, values[0])
		}
	}
	return ep, nil
}

// String writes the endpoint as ParseEndpoint reads it, without the password.
func (e Endpoint) String() string {
	u := url.URL{Scheme: e.Scheme, Host: e.Host}
	if strings.Contains(e.Host, ":") {
		u.Host = "[" + e.Host + "]"
	}
	if e.User != "" {
		u.User = url.User(e.User)
	}
	if e.Port != 0 && e.Port != DefaultIPMIPort {
		u.Host += ":" + strconv.Itoa(e.Port)
	}
	if e.Suite != 0 {
		u.RawQuery = "suite=" + strconv.Itoa(e.Suite)
	}
	return u.String()
}
