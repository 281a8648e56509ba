package power

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// spellings is how one and the same BMC may be written.
var spellings = map[string][]string{
	"ipmi://bmc1.example:623": {
		"ipmi://bmc1.example", "ipmi://BMC1.Example", "IPMI://bmc1.example.", "ipmi://bmc1.example:623", "ipmi://bmc1.example:0623",
		"ipmi://bmc1.example:",
		"ipmi://root@bmc1.example/", "ipmi://admin@bmc1.EXAMPLE.:623?suite=3", "ipmi://bmc1.example?level=User&boot=efi",
		"ipmi://bmc1.example?target=0x20",
	},
	"ipmi://10.0.0.1:623": {
		"ipmi://10.0.0.1", "ipmi://10.0.0.1.", "ipmi://[::ffff:10.0.0.1]", "ipmi://[::FFFF:a00:1]:623",
		"ipmi://[0:0:0:0:0:ffff:10.0.0.1]",
	},
	"ipmi://[2001:db8::1]:623": {
		"ipmi://[2001:db8::1]", "ipmi://[2001:DB8:0:0:0:0:0:1]", "ipmi://a@[2001:0db8::0001]:623/", "ipmi://[2001:db8::0.0.0.1]",
	},
	"ipmi://[fe80::1%eth0]:623": {"ipmi://[fe80::1%25eth0]", "ipmi://[FE80::0001%25eth0]:623"},
	"ipmi://h:6230/0x30/0":      {"ipmi://h:6230?target=0x30", "ipmi://H.:6230?target=48&channel=0", "ipmi://h:6230?channel=0x0&target=0X30"},
	"ipmi://h:623/0x2c/6":       {"ipmi://h?target=0x2c&channel=6", "ipmi://h?target=0x2C&channel=0x06&suite=17"},
	"ipmi://xn--bmc-zna.de:623": {"ipmi://xn--bmc-zna.de", "ipmi://XN--BMC-ZNA.de."},
	"ipmi://rack_1-bmc7:623":    {"ipmi://rack_1-bmc7", "ipmi://RACK_1-BMC7"},
	"ipmi://1.example:623":      {"ipmi://1.example"},
	"redfish://h7:443": {
		"redfish://h7", "redfish://admin@H7.:443/?pin=first", "redfish+http://h7", "auto://h7", "auto://root@H7.?pin=first&tls=1.2&boot=legacy",
	},
	"ipmi://0xff.example.net:80": {"ipmi://0XFF.example.net:80"},
}

func TestOneBMCHasOneKey(t *testing.T) {
	for part, all := range spellings {
		for _, s := range all {
			ep, err := ParseEndpoint(s)
			if err != nil || ep.Part() != part {
				t.Errorf("%s: part %q, %v; want %q", s, ep.Part(), err, part)
			}
			if !strings.HasPrefix(part, ep.Key()) {
				t.Errorf("%s: key %q", s, ep.Key())
			}
		}
	}
	a, b := Endpoint{Scheme: "ipmi", Host: "h", Target: 0x30}, Endpoint{Scheme: "ipmi", Host: "h", Target: 0x32, Port: DefaultIPMIPort}
	if a.Key() != b.Key() || a.Part() == b.Part() {
		t.Errorf("parts of one BMC: keys %s and %s, parts %s and %s", a.Key(), b.Key(), a.Part(), b.Part())
	}
	if at := a.At(netip.MustParseAddr("::ffff:10.0.0.1")); at.Part() != "ipmi://10.0.0.1:623/0x30/0" {
		t.Errorf("at an address: %s", at.Part())
	}
}

// TestSpellingIsNotIdentity draws an endpoint and writes it in another way.
func TestSpellingIsNotIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z][a-z0-9]{0,5}(\.[a-z][a-z0-9]{0,4}){0,2}`).Draw(t, "name")
		addr := netip.AddrFrom4([4]byte{byte(rapid.IntRange(1, 223).Draw(t, "a")), 0, byte(rapid.IntRange(0, 255).Draw(t, "b")), 9})
		forms := [][]string{
			{name, strings.ToUpper(name), name + ".", scatter(name, rapid.Uint64().Draw(t, "case"))},
			{addr.String(), addr.String() + ".", "[" + netip.AddrFrom16(addr.As16()).String() + "]", "[" +
				netip.AddrFrom16(addr.As16()).StringExpanded() + "]"},
		}
		hosts := rapid.SampledFrom(forms).Draw(t, "host")
		ports := rapid.SampledFrom([][]string{{"", ":623", ":0623", ":", "/"}, {":6230", ":06230", ":6230/"}}).Draw(t, "port")
		parts := rapid.SampledFrom([][]string{
			{"", "?target=0x20", "?target=32&level=user", "?suite=3", "?boot=legacy"},
			{"?target=0x30", "?target=48", "?channel=0&target=0X30"},
		}).Draw(t, "part")
		write := func(n string) string {
			user := rapid.SampledFrom([]string{"", "admin@", "%61dmin@", "root@"}).Draw(t, "user"+n)
			return "ipmi://" + user + rapid.SampledFrom(hosts).Draw(t, "host"+n) + rapid.SampledFrom(ports).Draw(t, "port"+n) +
				rapid.SampledFrom(parts).Draw(t, "part"+n)
		}
		one, other := write("1"), write("2")
		a, err := ParseEndpoint(one)
		b, err2 := ParseEndpoint(other)
		if err != nil || err2 != nil || a.Part() != b.Part() || a.Key() != b.Key() {
			t.Fatalf("%s is %s (%v), %s is %s (%v)", one, a.Part(), err, other, b.Part(), err2)
		}
	})
}

// scatter writes letters in either case.
func scatter(s string, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 0))
	out := []byte(s)
	for i := range out {
		if r.IntN(2) == 0 {
			out[i] = strings.ToUpper(s[i : i+1])[0]
		}
	}
	return string(out)
}

func TestParseEndpointRefuses(t *testing.T) {
	for _, s := range []string{
		"", "h", "10.0.0.1", "admin@h", "http://h", "ipmi:h", "ipmi:/h", "ipmi://", "ipmi://admin@", "ipmi:///h", "ipmi://h/x", "ipmi://h#x",
		"ipmi://h:0", "ipmi://h:65536", "ipmi://h:x",
		"ipmi://10.0.0.999", "ipmi://10.0.0", "ipmi://10.0.0.1.2", "ipmi://010.0.0.1", "ipmi://10.0.0.01", "ipmi://0x7f.0.0.1",
		"ipmi://2130706433", "ipmi://0x7f000001", "ipmi://127.1",
		"ipmi://10.0.0.0x1", "ipmi://0.0.0.0", "ipmi://[::]", "ipmi://224.0.0.1", "ipmi://[ff02::1]", "ipmi://255.255.255.255",
		"ipmi://10.0.0.1..", "ipmi://a..b", "ipmi://.", "ipmi://-a",
		"ipmi://a b", "ipmi://bücher.example", "ipmi://１０.0.0.1", "ipmi://10。0。0。1", "ipmi://10.0.0.%31", "ipmi://h%00", "ipmi://fe80::1",
		"ipmi://::1", "ipmi://[10.0.0.1]", "ipmi://[h]",
		"ipmi://[fe80::1%252]", "ipmi://[2001:db8::1%25eth0]", "ipmi://[::ffff:10.0.0.1%25eth0]", "ipmi://[fe80::1%25a/b]", "ipmi://" +
			strings.Repeat("a", 64), "ipmi://" + strings.Repeat("a.", 130) + "b",
		"ipmi://seventeen-letters@h", "ipmi://a%00b@h", "ipmi://%C3%BC@h", "ipmi://a%20b@h",
		"ipmi://h?suite=4", "ipmi://h?suite=", "ipmi://h?x=1", "ipmi://h?suite=3&suite=3", "ipmi://h?suite=3;target=0x30", "ipmi://h?%zz",
		"ipmi://h?target=0x31", "ipmi://h?target=0", "ipmi://h?target=0x100", "ipmi://h?target=x", "ipmi://h?channel=1",
		"ipmi://h?target=0x30&channel=12", "ipmi://h?target=0x20&channel=1",
		"ipmi://h?level=root", "ipmi://h?boot=uefi", "ipmi://h?kg-file=kg",
	} {
		if ep, err := ParseEndpoint(s); err == nil {
			t.Errorf("%q read as %v", s, ep)
		}
	}
}

func TestParseEndpointNeverRepeatsASecret(t *testing.T) {
	for _, s := range []string{
		"ipmi://admin:S3cret@h", "ipmi:admin:S3cret@h", "ipmi:/admin:S3cret@h", "admin:S3cret@h", "admin/S3cret@h", "ipmi://admin%3AS3cret@h",
		"ipmi://admin%253AS3cret@h",
		"ipmi://admin%25253aS3cret@h", "ipmi://admin@S3cret@h", "ipmi://admin%40S3cret@h", "ipmi://:S3cret@h", "ipmi://admin:@h/S3cret",
		"ipmi://admin;S3cret@h", "ipmi://admin/S3cret@h",
		"ipmi://admin|S3cret@h", "ipmi://admin:S3cret@[::1]:623?suite=3", "http://admin:S3cret@h", "://admin:S3cret@h", "//admin:S3cret@h",
		"ipmi://admin:S3cret@h:x", "ipmi://admin:S3cret",
		"ipmi://h?password=S3cret", "ipmi://h?Passwd=S3cret", "ipmi://admin@h?suite=3&pw=S3cret", "ipmi://h?pass%77ord=S3cret",
		"ipmi://h?suite=3;password=S3cret", "ipmi://h?kg=S3cret",
		"ipmi://h?token=S3cret", "ipmi://h?suite=S3cret", "ipmi://h?S3cret", "ipmi://h?S3cret=1", "ipmi://h?level=S3cret",
		"ipmi://h?target=S3cret", "ipmi://h#S3cret", "ipmi://h/S3cret",
		"ipmi://h:S3cret", "ipmi://h:623:S3cret", "ipmi://h S3cret", "ipmi://admin S3cret@h", "S3cret://h", "ipmi://admin:%ZZS3cret@h",
		"ipmi://admin：S3cret@h", "ipmi://admin\nS3cret@h",
		"ipmi://admin%00S3cret@h", "ipmi://h?kg-file=S3cret",
	} {
		ep, err := ParseEndpoint(s)
		switch {
		case err == nil:
			t.Errorf("%q read as %v", s, ep)
		case strings.Contains(strings.ToLower(err.Error()), "s3cret"), strings.Contains(fmt.Sprintf("%v", ep), "S3cret"):
			t.Errorf("%q: told in %q, %v", s, err, ep)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		`"ipmi://admin:S3cret@h" cannot be a name`:                    `"redacted" cannot be a name`,
		`"ipmi://h?password=S3cret" cannot be a name`:                 `"redacted" cannot be a name`,
		"really? see rackpower explain n1?x=1 --help":                 "really? see rackpower explain n1?x=1 --help",
		"unknown command admin:S3cret@10.0.0.1, see --help":           "unknown command redacted see --help",
		"node n1: --bmc=ipmi://admin@h?suite=3 and ipmi://a:p@h are":  "node n1: --bmc=ipmi://admin@h?suite=3 and redacted are",
		"key ipmi://[fe80::1%eth0]:623, mail root@h at 10:30, @rack1": "key ipmi://[fe80::1%eth0]:623, mail root@h at 10:30, @rack1",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestCutKGFile(t *testing.T) {
	for in, want := range map[string][2]string{
		"ipmi://h":                 {"ipmi://h", ""},
		"ipmi://h?suite=3":         {"ipmi://h?suite=3", ""},
		"ipmi://h?kg-file=/etc/kg": {"ipmi://h", "/etc/kg"},

		"ipmi://h?suite=3&kg-file=a%20b&boot=efi": {"ipmi://h?suite=3&boot=efi", "a b"},
	} {
		if rest, file, err := CutKGFile(in); rest != want[0] || file != want[1] || err != nil {
			t.Errorf("%s: %q, %q, %v", in, rest, file, err)
		}
	}
	for _, bad := range []string{"ipmi://h?kg-file=", "ipmi://h?kg-file=a&kg-file=b", "ipmi://h?kg-file=%zz"} {
		if rest, file, err := CutKGFile(bad); err == nil {
			t.Errorf("%s: %q, %q", bad, rest, file)
		}
	}
}

func TestSecretsFitTheProtocol(t *testing.T) {
	for _, p := range []string{"", "secret", strings.Repeat("x", 20), "ünï", " with blanks "} {
		if err := CheckPassword(Secret(p), "ipmi://h"); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{
		strings.Repeat("x", 21), strings.Repeat("ü", 11), "\uFEFFpw", "pw\n", "pw\r\n", "p\x00w", "\xff\xfep\x00w\x00",
		"p\ufffdw", "p\tw", "pw\x7f",
	} {
		if err := CheckPassword(Secret(p), "ipmi://h"); err == nil || strings.Contains(err.Error(), p) {
			t.Errorf("%q: %v", p, err)
		}
	}
	for kg, want := range map[string]string{"": "", "text": "74657874", "0x0102": "0102", "0xFF" + strings.Repeat("00", 19): "ff" +
		strings.Repeat("00", 19)} {
		if key, err := ParseKG(Secret(kg)); hex.EncodeToString(key) != want || err != nil {
			t.Errorf("%q: %x, %v", kg, key, err)
		}
	}
	for _, kg := range []string{
		"0x", "0x1", "0xzz", "0x0000", "0x" + strings.Repeat("11", 21), strings.Repeat("x", 21), "kg\n",
		"\uFEFF0x11",
	} {
		if key, err := ParseKG(Secret(kg)); err == nil {
			t.Errorf("%q read as %x", kg, key)
		}
	}
}

// FuzzParseEndpoint: what is read is written and read again as the same, its form is
// canonical, and no error repeats what stands between a colon and an @.
func FuzzParseEndpoint(f *testing.F) {
	f.Add("exec:fence_apc?ip=PDU1.&plug=1:2&username=a&ipport=161")
	for _, s := range []string{
		"ipmi://admin@10.0.0.1", "ipmi://a@[::1]:6230?suite=3", "ipmi://h", "ipmi://u:p@h", "ipmi://h:0", "http://h", "ipmi://[fe80::1%25eth0]",
		"ipmi://h?target=0x30&channel=7&level=operator&boot=legacy", "ipmi:admin:S3cret@h", "ipmi://[::ffff:10.0.0.1]", "ipmi://H.:0623",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ep, err := ParseEndpoint(s)
		if err != nil {
			if _, rest, _ := strings.Cut(s, "://"); strings.Contains(rest, "@") {
				_, secret, found := strings.Cut(rest[:strings.LastIndex(rest, "@")], ":")
				if found && len(secret) > 8 && strings.Contains(err.Error(), secret) {
					t.Errorf("%q: %v", s, err)
				}
			}
			return
		}
		again, err := ParseEndpoint(ep.String())
		if err != nil || again != ep || again.String() != ep.String() {
			t.Errorf("%q: %#v, written %q, read %#v, %v", s, ep, ep.String(), again, err)
		}
		if !strings.Contains(ep.Host, "%") && (strings.ToLower(ep.Host) != ep.Host || strings.HasSuffix(ep.Host, ".")) ||
			strings.ContainsAny(ep.User, ":@/") {
			t.Errorf("%q is not canonical: %#v", s, ep)
		}
	})
}

func TestRedfishEndpoints(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for in, want := range map[string]string{
		"redfish://admin@BMC1.example.":                              "redfish://bmc1.example:443",
		"redfish://admin@h:443/":                                     "redfish://h:443",
		"redfish://h/System.Embedded.1":                              "redfish://h:443/System.Embedded.1",
		"redfish://h/redfish/v1/Systems/System_0/":                   "redfish://h:443/System_0",
		"redfish+http://h/1":                                         "redfish://h:443/1", // the same BMC, in clear
		"redfish+http://h:8000":                                      "redfish+http://h:8000",
		"REDFISH://[::ffff:10.0.0.1]?auth=basic&tls=1.2":             "redfish://10.0.0.1:443",
		"redfish://h?pin=" + strings.ToUpper(hash):                   "redfish://h:443",
		"redfish://h/1?pin=first&boot=legacy&auth=session":           "redfish://h:443/1",
		"redfish://a-user-of-more-than-16-bytes@h?tls=1.3":           "redfish://h:443",
		"redfish://h?pin=sha256:" + strings.Repeat("AB:", 31) + "ab": "redfish://h:443",
	} {
		ep, err := ParseEndpoint(in)
		if err != nil || ep.Part() != want {
			t.Errorf("%s: part %q, %v; want %q", in, ep.Part(), err, want)
			continue
		}
		if again, err := ParseEndpoint(ep.String()); err != nil || again != ep {
			t.Errorf("%s is written as %s, which reads as %+v, %v", in, ep, again, err)
		}
		if ep.Pin != "" && ep.Pin != PinFirst && ep.Pin != "sha256:"+hash {
			t.Errorf("%s: pin %s", in, ep.Pin)
		}
	}
	for _, s := range []string{
		"redfish://h/a/b", "redfish://h/..", "redfish://h/a%20b", "redfish://h/a%2Fb", "redfish://h?suite=3", "redfish://h?target=0x30",
		"redfish://h?pin=abc", "redfish://h?pin=", "redfish://h?tls=1.1", "redfish://h?auth=digest", "redfish+http://h?pin=first",
		"redfish+http://h?tls=1.2", "redfish://admin:S3cret@h/1", "redfish:admin:S3cret@h", "redfish://h/" + strings.Repeat("a", 65), "https://h",
		"ipmi://h?pin=first", "redfish://h#1",
	} {
		if ep, err := ParseEndpoint(s); err == nil {
			t.Errorf("%q read as %v", s, ep)
		}
	}
	long := Secret(strings.Repeat("x", 64))
	if CheckPassword(long, "redfish://h") != nil || CheckPassword(long, "ipmi://h") == nil ||
		CheckPassword(long+long+"x", "redfish://h") == nil {
		t.Error("the bounds of passwords")
	}
	a, b := Endpoint{Scheme: SchemeRedfish, Host: "h", System: "1"}, Endpoint{Scheme: SchemeRedfish, Host: "h", System: "2", Port: 443}
	if a.Key() != b.Key() || a.Part() == b.Part() {
		t.Errorf("Systems of one BMC: keys %s and %s, parts %s and %s", a.Key(), b.Key(), a.Part(), b.Part())
	}
}

// TestAnEndpointOfAnyProtocol keeps what the protocol that is found has room for.
func TestAnEndpointOfAnyProtocol(t *testing.T) {
	ep, err := ParseEndpoint("auto://admin@bmc7?pin=first&tls=1.2&boot=legacy")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		ep.String():                   "auto://admin@bmc7?boot=legacy&pin=first&tls=1.2",
		ep.As(SchemeIPMI).String():    "ipmi://admin@bmc7?boot=legacy",
		ep.As(SchemeRedfish).String(): "redfish://admin@bmc7?boot=legacy&pin=first&tls=1.2",
		ep.As(SchemeIPMI).Key():       "ipmi://bmc7:623",
		ep.As(SchemeRedfish).Key():    ep.Key(),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, bad := range []string{
		"auto://h:623", "auto://h:443", "auto://h/1", "auto://h?suite=3", "auto://h?target=0x30",
		"auto://h?auth=basic",
	} {
		if ep, err := ParseEndpoint(bad); err == nil {
			t.Errorf("%s: %+v", bad, ep)
		}
	}
}

func TestExecEndpoints(t *testing.T) {
	for in, want := range map[string][2]string{ // as it is written, and the part
		"exec:fence_apc?ip=10.0.0.1&plug=3":                {"exec:fence_apc?ip=10.0.0.1&plug=3", "exec://10.0.0.1/3"},
		"EXEC:fence_snmp?plug=3&ip=::ffff:10.0.0.1":        {"exec:fence_snmp?ip=10.0.0.1&plug=3", "exec://10.0.0.1/3"}, // by another program
		"exec:f?ip=PDU1.&ipport=0161&username=a&plug=1:2":  {"exec:f?ip=pdu1&ipport=161&plug=1%3A2&username=a", "exec://pdu1:161/1%3A2"},
		"exec:f?ip=2001:DB8::1&lanplus=1&privlvl=OPERATOR": {"exec:f?ip=2001%3Adb8%3A%3A1&lanplus=1&privlvl=operator", "exec://2001:db8::1"},
		"exec:relay":                          {"exec:relay", "exec://relay"},
		"exec:Relay.sh?plug=A/b&power_wait=5": {"exec:Relay.sh?plug=A%2Fb&power_wait=5", "exec://Relay.sh?power_wait=5/A%2Fb"},
	} {
		ep, err := ParseEndpoint(in)
		if err != nil || ep.String() != want[0] || ep.Part() != want[1] || !strings.HasPrefix(ep.Part(), ep.Key()) {
			t.Errorf("%s: %s, part %s, %v; want %s", in, ep, ep.Part(), err, want)
		}
		if again, err := ParseEndpoint(ep.String()); err != nil || again != ep {
			t.Errorf("%s reads as %+v, %v", ep, again, err)
		}
		if at := ep.At(netip.MustParseAddr("10.9.9.9")); at != ep || !ep.IsAddr() {
			t.Errorf("%s is looked up: %s", in, at)
		}
	}
	for _, s := range []string{
		"exec:", "exec:?ip=h", "exec:../sh", "exec:/bin/sh", "exec://fence_apc", "exec:a%2Fb", "exec:.hidden", "exec:-x", "exec:a b", "exec:a#b",
		"exec:f?ipmitool_path=x", "exec:f?ssh_options=x", "exec:f?debug_file=x", "exec:f?action=off", "exec:f?method=cycle", "exec:f?port=1",
		"exec:f?plug=1,2", "exec:f?plug=-o", "exec:f?plug=", "exec:f?plug=a%0Aaction=off", "exec:f?plug=1&plug=2", "exec:f?plug=$(x)",
		"exec:f?ip=-o", "exec:f?ip=a%20b", "exec:f?ip=0.0.0.0", "exec:f?ipport=1", "exec:f?ip=h&ipport=0", "exec:f?lanplus=yes",
		"exec:f?username=a%0Ab", "exec:f?username=", "exec:f?password=S3cret", "exec:f?passwd=x", "exec:f?password_script=/x",
		"exec:admin:S3cret@f", "exec:admin@f", "exec:f?ip=admin:S3cret@h", "exec:" + strings.Repeat("a", 65),
	} {
		if ep, err := ParseEndpoint(s); err == nil || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%q: %v, %v", s, ep, err)
		}
	}
}
