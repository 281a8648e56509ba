package main

import (
	"net/netip"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/printer"
	"rackpower/cmd/settings"
	"rackpower/power"
	"rackpower/power/bmcsim"
	"rackpower/power/noderange"
)

func simCommand() *cli.Command {
	return &cli.Command{
		Name: "sim", Category: "daemons and tools", Usage: "simulate BMCs that speak IPMI v2.0 and Redfish", Action: runSim,
		Description: "BMC i listens on the i-th address from --listen on. Until interrupted.\n" +
			"With --redfish each has a Redfish service beside IPMI, over TLS with a\n" +
			"certificate of its own. Profiles are the shapes of its tree, one after\n" +
			"another: " + profileNames() + "." +
			examples("rackpower sim --count 40", "rackpower sim --count 4 --listen 127.0.20.1 --names r1n[01-04] --control 127.0.0.1:8623",
				"rackpower sim --count 9 --redfish --redfish-profile inline,two-systems") +
			exitHelp,
		Flags: append([]cli.Flag{
			&cli.IntFlag{Name: "count", Value: 40, Usage: "simulate `N` BMCs"},
			&cli.StringFlag{Name: "listen", Value: "127.0.20.1", Usage: "`ADDRESS` of the first BMC"},
			&cli.IntFlag{Name: "port", Value: power.DefaultIPMIPort, Usage: "UDP `PORT` of each BMC"},
			&cli.BoolFlag{Name: "same-address", Usage: "use one address for all BMCs, and ports from --port on"},
			&cli.BoolFlag{Name: "redfish", Usage: "give each BMC a Redfish service, too"},
			&cli.IntFlag{Name: "redfish-port", Value: 443, Usage: "TCP `PORT` of Redfish of each BMC"},
			&cli.BoolFlag{Name: "redfish-http", Usage: "Redfish over plain HTTP"},
			&cli.StringSliceFlag{
				Name: "redfish-profile", Usage: "give BMCs the Redfish profiles `NAME[,NAME...]` in turn",
				DefaultText: bmcsim.Profiles[0].Name,
			},
			&cli.StringFlag{Name: "user", Value: bmcsim.DefaultUser, Usage: "`NAME` of the BMCs' administrator"},
			&cli.StringFlag{Name: "password-file", Usage: "read the password from the first line of `FILE`", DefaultText: string(bmcsim.DefaultPassword)},
			&cli.StringFlag{Name: "kg-file", Usage: "read the BMCs' key K_g from the first line of `FILE`"},
			&cli.DurationFlag{Name: "on-after", Value: 2 * time.Second, Usage: "report power on `DURATION` after the command"},
			&cli.DurationFlag{Name: "off-after", Value: 3 * time.Second, Usage: "report power off `DURATION` after the command"},
			&cli.Int64Flag{Name: "seed", Usage: "random seed `N`, for repeatable runs"},
			&cli.StringFlag{Name: "names", Usage: "name the BMCs as in `RANGE`, such as r1n[01-40]"},
			&cli.StringFlag{Name: "log", Usage: "log every command that arrives to `FILE`"},
			&cli.StringFlag{Name: "state", Usage: "store the power state of the nodes in `FILE`"},
			&cli.StringFlag{Name: "control", Usage: "`ADDRESS` or socket path of the HTTP control interface, which shows and breaks BMCs"},
		}, settings.LogFlags()...),
	}
}

func runSim(c *cli.Context) error {
	logger, err := settings.Logger(c)
	if err != nil {
		return err
	}
	settings.Tool(c.Context)
	first, err := netip.ParseAddr(c.String("listen"))
	if err != nil {
		return settings.Usage("--listen: %q is not an address", c.String("listen"))
	}
	cfg := bmcsim.Config{
		Count: c.Int("count"), Listen: first, Port: c.Int("port"), SameAddress: c.Bool("same-address"), User: c.String("user"),
		OnAfter: c.Duration("on-after"), OffAfter: c.Duration("off-after"), Seed: c.Int64("seed"),
		LogFile: c.String("log"), StateFile: c.String("state"), Control: c.String("control"), Logger: logger,
	}
	plain := printer.Printer{Out: c.App.Writer, Err: c.App.ErrWriter}
	if file := c.String("password-file"); file != "" {
		password, err := readSecrets(c, plain).password(file)
		if err != nil {
			return err
		}
		cfg.Password = power.Secret(password)
	}
	if file := c.String("kg-file"); file != "" {
		kg, err := readSecrets(c, plain).inFile(file, "K_g")
		if err != nil {
			return err
		}
		cfg.KG = power.Secret(kg)
	}
	if cfg.Redfish, err = simRedfish(c); err != nil {
		return err
	}
	if pattern := c.String("names"); pattern != "" {
		names, err := noderange.Expand(pattern)
		if err != nil {
			return settings.Usage("--names: %v", err)
		}
		if len(names) != cfg.Count {
			return settings.Usage("--names: %s for %d BMCs", power.Count(len(names), "name"), cfg.Count)
		}
		cfg.Names = func(i int) string { return names[i] }
	}
	if err := cfg.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	return bmcsim.Run(c.Context, cfg, c.App.Writer)
}

// simRedfish is what the flags say of Redfish, nil for nothing.
func simRedfish(c *cli.Context) (*bmcsim.Redfish, error) {
	if !c.Bool("redfish") {
		for _, name := range []string{"redfish-port", "redfish-http", "redfish-profile"} {
			if c.IsSet(name) {
				return nil, settings.Usage("--%s needs --redfish", name)
			}
		}
		return nil, nil
	}
	r := &bmcsim.Redfish{Port: c.Int("redfish-port"), Plain: c.Bool("redfish-http")}
	for _, name := range c.StringSlice("redfish-profile") {
		p, err := bmcsim.ProfileNamed(name)
		if err != nil {
			return nil, settings.Usage("--redfish-profile: %v", err)
		}
		r.Profiles = append(r.Profiles, p)
	}
	return r, nil
}

func profileNames() string {
	names := make([]string, 0, len(bmcsim.Profiles))
	for _, p := range bmcsim.Profiles {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}
