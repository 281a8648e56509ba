package main

import "rackpower/cmd/printer"

// view is how people see what central and the agents tell: a printer that knows their
// words. It asks nobody.
type view struct{ printer.Printer }
