package printer

import (
	"testing"
)

func TestTablesStayAlignedInANarrowTerminal(t *testing.T) {
	rows := func() [][]string {
		return [][]string{
			{"NODE", "STATE", "DRIFT", "OPERATION"},
			{"r1n01", "on", "", "cycle (asked by admin, 4 s ago) running: waiting for off"},
			{"r1n02", "off", "", ""},
		}
	}
	for columns, want := range map[int]string{
		0: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s ago) running: waiting for off\nr1n02  off\n",
		40: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s\n              ago) running: waiting for\n              " +
			"off\nr1n02  off\n",
		30: "NODE   STATE  OPERATION\nr1n01  on     cycle (asked by admin, 4 s ago) running: waiting for off\nr1n02  off\n",
	} {
		if got := string((Printer{}).tableIn(columns, rows())); got != want {
			t.Errorf("%d columns: got\n%s\nwant\n%s", columns, got, want)
		}
	}
}
