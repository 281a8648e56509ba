// Package settings is what the command lines of both programs have in common: where a
// flag's value comes from, the errors for values that make no sense, exit statuses and
// the log.
//
// Flags that name central and choose the output have an environment variable,
// RACKPOWER_ and the name in capitals (--no-color is RACKPOWER_NO_COLOR), and a key of
// their own name in the YAML file that --config names. So has every flag of a daemon;
// its variables carry the daemon's name (RACKPOWER_AGENT_NAME, RACKPOWER_CENTRAL_DATA).
// All other flags can only be given on the command line. The command line wins over the
// environment, the environment over the file, the file over the default.
//
//	# /etc/rackpower/agent.yaml
//	name: r1
//	central: unix:///run/rackpower/central.sock
//	join: [10.0.0.1:7946, 10.0.0.2:7946]
//
// Flags may stand before and after the operands; "--" ends them. A flag that the
// command does not know is an error, wherever it is, and so is a key of the
// file that no command knows. Operands are counted by the words of a command's
// ArgsUsage: "NODES" is one, "[NODES]" at most one, "NODES..." one or more.
package settings
