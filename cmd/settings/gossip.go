package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

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

// GossipKeys reads the flags of GossipFlags into cfg. The keys that the data
// directory keeps from the last change of keys go before the one that is given.
func GossipKeys(c *cli.Context, cfg *gossip.Config, data string) error {
	cfg.KeyringFile, cfg.RPC = filepath.Join(data, KeyringName), c.String("serf-rpc")
	if file := keyFile(c.String("gossip-key-file")); file != "" {
		text, err := secretIn(file)
		if err != nil {
			return Exit(ExitUsage, "cannot read the gossip key: %v", err)
		}
		if cfg.Key, err = gossip.ParseKey(text); err != nil {
			return Exit(ExitUsage, "%s: %v", file, err)
		}
	}
	if file := c.String("serf-rpc-token-file"); file != "" {
		text, err := secretIn(file)
		if err != nil {
			return Exit(ExitUsage, "cannot read the token of Serf's RPC: %v", err)
		}
		cfg.RPCToken = gossip.Token(text)
	}
	return nil
}

// keyFile is the file that the flag names, else systemd's credential, else "".
func keyFile(flag string) string {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if flag != "" || dir == "" {
		return flag
	}
	path := filepath.Join(dir, keyCredential)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// secretIn reads a short secret from a file.
func secretIn(path string) (string, error) {
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
