package redfish

import "rackpower/power"

// types are the types of reset for a command, the best first.
func (s *session) types(cmd power.Command) []string { return resetTypes[cmd] }
