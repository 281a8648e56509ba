package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"rackpower/central/auth"
	"rackpower/central/oidc/oidctest"
)

func config(i *oidctest.Issuer) Config {
	return Config{Issuer: i.URL, Audience: oidctest.ClientID, CAFile: i.CAFile(), Grants: []Grant{
		{Group: "staff", Role: auth.Viewer},
		{Group: "ops", Role: auth.Operator, Nodes: "@r1"},
		{
			Group: "ops2", Role: auth.Operator,
			Nodes: "@r2",
		},
		{Group: "boss", Role: auth.Admin},
		{Group: "allops", Role: auth.Operator},
	}}
}

func TestTokensOfAnIssuer(t *testing.T) {
	i := oidctest.New(t)
	v, err := New(config(i))
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	unsigned := oidctest.EncodeJSON(map[string]string{"alg": "none"}) + "." + oidctest.EncodeJSON(i.Claims(nil)) + "."
	for name, c := range map[string]struct {
		token string
		role  auth.Role
		scope string
		fails string
	}{
		"good":             {oidctest.Sign(t, i.Key, i.Claims(nil)), auth.Operator, "@r1", ""},
		"viewer":           {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"groups": "staff"})), auth.Viewer, "", ""},
		"two scopes":       {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"groups": []string{"ops", "ops2"}})), auth.Operator, "@r1,@r2", ""},
		"everywhere":       {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"groups": []string{"ops", "allops"}})), auth.Operator, "", ""},
		"the highest":      {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"groups": []string{"ops", "boss", "staff"}})), auth.Admin, "", ""},
		"no group":         {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"groups": []string{"guests"}})), "", "", "no group of alice"},
		"groups missing":   {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"groups": nil})), "", "", "no group of alice"},
		"groups a number":  {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"groups": 7})), "", "", "no group of alice"},
		"no name":          {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"preferred_username": nil})), "", "", "names no user"},
		"another audience": {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"aud": "wiki"})), "", "", "audience"},
		"another issuer":   {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"iss": "https://evil"})), "", "", "issue"},
		"expired":          {oidctest.Sign(t, i.Key, i.Claims(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})), "", "", "expired"},
		"another key":      {oidctest.Sign(t, stranger, i.Claims(nil)), "", "", "signature"},
		"unsigned":         {unsigned, "", "", ""},
		"cut":              {oidctest.Sign(t, i.Key, i.Claims(nil))[:60], "", "", ""},
		"empty":            {"", "", "", ""},
	} {
		p, err := v.Verify(t.Context(), c.token)
		if c.role == "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) || errors.Is(err, auth.ErrNoIssuer) {
				t.Errorf("%s: %+v, %v, want %q", name, p, err, c.fails)
			}
			continue
		}
		if err != nil || p.Role != c.role || p.Scope != c.scope || p.Name != "alice" || p.Method != auth.ByOIDC || p.Speaks || p.Own ||
			p.Until.Before(time.Now()) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestAnIssuerThatIsAway(t *testing.T) {
	i := oidctest.New(t)
	cfg := config(i)
	i.Close()
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := v.Verify(t.Context(), "a.b.c"); !errors.Is(err, auth.ErrNoIssuer) {
			t.Errorf("%v", err)
		}
	}
}

func TestConfigurationsThatMakeNoSense(t *testing.T) {
	good := config(oidctest.New(t))
	for name, change := range map[string]func(*Config){
		"http": func(c *Config) { c.Issuer = "http://x" }, "no audience": func(c *Config) { c.Audience = "" },
		"no grants": func(c *Config) { c.Grants = nil }, "no CA": func(c *Config) { c.CAFile = "/nonexistent" },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for text, want := range map[string]Grant{
		"ops=operator:@r1": {"ops", auth.Operator, "@r1"}, "a b=viewer": {"a b", auth.Viewer, ""}, "x=root": {}, "x": {}, "=admin": {},
		"x=admin:[": {},
	} {
		if got, err := ParseGrant(text); (err == nil) != (want != Grant{}) || err == nil && got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}
