// Package systemd lets a daemon speak with the service manager that started it:
// readiness, a line of status, a watchdog that is fed by the daemon's own loop,
// and sockets that were opened for it. Started by hand, all of it does nothing.
//
// The unit files, and what else an installation needs, lie beside the code; see
// README.md.
package systemd
