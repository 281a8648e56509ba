package power

import "testing"

func TestSamePart(t *testing.T) {
	parts := []string{
		"ipmi://h:623", "ipmi://h:623/0x30/0", "ipmi://h:6230", "redfish://h:443", "redfish://h:443/1", "redfish://h:443/2",
		"redfish://h:8443", "redfish://h:8443/1", "redfish+http://h:8000", "redfish+http://h:8000/1", "redfish://g:443", "ipmi://g:623",
		"redfish://[fe80::1%eth0]:443", "r1 redfish://[fe80::1%eth0]:443/1", "r1 redfish://[fe80::1%eth0]:443", "r2 redfish://[fe80::1%eth0]:443",
	}
	same := map[[2]string]bool{
		{"ipmi://h:623", "redfish://h:443"}: true, {"ipmi://h:623", "redfish://h:443/1"}: true, {"ipmi://h:623", "redfish://h:443/2"}: true,
		{"redfish://h:443", "redfish://h:443/1"}: true, {"redfish://h:443", "redfish://h:443/2"}: true,
		{"redfish://h:8443", "redfish://h:8443/1"}: true, {"redfish+http://h:8000", "redfish+http://h:8000/1"}: true,
		{"ipmi://g:623", "redfish://g:443"}: true, {"r1 redfish://[fe80::1%eth0]:443", "r1 redfish://[fe80::1%eth0]:443/1"}: true,
	}
	for _, a := range parts {
		for _, b := range parts {
			want := a == b || same[[2]string{a, b}] || same[[2]string{b, a}]
			if SamePart(a, b) != want {
				t.Errorf("%s and %s: %t", a, b, !want)
			}
		}
	}
}
