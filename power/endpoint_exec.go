package power

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxExecValue bounds the name of a program and the value of an option, in bytes.
const maxExecValue = 64

// execOptions are the options that may be given to a program, by the keys of the fence agents.
//
// The list is short for a reason: those who may add a node decide about that node alone. Keys
// such as ipmitool_path, ssh_options, password_script and debug_file have a fence agent run
// another program or write a file. Whoever runs the agent puts such settings into a program of
// their own, which calls the fence agent.
var execOptions = map[string]func(string) (canonical string, ok bool){
	"ip":       execHost,
	"ipport":   execNumber(1, 65535),
	"plug":     execWord,
	"lanplus":  execSwitch,
	"cipher":   execNumber(0, 17),
	"privlvl":  execOneOf("callback", "user", "operator", "administrator"),
	"ssl":      execSwitch,
	"username": func(v string) (string, bool) { return v, v != "" },

	"ssl_secure":    execSwitch,
	"ssl_insecure":  execSwitch,
	"snmp_version":  execOneOf("1", "2c", "3"),
	"login_timeout": execNumber(1, 60), "shell_timeout": execNumber(1, 60),
	"power_timeout": execNumber(1, 60), "power_wait": execNumber(0, 60),
}

func execHost(v string) (string, bool) {
	if addr, err := netip.ParseAddr(v); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), checkAddr(addr.Unmap()) == nil
	}
	host, err := canonicalHost(v, false)
	return host, err == nil
}

func execNumber(from, to int) func(string) (string, bool) {
	return func(v string) (string, bool) {
		n, err := strconv.Atoi(v)
		return strconv.Itoa(n), err == nil && n >= from && n <= to
	}
}

func execOneOf(words ...string) func(string) (string, bool) {
	return func(v string) (string, bool) {
		v = strings.ToLower(v)
		return v, slices.Contains(words, v)
	}
}

func execSwitch(v string) (string, bool) { return v, v == "0" || v == "1" }

// execWord takes the name of one outlet: no comma, which separates several, no blank, and no
// minus in front, which some programs take for one of their flags.
func execWord(v string) (string, bool) {
	for _, r := range v {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:/", r) {
			return "", false
		}
	}
	return v, v != "" && len(v) <= maxExecValue && v[0] != '-'
}

// isProgram reports whether a name is that of a file, in no other directory.
func isProgram(name string) bool {
	return name != "" && len(name) <= maxExecValue && name[0] != '.' && name[0] != '-' &&
		strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

// parseExec reads the address of a node whose power a program switches.
func parseExec(u *url.URL) (Endpoint, error) {
	form := endpointForm(SchemeExec)
	if !isProgram(u.Opaque) || u.Fragment != "" {
		return Endpoint{}, badEndpoint("behind exec: stands the name of a program, letters, digits and -_. alone, without directory; %s", form)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Endpoint{}, badEndpoint("its options are malformed; %s", form)
	}
	options := url.Values{}
	for key, values := range query {
		read := execOptions[key]
		if read == nil {
			return Endpoint{}, badEndpoint("an option is not one of %s; others are for a program of the agent's operator to add",
				strings.Join(slices.Sorted(maps.Keys(execOptions)), ", "))
		}
		value, ok := read(values[0])
		if len(values) != 1 || !ok {
			return Endpoint{}, badEndpoint("option %s is given twice or has no value that is known; %s", key, form)
		}
		options.Set(key, value)
	}
	ep := Endpoint{Scheme: SchemeExec, Program: u.Opaque, Host: options.Get("ip"), User: options.Get("username")}
	if err := ep.checkUser(); err != nil {
		return Endpoint{}, err
	}
	if ep.Port, _ = strconv.Atoi(options.Get("ipport")); ep.Port != 0 && ep.Host == "" {
		return Endpoint{}, badEndpoint("option ipport needs ip; %s", form)
	}
	options.Del("username")
	ep.Options = options.Encode()
	return ep, nil
}

// execString writes the endpoint as parseExec reads it.
func (e Endpoint) execString() string {
	options, _ := url.ParseQuery(e.Options)
	if e.User != "" {
		options.Set("username", e.User)
	}
	if len(options) == 0 {
		return SchemeExec + ":" + e.Program
	}
	return SchemeExec + ":" + e.Program + "?" + options.Encode()
}

// execKey names the device: by its address, whichever program switches it, or else by the
// program and all its options but the outlet.
func (e Endpoint) execKey() string {
	switch {
	case e.Host != "" && e.Port != 0:
		return SchemeExec + "://" + net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
	case e.Host != "":
		return SchemeExec + "://" + e.Host
	}
	options, _ := url.ParseQuery(e.Options)
	options.Del("plug")
	return SchemeExec + "://" + strings.TrimSuffix(e.Program+"?"+options.Encode(), "?")
}

// execPart names the outlet of the device.
func (e Endpoint) execPart() string {
	options, _ := url.ParseQuery(e.Options)
	if plug := options.Get("plug"); plug != "" {
		return e.execKey() + "/" + url.QueryEscape(plug)
	}
	return e.execKey()
}
