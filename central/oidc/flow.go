package oidc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"rackpower/central/auth"
)

// Attempt is what a browser was sent to the issuer with. Who begins one keeps it, for that
// browser alone, and finishes it once.
type Attempt struct {
	State string // comes back beside the code

	nonce    string
	verifier string // of PKCE
	redirect string
}

// Name is the issuer as people know it: its host.
func (v *Verifier) Name() string {
	if u, err := url.Parse(v.cfg.Issuer); err == nil {
		return u.Host
	}
	return v.cfg.Issuer
}

// codeFlow is how the issuer wants to be asked. Without a word from it the client names itself
// in a header (OpenID Connect Discovery 1.0, token_endpoint_auth_methods_supported).
func (v *Verifier) codeFlow(provider *gooidc.Provider) (oauth2.Config, error) {
	var says struct {
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return oauth2.Config{}, fmt.Errorf("%w: %v", auth.ErrNoIssuer, err) //nolint:errorlint // the cause is for people
	}
	out := oauth2.Config{
		ClientID: v.cfg.Audience, ClientSecret: v.cfg.Secret, Endpoint: provider.Endpoint(), Scopes: append([]string{gooidc.ScopeOpenID},
			v.cfg.Scopes...),
	}
	out.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if v.cfg.Secret == "" || len(says.Methods) > 0 && !slices.Contains(says.Methods, "client_secret_basic") {
		out.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return out, nil
}

// Begin is where to send a browser, which comes back to redirect.
func (v *Verifier) Begin(redirect string) (address string, a Attempt, err error) {
	if _, err := v.ready(); err != nil {
		return "", a, err
	}
	flow := v.flow
	flow.RedirectURL = redirect
	a = Attempt{State: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), redirect: redirect}
	return flow.AuthCodeURL(a.State, gooidc.Nonce(a.nonce), oauth2.S256ChallengeOption(a.verifier)), a, nil
}

// Finish gets the ID token for the code that a browser came back with. It is for the client, of
// the issuer, valid, and of this attempt; Verify says whom it is for. An error that is no
// auth.ErrNoIssuer says what the issuer, or its token, has against it.
func (v *Verifier) Finish(ctx context.Context, a Attempt, code string) (token string, err error) {
	verifier, err := v.ready()
	if err != nil {
		return "", err
	}
	flow := v.flow
	flow.RedirectURL = a.redirect
	got, err := flow.Exchange(gooidc.ClientContext(ctx, v.client), code, oauth2.VerifierOption(a.verifier))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.Response.StatusCode < http.StatusInternalServerError:
		if refused.ErrorCode == "invalid_client" || refused.ErrorCode == "unauthorized_client" {
			return "", fmt.Errorf("it does not take the client %s or its secret (%s)", v.cfg.Audience, refused.ErrorCode)
		}
		return "", fmt.Errorf("it gave no token for the log-in (%.100s)", refused.ErrorCode)
	case err != nil:
		return "", fmt.Errorf("%w: %v", auth.ErrNoIssuer, err) //nolint:errorlint // the cause is for people
	}
	token, _ = got.Extra("id_token").(string)
	if token == "" {
		return "", errors.New("it gave no ID token")
	}
	is, err := verifier.Verify(ctx, token)
	switch {
	case err != nil:
		return "", fmt.Errorf("its token does not hold: %w", err)
	case subtle.ConstantTimeCompare([]byte(is.Nonce), []byte(a.nonce)) != 1:
		return "", errors.New("its token is of another log-in")
	}
	return token, nil
}
