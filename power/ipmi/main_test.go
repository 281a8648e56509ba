package ipmi

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets more tests run at once than there are processors: nearly all of
// their time is waiting.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "12")
	os.Exit(m.Run())
}
