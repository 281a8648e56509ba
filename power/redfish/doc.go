// Package redfish controls power by Redfish (DMTF DSP0266 and DSP0268) over HTTP/1.1. It is
// a power.Driver.
//
// It asks a BMC for little: the service root, a session, the Systems, the action
// ComputerSystem.Reset and its allowed values. What acts is sent once: a POST whose answer is
// lost is never repeated, and the error says whether it may have left. Reads alone are
// repeated, once, over a new connection.
//
//	Dial     GET the service root (once an hour), POST a session, delete one left by a crash
//	State    GET the System
//	Do       POST ComputerSystem.Reset or Manager.Reset
//	SetBoot  PATCH Boot of the System or of its settings object, GET it again
//	Close    DELETE the session
package redfish
