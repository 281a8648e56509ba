package agentd

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"

	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/exec"
	"rackpower/power/ipmi"
	"rackpower/power/redfish"
)

// drivers opens sessions to BMCs, each in the protocol that the node's address names.
type drivers struct {
	ipmi    *ipmi.Dialer
	redfish *redfish.Dialer
	exec    *exec.Dialer
	as      func(ep power.Endpoint, scheme string) power.Endpoint // where an auto endpoint is looked for
}

// newDrivers makes them. caFile has the certificates of the authorities that certify BMCs; "":
// those of the system do. execDir has the programs that may be run; "": none may.
func newDrivers(logger *slog.Logger, caFile, execDir string) (*drivers, error) {
	cfg := redfish.Config{Log: logger}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, settings.Usage("--bmc-ca-file: %v", err)
		}
		cfg.Roots = x509.NewCertPool()
		if !cfg.Roots.AppendCertsFromPEM(pem) {
			return nil, settings.Usage("--bmc-ca-file: there is no certificate in %s", caFile)
		}
	}
	programs, err := exec.NewDialer(exec.Config{Dir: execDir})
	if err != nil {
		return nil, settings.Usage("--exec-dir: %v", err)
	}
	return &drivers{
		ipmi: ipmi.NewDialer(ipmi.Config{Log: logger}), redfish: redfish.NewDialer(cfg), exec: programs, as: power.Endpoint.As,
	}, nil
}

// Dial is a power.Dialer.
func (d *drivers) Dial(ctx context.Context, ep power.Endpoint) (power.Driver, error) {
	switch {
	case ep.Scheme == power.SchemeAuto:
		return d.find(ctx, ep)
	case ep.IsRedfish():
		return d.redfish.Dial(ctx, ep)
	case ep.Scheme == power.SchemeExec:
		return d.exec.Dial(ctx, ep)
	}
	return d.ipmi.Dial(ctx, ep)
}

// Probe asks a BMC whether it is there.
func (d *drivers) Probe(ctx context.Context, ep power.Endpoint) error {
	switch {
	case ep.Scheme == power.SchemeAuto:
		return d.probeBoth(ctx, ep)
	case ep.IsRedfish():
		return d.redfish.Probe(ctx, ep)
	case ep.Scheme == power.SchemeExec:
		return d.exec.Probe(ctx, ep)
	}
	return d.ipmi.Probe(ctx, ep)
}

// Forget forgets what was learnt of a BMC.
func (d *drivers) Forget(ep power.Endpoint) {
	if ep.Scheme == power.SchemeExec {
		return
	}
	if ep.Scheme == power.SchemeAuto {
		d.Forget(d.as(ep, power.SchemeIPMI))
		ep = d.as(ep, power.SchemeRedfish)
	}
	if ep.IsRedfish() {
		d.redfish.Forget(ep)
		return
	}
	d.ipmi.Forget(ep)
}
