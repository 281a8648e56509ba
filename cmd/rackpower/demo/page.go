package demo

import (
	"context"

	"rackpower/central/api"
	"rackpower/power"
)

// showPage leaves a few faults behind, and waits until somebody has seen enough of the page of
// central.
func (d *demo) showPage(ctx context.Context) error {
	d.chapter("The page of central, with a few faults to find")
	last := d.rack(d.racks - 1)
	d.farms[0].BMC(0).Mute(true)           // its BMC does not answer
	d.farms[0].BMC(d.nodes - 1).Deaf(true) // no command has an effect
	d.farms[1].BMC(0).SetPower(power.Off)  // behind the back of everybody
	if err := d.cli(ctx, 0, "pause", d.rack(1), "--reason", "demo"); err != nil {
		return err
	}
	d.kill(last)
	d.say("A BMC is silent, another takes no commands, a server was switched by hand, and the agent of %s is dead.", last)
	for _, role := range []string{"viewer", "operator"} {
		user, err := d.client.AddUser(ctx, api.AddUser{Name: role, Role: role})
		if err != nil {
			return err
		}
		d.say("token of a %-8s %s", role, user.Token)
	}
	d.say("https://%s/  (the browser does not know the CA of this demo: accept its certificate)", d.page)
	d.say("Ctrl-C ends it.")
	<-ctx.Done()
	return nil
}
