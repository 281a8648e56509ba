package power

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// The schemes of endpoints.
const (
	SchemeIPMI        = "ipmi"
	SchemeRedfish     = "redfish"
	SchemeRedfishHTTP = "redfish+http" // without TLS, for laboratories
	SchemeAuto        = "auto"         // Redfish or IPMI: the agent finds out
	SchemeExec        = "exec"         // a program that the agent runs
)

// DefaultIPMIPort is the UDP port of RMCP (IPMI v2.0 section 13.1.2).
const DefaultIPMIPort = 623

// defaultPorts are the ports that are left out of an address.
var defaultPorts = map[string]int{SchemeIPMI: DefaultIPMIPort, SchemeRedfish: 443, SchemeRedfishHTTP: 80, SchemeAuto: 443}

// Bounds of IPMI v2.0, in bytes (sections 13.20, 22.30).
const (
	MaxUser     = 16
	MaxPassword = 20 // of a password, and of K_g
)

// maxRedfishSecret bounds user and password of Redfish, which has no bound of its own.
const maxRedfishSecret = 128

// addrBMC is the IPMB address of a BMC itself (section 5.5): a target of this
// address is no other part.
const addrBMC = 0x20

// Level is the highest privilege that a session asks for (section 6.8).
type Level string

// The levels. The empty Level asks for the highest that the BMC gives.
const (
	LevelUser          Level = "user"
	LevelOperator      Level = "operator"
	LevelAdministrator Level = "administrator"
)

// Endpoint says how one BMC is reached, and which part of what it manages is meant.
// Two endpoints are of one BMC if their Keys are equal, and of one node if their
// Parts are. ParseEndpoint makes equal what is equal; its values may be compared.
type Endpoint struct {
	Scheme   string // one of the Scheme constants
	Host     string // name in lower case, or address as netip writes it
	Port     int    // that of the scheme when zero
	User     string
	Password Secret
	KG       Secret // BMC key as ParseKG reads it; "": the password is used
	Suite    int    // cipher suite to insist on; 0: let the driver choose
	// Target is the IPMB address of a management controller behind the BMC, such as
	// that of a node in a multi-node chassis; commands are bridged to it over Channel.
	// 0: the BMC itself.
	Target  uint8
	Channel uint8 // 0: the primary IPMB; only with a Target
	Level   Level
	// LegacyBoot has boot devices booted by the PC BIOS instead of EFI.
	LegacyBoot bool
	// System is the Redfish System that is meant, by its Id; "": the only one of the BMC
	// that can be reset.
	System string
	// Pin is the public key that the BMC's certificate must have: PinFirst, the one that was
	// seen first; sha256: and its hash in hexadecimal digits; "": any that a trusted authority
	// has certified for the host.
	Pin string
	// OldTLS allows TLS 1.2.
	OldTLS bool
	// Basic has user and password sent with each request, without a session.
	Basic bool
	// Program is what the agent runs, by its name in the agent's directory of programs, and
	// Options are what it is told beside the action and the log-in, in the order of their keys
	// and encoded as in a URL. Host is the device that they name (ip), or empty; Port as
	// they say (ipport), or zero.
	Program, Options string
}

// PinFirst is the Pin of a BMC whose key is taken as it is seen first.
const PinFirst = "first"

// TrustsNobody reports whether nothing says which public key the BMC has, so that its
// certificate must be of an authority that the agent trusts.
func (e Endpoint) TrustsNobody() bool {
	return (e.Scheme == SchemeRedfish || e.Scheme == SchemeAuto) && e.Pin == ""
}

// IsRedfish reports whether the BMC is spoken to by Redfish.
func (e Endpoint) IsRedfish() bool { return e.Scheme == SchemeRedfish || e.Scheme == SchemeRedfishHTTP }

// As is an auto endpoint by the protocol that its BMC turned out to speak.
func (e Endpoint) As(scheme string) Endpoint {
	e.Scheme, e.Port = scheme, defaultPorts[scheme]
	if scheme == SchemeIPMI {
		e.Pin, e.OldTLS = "", false
	}
	return e
}

// Key names the BMC, without credentials and part: what the lock per BMC hangs on.
func (e Endpoint) Key() string {
	if e.Scheme == SchemeExec {
		return e.execKey()
	}
	scheme, port := e.Scheme, e.Port
	if port == 0 {
		port = defaultPorts[scheme]
	}
	if scheme == SchemeAuto || scheme == SchemeRedfishHTTP && port == defaultPorts[scheme] { // the same BMC listens on both
		scheme, port = SchemeRedfish, defaultPorts[SchemeRedfish]
	}
	return scheme + "://" + net.JoinHostPort(e.Host, strconv.Itoa(port))
}

// Part names what the BMC manages as one node: its Key, and the target or System if there is
// one.
func (e Endpoint) Part() string {
	switch {
	case e.Target != 0:
		return fmt.Sprintf("%s/%#02x/%d", e.Key(), e.Target, e.Channel)
	case e.System != "":
		return e.Key() + "/" + e.System
	case e.Scheme == SchemeExec:
		return e.execPart()
	}
	return e.Key()
}

// BMC is the endpoint without the part of its BMC that is meant.
func (e Endpoint) BMC() Endpoint {
	e.Target, e.Channel, e.System = 0, 0, ""
	return e
}

// At is the endpoint with an address in place of the host's name.
func (e Endpoint) At(addr netip.Addr) Endpoint {
	if e.Scheme == SchemeExec { // the program looks names up itself
		return e
	}
	e.Host = addr.Unmap().String()
	return e
}

// IsAddr reports whether the host is an address, and no name to be looked up.
func (e Endpoint) IsAddr() bool {
	if e.Scheme == SchemeExec {
		return true
	}
	_, err := netip.ParseAddr(e.Host)
	return err == nil
}

// SharedBMC says why nothing acts on a node whose BMC others have as well.
func SharedBMC(node, others string) string {
	return fmt.Sprintf("node %s has the same BMC as %s: what cuts the power of one would cut the other's. "+
		"Correct an address (rackpower node add --update --bmc), say which parts of the BMC they are (?target=0x30 of IPMI, /SYSTEM of "+
		"Redfish), or remove one (rackpower "+
		"node rm)", node, others)
}

// LinkLocal reports whether the host is an address that means another machine on each
// network segment.
func (e Endpoint) LinkLocal() bool {
	addr, err := netip.ParseAddr(e.Host)
	return err == nil && addr.IsLinkLocalUnicast()
}

// endpointForms are what is wanted by the scheme; "": where it is not known.
var endpointForms = map[string]string{
	"":            "want ipmi://USER@HOST, redfish://USER@HOST/[SYSTEM], auto://USER@HOST or exec:PROGRAM",
	SchemeIPMI:    "want ipmi://USER@HOST[:PORT][?suite=3|17&target=0x30&channel=0&level=user|operator|administrator&boot=legacy|efi]",
	SchemeRedfish: "want redfish://USER@HOST[:PORT]/[SYSTEM][?pin=first|sha256:HASH&tls=1.2&auth=session|basic&boot=legacy|efi]",
	SchemeAuto:    "want auto://USER@HOST[?pin=first|sha256:HASH&tls=1.2&boot=legacy|efi], without port",
	SchemeExec:    "want exec:PROGRAM[?username=USER&ip=HOST&plug=OUTLET&...]",
}

func endpointForm(scheme string) string {
	if scheme == SchemeRedfishHTTP {
		scheme = SchemeRedfish
	}
	return endpointForms[scheme]
}

// errPassword never says what it was found in.
var errPassword = errors.New("a BMC address must not hold a password: use --password-file FILE (in a file of nodes: password_file). " +
	"If it was typed, it is in the shell's history now: change it")

func badEndpoint(format string, args ...any) error {
	return fmt.Errorf("cannot read the BMC address: "+format, args...)
}

// ParseEndpoint reads
//
//	ipmi://USER@HOST[:PORT][?suite=3|17&target=0x30&channel=0&level=user|operator|administrator&boot=legacy|efi]
//	redfish://USER@HOST[:PORT]/[SYSTEM][?pin=first|sha256:HASH&tls=1.2&auth=session|basic&boot=legacy|efi]
//	auto://USER@HOST[?pin=first|sha256:HASH&tls=1.2&boot=legacy|efi]
//	exec:PROGRAM[?username=USER&ip=HOST&ipport=PORT&plug=OUTLET&...]
//
// (or redfish+http://) and brings it into its one canonical form: however an address is
// spelt, Key and Part are the same. What looks like a password is an error: it would stand
// in the shell's history, the process list and the database. No error repeats the text, nor
// any piece of it that could be a password.
func ParseEndpoint(s string) (Endpoint, error) {
	switch {
	case strings.Contains(s, "kg-file="):
		return Endpoint{}, badEndpoint("kg-file is read by rackpower node add and import, from the machine that they run on: give K_g itself " +
			"as the node's kg")
	case holdsPassword(s):
		return Endpoint{}, errPassword
	}
	u, err := url.Parse(s)
	if err == nil && u.Scheme == SchemeExec {
		return parseExec(u)
	}
	if err != nil || u.Opaque != "" || !strings.Contains(s, "://") {
		return Endpoint{}, badEndpoint("it is no URL; %s", endpointForm(""))
	}
	ep := Endpoint{Scheme: u.Scheme, Port: defaultPorts[u.Scheme], User: u.User.Username()}
	form := endpointForm(u.Scheme)
	switch {
	case ep.Port == 0:
		return Endpoint{}, badEndpoint("only the schemes ipmi://, redfish://, redfish+http://, auto:// and exec: are supported; %s",
			endpointForm(""))
	case !ep.IsRedfish() && u.Path != "" && u.Path != "/" || u.Fragment != "":
		return Endpoint{}, badEndpoint("nothing may follow the host but options; %s", form)
	}
	if err := ep.checkUser(); err != nil {
		return Endpoint{}, err
	}
	if ep.Host, err = canonicalHost(u.Hostname(), strings.HasPrefix(u.Host, "[")); err != nil {
		return Endpoint{}, badEndpoint("%w; %s", err, form)
	}
	if p := u.Port(); p != "" {
		if ep.Scheme == SchemeAuto {
			return Endpoint{}, badEndpoint("auto looks at the usual ports of IPMI and Redfish; %s", form)
		}
		if ep.Port, err = strconv.Atoi(p); err != nil || ep.Port < 1 || ep.Port > 65535 {
			return Endpoint{}, badEndpoint("the port is not between 1 and 65535")
		}
	}
	if ep.IsRedfish() {
		if err := ep.readSystem(u.Path); err != nil {
			return Endpoint{}, err
		}
	}
	return ep, ep.readOptions(u.RawQuery)
}

// readSystem reads the System behind the host: its Id, or the path of its resource.
func (e *Endpoint) readSystem(path string) error {
	path = strings.Trim(path, "/")
	if rest, is := strings.CutPrefix(strings.ToLower(path), "redfish/v1/systems/"); is {
		path = path[len(path)-len(rest):]
	}
	if len(path) > 64 || strings.Trim(strings.ToLower(path), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" ||
		path != "" && strings.Trim(path, ".") == "" {
		return badEndpoint("behind the host may be the Id of one System: letters, digits and -_. alone; %s", endpointForm(e.Scheme))
	}
	e.System = path
	return nil
}

// holdsPassword reports whether the text looks as if somebody had written a password
// into it: behind the user, encoded or not, or as an option.
func holdsPassword(s string) bool {
	plain := s
	for range 3 { // as often as it may have been encoded
		next, err := url.PathUnescape(plain)
		if err != nil || next == plain {
			break
		}
		plain = next
	}
	_, rest, found := strings.Cut(plain, "://")
	if !found {
		rest = plain
		scheme, tail, _ := strings.Cut(rest, ":")
		if defaultPorts[strings.ToLower(scheme)] != 0 {
			rest = strings.TrimLeft(tail, "/")
		}
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 && strings.ContainsAny(rest[:at], ":@/;|?#") {
		return true
	}
	_, query, _ := strings.Cut(strings.ToLower(rest), "?")
	for _, option := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(option, "=")
		for _, word := range []string{"pass", "pw", "secret", "cred", "token", "kg", "key"} {
			if strings.Contains(name, word) {
				return true
			}
		}
	}
	return false
}

// likelySecret finds words that look like an address with a password in it.
var likelySecret = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[^\s"'=]*(?:[:/?][^\s"'@]*@|\?)[^\s"']*`) })

// Redact takes out of a text for people what looks like a password within an address:
// somebody may have given one where a name was wanted.
func Redact(text string) string {
	return likelySecret().ReplaceAllStringFunc(text, func(word string) string {
		if holdsPassword(word) {
			return redacted
		}
		return word
	})
}

// checkUser refuses what the protocol has no room for, and what is no plain name.
func (e Endpoint) checkUser() error {
	switch {
	case e.Scheme == SchemeIPMI && len(e.User) > MaxUser:
		return badEndpoint("the user name is longer than the %d bytes of IPMI", MaxUser)
	case len(e.User) > maxRedfishSecret:
		return badEndpoint("the user name is longer than %d bytes", maxRedfishSecret)
	}
	for _, r := range e.User {
		if r <= ' ' || r > '~' || strings.ContainsRune(":/@;|\"'`<>", r) {
			return badEndpoint("the user name holds something other than letters, digits and plain signs")
		}
	}
	return nil
}

// canonicalHost brings a host's name or address into its one form.
func canonicalHost(host string, brackets bool) (string, error) {
	switch {
	case host == "":
		return "", errors.New("the host is missing")
	case brackets:
		return canonicalIPv6(host)
	case strings.Contains(host, ":"):
		return "", errors.New("write an IPv6 address in brackets: USER@[ADDRESS]")
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	labels := strings.Split(host, ".")
	if numeric(labels[len(labels)-1]) {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return "", errors.New("the host is no IPv4 address: want four numbers from 0 to 255 without leading zeros")
		}
		return addr.String(), checkAddr(addr)
	}
	if len(host) > 253 {
		return "", errors.New("the host's name is longer than 253 characters")
	}
	for _, l := range labels {
		if !hostLabel(l) {
			return "", errors.New("the host is no name: want letters, digits, hyphens and dots (a name in another script in its xn-- form)")
		}
	}
	return host, nil
}

// numeric reports whether the last label of a host has programs take it for an IPv4
// address, in one of its odd forms too.
func numeric(label string) bool {
	if hexa, found := strings.CutPrefix(label, "0x"); found {
		return strings.Trim(hexa, "0123456789abcdef") == ""
	}
	return label != "" && strings.Trim(label, "0123456789") == ""
}

func hostLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	return strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

func canonicalIPv6(host string) (string, error) {
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil || !addr.Is6():
		return "", errors.New("the text in brackets is no IPv6 address")
	case addr.Zone() == "":
	case !addr.IsLinkLocalUnicast():
		return "", errors.New("only a link-local address (fe80::) has a zone")
	case numeric(addr.Zone()) || len(addr.Zone()) > 15 ||
		strings.Trim(strings.ToLower(addr.Zone()), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "":
		return "", errors.New("the zone is no name of an interface")
	}
	addr = addr.Unmap()
	return addr.String(), checkAddr(addr)
}

func checkAddr(addr netip.Addr) error {
	if addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s is not the address of one machine", addr)
	}
	return nil
}

// readOptions reads the text behind the question mark.
func (e *Endpoint) readOptions(query string) error {
	form := endpointForm(e.Scheme)
	options, err := url.ParseQuery(query)
	if err != nil {
		return badEndpoint("its options are malformed; %s", form)
	}
	known := redfishOptions
	switch e.Scheme {
	case SchemeIPMI:
		known = ipmiOptions
	case SchemeAuto:
		known = autoOptions
	}
	for key, values := range options {
		read := known[key]
		if read == nil {
			return badEndpoint("an option is not one of %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if len(values) != 1 || !read(e, values[0]) {
			return badEndpoint("option %s is given twice or has no value that is known; %s", key, form)
		}
	}
	switch {
	case e.Target == 0 && options.Has("channel"):
		return badEndpoint("a channel needs a target: ?target=0x30&channel=%d", e.Channel)
	case e.Target == addrBMC && e.Channel != 0:
		return badEndpoint("target 0x20 is the BMC itself, on no other channel")
	case e.Target == addrBMC:
		e.Target = 0
	case e.Scheme == SchemeRedfishHTTP && (e.Pin != "" || e.OldTLS):
		return badEndpoint("redfish+http has no TLS: neither pin nor tls")
	}
	return nil
}

// ipmiOptions read the value of an option; false: it has none such.
var ipmiOptions = map[string]func(*Endpoint, string) bool{
	"suite": func(e *Endpoint, v string) bool {
		n, ok := number(v)
		e.Suite = int(n)
		return ok && (n == 3 || n == 17)
	},
	// Slave addresses are even: the lowest bit belongs to software (section 5.5).
	"target": func(e *Endpoint, v string) bool {
		n, ok := number(v)
		e.Target = n
		return ok && n > 0 && n%2 == 0
	},
	"channel": func(e *Endpoint, v string) bool {
		n, ok := number(v)
		e.Channel = n
		return ok && n <= 0x0B
	},
	"level": func(e *Endpoint, v string) bool {
		e.Level = Level(strings.ToLower(v))
		return e.Level == LevelUser || e.Level == LevelOperator || e.Level == LevelAdministrator
	},
	"boot": readBoot,
}

// redfishOptions are those of Redfish.
var redfishOptions = map[string]func(*Endpoint, string) bool{
	"pin": func(e *Endpoint, v string) (ok bool) {
		e.Pin, ok = canonicalPin(v)
		return ok
	},
	"tls": func(e *Endpoint, v string) bool {
		e.OldTLS = v == "1.2"
		return v == "1.2" || v == "1.3"
	},
	"auth": func(e *Endpoint, v string) bool {
		v = strings.ToLower(v)
		e.Basic = v == "basic"
		return v == "basic" || v == "session"
	},
	"boot": readBoot,
}

// autoOptions are those that may stay whatever the protocol turns out to be.
var autoOptions = map[string]func(*Endpoint, string) bool{
	"pin": redfishOptions["pin"], "tls": redfishOptions["tls"], "boot": readBoot,
}

func readBoot(e *Endpoint, v string) bool {
	v = strings.ToLower(v)
	e.LegacyBoot = v == "legacy"
	return v == "legacy" || v == "efi"
}

// pinPrefix goes before the hash of a key.
const pinPrefix = "sha256:"

// PinOf is the Pin of a public key, in its DER encoding (SubjectPublicKeyInfo).
func PinOf(key []byte) string {
	sum := sha256.Sum256(key)
	return pinPrefix + hex.EncodeToString(sum[:])
}

// canonicalPin brings a pin into its one form: also without its prefix, in capitals, or with
// colons between the bytes.
func canonicalPin(v string) (pin string, ok bool) {
	v = strings.ToLower(v)
	if v == PinFirst {
		return v, true
	}
	digits := strings.ReplaceAll(strings.TrimPrefix(v, pinPrefix), ":", "")
	sum, err := hex.DecodeString(digits)
	return pinPrefix + digits, err == nil && len(sum) == sha256.Size
}

// number reads 48 and 0x30; never an octal one.
func number(s string) (uint8, bool) {
	base := 10
	if digits, found := strings.CutPrefix(strings.ToLower(s), "0x"); found {
		s, base = digits, 16
	}
	n, err := strconv.ParseUint(s, base, 8)
	return uint8(n), err == nil
}

// String writes the endpoint as ParseEndpoint reads it, without its secrets.
func (e Endpoint) String() string {
	if e.Scheme == SchemeExec {
		return e.execString()
	}
	u := url.URL{Scheme: e.Scheme, Host: e.Host}
	if strings.Contains(e.Host, ":") {
		u.Host = "[" + e.Host + "]"
	}
	if e.User != "" {
		u.User = url.User(e.User)
	}
	if e.System != "" {
		u.Path = "/" + e.System
	}
	if e.Port != 0 && e.Port != defaultPorts[e.Scheme] {
		u.Host += ":" + strconv.Itoa(e.Port)
	}
	var options []string
	add := func(set bool, format string, value any) {
		if set {
			options = append(options, fmt.Sprintf(format, value))
		}
	}
	add(e.Suite != 0, "suite=%d", e.Suite)
	add(e.Target != 0, "target=%#02x", e.Target)
	add(e.Channel != 0, "channel=%d", e.Channel)
	add(e.Level != "", "level=%s", e.Level)
	add(e.LegacyBoot, "boot=%s", "legacy")
	add(e.Pin != "", "pin=%s", e.Pin)
	add(e.OldTLS, "tls=%s", "1.2")
	add(e.Basic, "auth=%s", "basic")
	u.RawQuery = strings.Join(options, "&")
	return u.String()
}

// CutKGFile takes the option kg-file out of a BMC address: the file that its K_g is to
// be read from, "" when there is none. What is left is for ParseEndpoint.
func CutKGFile(s string) (rest, file string, err error) {
	base, query, found := strings.Cut(s, "?")
	if !found {
		return s, "", nil
	}
	var kept []string
	for option := range strings.SplitSeq(query, "&") {
		value, is := strings.CutPrefix(option, "kg-file=")
		if !is {
			kept = append(kept, option)
			continue
		}
		if file != "" || value == "" {
			return "", "", badEndpoint("kg-file wants the name of one file")
		}
		if file, err = url.QueryUnescape(value); err != nil {
			return "", "", badEndpoint("the name of the kg-file is malformed")
		}
	}
	if len(kept) > 0 {
		base += "?" + strings.Join(kept, "&")
	}
	return base, file, nil
}

// CheckPassword refuses a password that the BMC of that address cannot have: longer than
// IPMI's 20 bytes, or with something in it that came from a file's format and that nobody
// typed. "" is an address that is not known here.
func CheckPassword(p Secret, bmc string) error {
	if strings.HasPrefix(strings.ToLower(bmc), SchemeIPMI+":") {
		return checkSecret("the password", string(p))
	}
	if len(p) > maxRedfishSecret {
		return fmt.Errorf("the password is longer than %d bytes", maxRedfishSecret)
	}
	return checkText("the password", string(p))
}

func checkSecret(what, s string) error {
	if len(s) > MaxPassword {
		return fmt.Errorf("%s is %d bytes long, and IPMI v2.0 takes %d at most", what, len(s), MaxPassword)
	}
	return checkText(what, s)
}

func checkText(what, s string) error {
	switch {
	case !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError):
		return fmt.Errorf("%s is not text in UTF-8", what)
	case strings.HasPrefix(s, "\uFEFF"):
		return fmt.Errorf("%s begins with a byte order mark: save the file without one", what)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7F }):
		return fmt.Errorf("%s holds a line break or another control character", what)
	}
	return nil
}

// ParseKG reads a BMC key K_g: text of up to 20 bytes, or 0x and up to 40 hexadecimal
// digits. "" is none.
func ParseKG(kg Secret) ([]byte, error) {
	digits, isHex := strings.CutPrefix(string(kg), "0x")
	if !isHex {
		return []byte(kg), checkSecret("K_g", string(kg))
	}
	key, err := hex.DecodeString(digits)
	switch {
	case err != nil:
		return nil, errors.New("the key K_g begins with 0x and is no even number of hexadecimal digits")
	case len(key) > MaxPassword:
		return nil, fmt.Errorf("the key K_g is %d bytes long, and IPMI v2.0 takes %d at most", len(key), MaxPassword)
	case strings.Trim(string(key), "\x00") == "":
		return nil, errors.New("a K_g of zeros is none: leave it out")
	}
	return key, nil
}
