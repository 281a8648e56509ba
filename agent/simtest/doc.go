// Package simtest is what the simulations of a whole agent are made of: random histories of
// what is asked of an agent and what befalls it, and models that hold what it does against
// the rules. It knows nothing of the agent's inside; the tests of package agent open an
// agent on simulated disks and BMCs, in simulated time, and play the histories.
//
// A history is a Script: one line for each thing that is done. DrawOps, DrawFleet and
// DrawDamage draw them from a seed (generator_*.go), Run plays many of them (run.go), and one
// that breaks a rule is shrunk (shrink.go) and printed with its Trace. A Process is cut off
// from its disks and BMCs at a CrashPoint (process.go), and shows every exchange with a BMC to
// an Observer: OpsModel holds one to four nodes against the rules of operations, FleetModel
// many nodes against those of desired states and the monitor, DamageModel an agent whose
// logs were damaged against what has to hold nevertheless (model_*.go).
package simtest
