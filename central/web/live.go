package web

import "rackpower/central/api"

func (p *Page) live(v *visit) error {
	return api.Problemf(api.CodeUnavailable, "not yet")
}
