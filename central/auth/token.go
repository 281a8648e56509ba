package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
)

// What tokens begin with, so that scanners for leaked secrets can find them.
const (
	tokenPrefix = "rpt_"
	joinPrefix  = "rpe_"
)

// secretBytes is the length of a secret: 256 bits.
const secretBytes = 32

// NewToken makes a bearer token.
func NewToken() string { return tokenPrefix + newSecret() }

func newSecret() string {
	raw := make([]byte, secretBytes)
	_, _ = rand.Read(raw) // does not fail
	return base64.RawURLEncoding.EncodeToString(raw)
}

// IsToken reports whether a text has the form of a bearer token.
func IsToken(text string) bool {
	secret, ok := strings.CutPrefix(text, tokenPrefix)
	return ok && isSecret(secret)
}

// IsJWT reports whether a text has the form of a JSON Web Token (RFC 7519, section 3).
func IsJWT(text string) bool {
	parts := strings.Split(text, ".")
	for _, part := range parts {
		if _, err := base64.RawURLEncoding.DecodeString(part); err != nil || part == "" {
			return false
		}
	}
	return len(parts) == 3
}

func isSecret(text string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && len(raw) == secretBytes
}

// HashToken is what is stored of a token or of the secret of an enrolment: its SHA-256 in
// hexadecimal. The secrets have 256 bits, so nothing slower is needed.
func HashToken(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Enrolment is what the one line holds that enrols an agent.
type Enrolment struct {
	Agent  string
	Secret string // used once
	CAHash string // of the site's CA, see Hash
}

// NewEnrolment makes the enrolment of an agent.
func NewEnrolment(agent, caHash string) Enrolment {
	return Enrolment{Agent: agent, Secret: newSecret(), CAHash: caHash}
}

// String is the line: its parts in this order, separated by dots. ParseEnrolment reads it.
func (e Enrolment) String() string {
	return joinPrefix + strings.Join([]string{e.Secret, strings.TrimPrefix(e.CAHash, hashPrefix), e.Agent}, ".")
}

// ParseEnrolment reads what Enrolment.String wrote. Its errors show nothing of the text,
// which may hold a secret.
func ParseEnrolment(text string) (Enrolment, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), joinPrefix)
	parts := strings.SplitN(body, ".", 3)
	if !ok || len(parts) != 3 || !isSecret(parts[0]) || parts[2] == "" {
		return Enrolment{}, errors.New("this is no enrolment token: it is the whole line that rackpower agents token prints")
	}
	hash, err := ParseHash(parts[1])
	if err != nil {
		return Enrolment{}, errors.New("this enrolment token is not whole: copy the whole line that rackpower agents token prints")
	}
	return Enrolment{Agent: parts[2], Secret: parts[0], CAHash: hash}, nil
}
