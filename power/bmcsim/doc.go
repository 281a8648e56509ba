// Package bmcsim is a farm of simulated BMCs in one process: N addresses, each
// with one BMC that speaks IPMI v2.0 over UDP (RMCP+, cipher suites 3 and 17) and
// controls the power of one imagined node. With [Config.Redfish] each has a Redfish service
// beside, of the same node, account and log.
//
// It serves tests and the demonstration; ipmitool and ipmipower talk to it as to a real
// machine. Unlike a real machine it records every command that arrived, when, from which
// session, and what it did to the node ([BMC.Log], and a file that survives a killed
// process). It misbehaves on demand: see [Fault].
//
// Messages, RAKP, keys and most commands come from go-ipmi's server side; the
// socket loop, the session window, the power model and the faults are this
// package's own. What differs from go-ipmi's own server, on purpose:
//
//   - A datagram that arrives twice is executed once (the session's sequence
//     window, IPMI v2.0 section 6.12.13). The same request under a fresh sequence
//     number is executed again, as real BMCs do, so that a client which sends a
//     command twice is caught.
//   - A wrong user is refused in RAKP message 2, a wrong key in RAKP message 4,
//     each with its own status (section 13.24).
//   - A new session has the privilege User until it asks for more (section 22.18).
//   - A repeated RAKP message gets the answer of the first.
//   - No datagram can take the process down.
package bmcsim
