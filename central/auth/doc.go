// Package auth knows who asks and what that principal may do: roles and scopes, bearer
// tokens, and the certificate authority of a site with the certificates of its agents. It
// knows neither HTTP nor SQL, so that central, agents and the command line share it.
package auth
