// Package powertest has what tests of power control need:
//
//   - Fake, a set of BMCs in memory with the driver to them. It uses no socket
//     and only the time package, so it runs under testing/synctest.
//   - Suite, the conformance tests that every power.Driver passes, and Target,
//     what they ask of a driver and its BMC.
//   - IPMISim, a real BMC simulator (OpenIPMI's ipmi_sim) run as a process, with
//     a chassis whose faults and log are files.
//   - Proxy, a network that loses, doubles, delays and forges datagrams.
package powertest
