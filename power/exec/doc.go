// Package exec switches the power of a node by a program that whoever runs the agent has
// provided, such as one of the fence agents of ClusterLabs. README.md has the contract.
package exec
