package central

import (
	"errors"
	"fmt"
	"net/http"

	"rackpower/central/api"
	"rackpower/central/auth"
	"rackpower/central/httpserver"
	"rackpower/central/store"
)

// rotateSealKey makes another key that seals passwords. Who may read the file of the key is
// on this machine.
func (c *Central) rotateSealKey(r *http.Request, in api.RotateSealKey) (api.SealKey, error) {
	if httpserver.Principal(r).Method != auth.BySocket {
		return api.SealKey{}, api.Problemf(api.CodeForbidden, "not permitted: the key is changed on the machine of central only "+
			"(rackpower-central seal rotate)")
	}
	change, err := c.store.RotateKey(r.Context())
	if errors.Is(err, store.ErrKeyElsewhere) {
		return api.SealKey{}, api.Problemf(api.CodeRefused, "%v", err)
	}
	if err != nil {
		return api.SealKey{}, err
	}
	err = c.write(r.Context(), c.cfg.Now(), askedBy(r, in.AskedBy), func(u *unitOfWork) error {
		return u.audit("seal-key", "", in.Reason, fmt.Sprintf("key %s seals passwords, before it was %s", change.To, change.From))
	})
	return api.SealKey(change), err
}
