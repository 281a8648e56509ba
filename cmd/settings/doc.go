// Package settings is what the command lines of both binaries have in common:
// where a flag's value comes from, what is said when it makes no sense, exit
// statuses and the log.
//
// Every flag of every command has an environment variable, RACKPOWER_ and its
// name in capitals (--if-busy is RACKPOWER_IF_BUSY), and a key of its own name in
// the YAML file that --config names. The command line wins over the environment,
// the environment over the file, the file over the default.
//
//	# /etc/rackpower/agent.yaml
//	name: r1
//	central: https://central.example:7620
//	join: [10.0.0.1:7946, 10.0.0.2:7946]
//
// Flags may stand before and after the operands; "--" ends them. A flag that the
// command does not know is an error, wherever it stands, and so is a key of the
// file that no command knows. Operands are counted by the words of a command's
// ArgsUsage: "NODES" is one, "[NODES]" at most one, "NODES..." one or more.
package settings
