package agent

import "rackpower/central/api"

// What the files of BMCs and power domains provide.

func (a *Agent) retryBMC(string)                  {}
func (a *Agent) bmcState(string) *api.BMCState    { return nil }
func (a *Agent) deadBMCs() int                    { return 0 }
func (a *Agent) setDomains([]api.DomainLimit)     {}
func (a *Agent) Domains() []api.DomainState       { return nil }
func (a *Agent) domainOf(string) *api.DomainState { return nil }
