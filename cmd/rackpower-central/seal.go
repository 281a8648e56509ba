package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"rackpower/central"
	"rackpower/central/api"
	"rackpower/central/seal"
	"rackpower/central/store"
	"rackpower/cmd/settings"
)

// installedSocket is the socket of the systemd unit.
const installedSocket = "/run/rackpower/central.sock"

func sealCommand() *cli.Command {
	return &cli.Command{
		Name: "seal", Usage: "change the key that seals passwords in the database",
		Subcommands: []*cli.Command{{
			Name: "rotate", Usage: "make a new key and seal all passwords with it; central may be running",
			Description: "The key of before goes to " + seal.FileName + seal.OldSuffix + " in the data directory: backups of before need it.\n" +
				"Copy the new " + seal.FileName + " to where you keep copies of it. If it ends early, the next start of\n" +
				"central, or the next rotation, completes it. A key that --seal-key-file or the systemd\n" +
				"credential " + sealKeyCredential + " names is changed there: put the new one on a line before the others,\n" +
				"and restart central." +
				examples("rackpower-central seal rotate", "rackpower-central seal rotate --data DIR") + exitHelp,
			Flags: []cli.Flag{
				databaseFlag(), databaseURLFlag(), sealKeyFlag(),
				&cli.StringFlag{
					Name: "socket", Usage: "`PATH` of the socket of the central that runs",
					DefaultText: "central.sock in the data directory, else " + installedSocket,
				},
			},
			Action: func(c *cli.Context) error {
				change, err := rotateSealKey(c)
				if err != nil {
					return failed(err)
				}
				fmt.Fprintf(c.App.Writer, "key %s seals the passwords; key %s, which backups of before need, is in %s\n", change.To, change.From,
					change.Kept)
				return nil
			},
		}},
	}
}

// rotateSealKey asks the central that has the database open, if one has.
func rotateSealKey(c *cli.Context) (api.SealKey, error) {
	path, database := central.DatabasePath(c.String("data")), c.String("database")
	if _, err := os.Stat(path); err != nil && database == "" {
		return api.SealKey{}, fmt.Errorf("there is no database: %w", err)
	}
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn}))
	db, err := store.Open(store.Config{Path: path, Database: database, KeyFile: sealKeyFile(c), CheckBelow: -1, Log: log})
	if errors.Is(err, store.ErrInUse) {
		return rotateAtCentral(c.Context, c.String("data"), database, c.String("socket"))
	}
	if err != nil {
		return api.SealKey{}, err
	}
	change, err := db.RotateKey(c.Context)
	return api.SealKey(change), errors.Join(err, db.Close())
}

func rotateAtCentral(ctx context.Context, data, database, socket string) (api.SealKey, error) {
	if socket == "" {
		socket = filepath.Join(data, "central.sock")
		if _, err := os.Stat(socket); err != nil {
			socket = installedSocket
		}
	}
	client, err := api.NewClient(settings.SocketURL(socket))
	if err != nil {
		return api.SealKey{}, err
	}
	defer client.Close()
	info, err := client.Info(ctx)
	if err == nil {
		var sum store.Summary
		sum, err = checkDatabase(ctx, data, database)
		if err == nil && sum.ID != info.ID {
			err = fmt.Errorf("the central at %s has another database: name the socket of this one with --socket", socket)
		}
	}
	if err != nil {
		return api.SealKey{}, err
	}
	return client.RotateSealKey(ctx, api.RotateSealKey{})
}
