package power

import (
	"errors"
	"strings"
)

// Login is what a log-in to a BMC takes.
type Login struct {
	User     string
	Password Secret
	KG       Secret // as ParseKG reads it; "" for none
}

// CheckUser checks the name of a BMC's user by itself: what some protocol takes is good.
func CheckUser(user string) error {
	if user == "" {
		return errors.New("the user is missing")
	}
	if err := (Endpoint{Scheme: SchemeRedfish, User: user}).checkUser(); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), badEndpoint("").Error()))
	}
	return nil
}
