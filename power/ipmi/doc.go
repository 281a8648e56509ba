// Package ipmi speaks IPMI v2.0 over LAN (RMCP+) to BMCs. It is a power.Driver.
//
// The session layer is written for power control: nothing in it repeats a
// command that acts, nothing believes an answer that is not authenticated, and
// nothing runs in the background. Commands, types and key derivation come from
// github.com/bougou/go-ipmi. See README.md for the handshake, the rules of
// repetition and the errors. Sections named are those of the "IPMI Specification
// v2.0, revision 1.1".
package ipmi
