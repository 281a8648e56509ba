// Package systemd connects the daemons to the service manager: readiness and
// status (sd_notify(3)), the watchdog, and listening sockets that systemd opened
// for them (sd_listen_fds(3)). The units, and what an administrator needs to know
// of them, stand beside this package; README.md describes them.
//
// Outside systemd everything here does nothing and reports no error: a daemon
// makes the same calls from a shell, in a container and in a test.
package systemd
