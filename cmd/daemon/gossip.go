// Package daemon is what the daemons of both programs do when they start: they check what
// their flags name before they write, and make themselves members of the gossip cluster.
package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"rackpower/cmd/settings"
	"rackpower/gossip"
)

// KeyringName is the file in a data directory that keeps the gossip keys.
const KeyringName = "gossip.keyring"

// keyCredential is the name of the systemd credential that holds the gossip key.
const keyCredential = "gossip-key"

// GossipFlags are those of the gossip key and of the endpoint for Serf's own tools.
func GossipFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "gossip-key-file",
			Usage: "read the cluster's key, in base64 (rackpower gossip keygen), from `FILE`; default: the systemd credential " +
				keyCredential + ", if there is one",
		},
		&cli.StringFlag{Name: "serf-rpc", Usage: "serve Serf's RPC at this loopback `HOST:PORT`, for serf members -rpc-addr"},
		&cli.StringFlag{
			Name:  "serf-rpc-token-file",
			Usage: "read the token of RPC clients from `FILE`; without one, clients cannot list or change keys",
		},
	}
}

// noGossip is the --gossip of a daemon that keeps to itself.
const noGossip = "off"

// Gossip is a member with what the flags of gossip say; nil: no gossip.
func Gossip(c *cli.Context, member gossip.Config) (*gossip.Config, error) {
	if member.Bind = c.String("gossip"); member.Bind == noGossip {
		return nil, nil
	}
	member.Advertise, member.Join = c.String("advertise"), c.StringSlice("join")
	return &member, GossipKeys(c, &member, c.String("data"))
}

// CheckGossip says what is wrong with the flags of gossip before anything is written;
// keyComes: a key that is missing comes later.
func CheckGossip(cfg *gossip.Config, keyComes bool) error {
	if cfg == nil {
		return nil
	}
	for _, addr := range cfg.Join {
		if err := CheckAddress("join", addr); err != nil {
			return err
		}
	}
	complete := *cfg
	if keyComes && errors.Is(cfg.Validate(), gossip.ErrNeedsKey) {
		complete.Key = gossip.NewKey()
	}
	if err := complete.Validate(); err != nil {
		return settings.Usage("%v", err)
	}
	return nil
}

// GossipKeys reads the flags of GossipFlags into cfg. The keys that the data
// directory keeps from the last change of keys go before the one that is given.
func GossipKeys(c *cli.Context, cfg *gossip.Config, data string) error {
	cfg.KeyringFile, cfg.RPC = filepath.Join(data, KeyringName), c.String("serf-rpc")
	if file := CredentialFile(c.String("gossip-key-file"), keyCredential); file != "" {
		text, err := SecretIn(file)
		if err != nil {
			return settings.Exit(settings.ExitUsage, "cannot read the gossip key: %v", err)
		}
		if cfg.Key, err = gossip.ParseKey(text); err != nil {
			return settings.Exit(settings.ExitUsage, "%s: %v", file, err)
		}
	}
	if file := c.String("serf-rpc-token-file"); file != "" {
		text, err := SecretIn(file)
		if err != nil {
			return settings.Exit(settings.ExitUsage, "cannot read the token of Serf's RPC: %v", err)
		}
		cfg.RPCToken = gossip.Token(text)
	}
	return nil
}

// CredentialFile is the file that a flag names, else that of the systemd credential, else "".
func CredentialFile(flag, credential string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if flag != "" || dir == "" {
		return flag
	}
	path := filepath.Join(dir, credential)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// SecretIn reads a short secret from a file.
func SecretIn(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return text, nil
}
