package redfish

import (
	"regexp"

	"rackpower/power"
)

// difference is where BMCs of a maker differ from what is usual: what a command is instead.
type difference struct {
	maker  *regexp.Regexp // of the System's Manufacturer
	model  *regexp.Regexp // of its Model; nil: all
	cmd    power.Command
	types  []string // of reset, in place of those in resetTypes
	source string   // who says so
}

// differences are those that are known. The first that fits counts.
var differences = []difference{
	{
		// iLO 4 offers On, ForceOff, ForceRestart, Nmi and PushPowerButton. A momentary press of the
		// button asks a running system to shut down.
		maker: regexp.MustCompile(`(?i)^(HPE?|Hewlett[ -]?Packard)\b`), cmd: power.PressSoftOff,
		types:  []string{"GracefulShutdown", pushButton},
		source: "https://hewlettpackard.github.io/ilo-rest-api-docs/ilo4",
	},
}

// types are the types of reset for a command, the best first.
func (s *session) types(cmd power.Command) []string {
	for _, d := range differences {
		if d.cmd == cmd && d.maker.MatchString(string(s.system.Manufacturer)) && (d.model == nil || d.model.MatchString(string(s.system.Model))) {
			return d.types
		}
	}
	return resetTypes[cmd]
}
