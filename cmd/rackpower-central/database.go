package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"rackpower/central"
	"rackpower/central/seal"
	"rackpower/central/store"
	"rackpower/cmd/daemon"
	"rackpower/cmd/settings"
	"rackpower/cmd/term"
	"rackpower/power"
)

// databaseFlag names the directory; where central is installed it need not be given.
func databaseFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Value: installedData, Usage: "data directory `DIR` of central"}
}

// databaseURLFlag names a database that is not in the data directory.
func databaseURLFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "database", Usage: "keep the database on PostgreSQL at `URL`, such as postgres://central@db.example/rackpower; a password is best in PGPASSFILE",
		DefaultText: "SQLite in the data directory",
	}
}

// sealKeyFlag names the file of keys that seal passwords, where it is not in the data
// directory.
func sealKeyFlag() cli.Flag {
	return &cli.StringFlag{Name: "seal-key-file", Usage: "read the keys that seal passwords from `FILE`; default: the systemd credential " +
		sealKeyCredential + ", else " + seal.FileName + " in the data directory"}
}

// sealKeyCredential is the name of the systemd credential that holds the keys.
const sealKeyCredential = "seal-key"

func sealKeyFile(c *cli.Context) string {
	return daemon.CredentialFile(c.String("seal-key-file"), sealKeyCredential)
}

// installedData is the data directory of the systemd unit.
const installedData = "/var/lib/rackpower/central"

// backupDirFlag names the directory of backups that central makes by itself.
func backupDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "`DIR` of the backups", DefaultText: "backups in the data directory"}
}

func backupDir(c *cli.Context) string {
	return cmp.Or(c.String("dir"), central.BackupDir(c.String("data")))
}

func backupCommand() *cli.Command {
	list := &cli.Command{
		Name: "list", Usage: "list the backups that central made by itself",
		Description: "The newest comes first. A backup is listed by its name; rackpower-central backup verify reads it." +
			examples("rackpower-central backup list", "rackpower-central backup list --dir /mnt/backup") + exitHelp,
		Flags:  []cli.Flag{databaseFlag(), backupDirFlag()},
		Action: listBackups,
	}
	return &cli.Command{
		Name: "backup", Usage: "back up the database, and list, verify and restore backups", ArgsUsage: "FILE", Action: list.Action,
		Subcommands: []*cli.Command{list, {
			Name: "make", Usage: "back up the database; central may be running", ArgsUsage: "FILE",
			Description: "The copy shows one moment and is checked before it gets its name. It holds the passwords of the\n" +
				"BMCs sealed: keep a copy of the key, " + seal.FileName + " in the data directory, in another place.\n" +
				"It is readable by its owner only. An existing file is not overwritten. Without make, FILE\n" +
				"must not be the name of a subcommand." +
				examples("rackpower-central backup /backup/central-monday.db", "rackpower-central backup make --data DIR /backup/central-monday.db") +
				exitHelp,
			Flags: []cli.Flag{databaseFlag(), databaseURLFlag()},
			Action: func(c *cli.Context) error {
				if database := c.String("database"); database != "" {
					return failed(errors.New("back up a database on PostgreSQL with its own tools: pg_basebackup for the server, or " +
						"pg_dump --format=custom for the database, which pg_restore brings back"))
				}
				sum, err := store.Backup(c.Context, central.DatabasePath(c.String("data")), c.Args().First())
				if err != nil {
					return failed(err)
				}
				fmt.Fprintf(c.App.Writer, "%s: %s\n", c.Args().First(), describe(sum))
				return nil
			},
		}, {
			Name: "verify", Usage: "read backups and say what is wrong with them", ArgsUsage: "[FILE...]",
			Description: "Each is read whole, with the hashes of its audit log. Without FILE: all that backup list shows." +
				examples("rackpower-central backup verify", "rackpower-central backup verify /backup/central-monday.db") + exitHelp,
			Flags:  []cli.Flag{databaseFlag(), backupDirFlag()},
			Action: verifyBackups,
		}, restoreCommand()},
	}
}

func listBackups(c *cli.Context) error {
	files, err := central.BackupFiles(backupDir(c))
	if err != nil {
		return failed(err)
	}
	if len(files) == 0 {
		fmt.Fprintf(c.App.ErrWriter, "no backups in %s\n", backupDir(c))
		return nil
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "AGE\tSIZE\tFILE")
	for _, f := range files {
		age := "?"
		if !f.At.IsZero() {
			age = power.Ago(time.Since(f.At))
		}
		fmt.Fprintf(w, "%s\t%.1f MiB\t%s\n", age, float64(f.Size)/(1<<20), term.Clean(f.Path))
	}
	return w.Flush()
}

func verifyBackups(c *cli.Context) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		files, err := central.BackupFiles(backupDir(c))
		if err != nil {
			return failed(err)
		}
		for _, f := range files {
			names = append(names, f.Path)
		}
		if len(names) == 0 {
			return settings.Exit(settings.ExitFailed, "no backups in %s", backupDir(c))
		}
	}
	wrong := 0
	for _, name := range names {
		if sum, err := store.Check(c.Context, name); err != nil {
			wrong++
			fmt.Fprintf(c.App.ErrWriter, "%s: %s\n", term.Clean(name), oneLine(err))
		} else {
			fmt.Fprintf(c.App.Writer, "%s: ok: %s\n", term.Clean(name), describe(sum))
		}
	}
	if wrong > 0 {
		return settings.Exit(settings.ExitFailed, "%d of %d backups cannot be restored", wrong, len(names))
	}
	return nil
}

func restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", Usage: "replace the database with a backup", ArgsUsage: "FILE",
		Description: "Central must not run. The database that was there is kept beside the restored one. Agents notice\n" +
			"that, take their whole assignment again, report again how operations ended, and carry out nothing twice.\n" +
			"Where it desires much else than was enforced, the monitors wait for rackpower site confirm.\n" +
			"They keep nodes and holds of after the backup, which rackpower agents shows. Run it as the user\n" +
			"that central runs as, who has to own the database. The key that seals the passwords in the backup\n" +
			"has to be there (" + seal.FileName + " in the data directory, or --seal-key-file): without it nothing is restored." +
			examples("rackpower-central restore /backup/central-monday.db") + exitHelp,
		Flags: []cli.Flag{databaseFlag(), sealKeyFlag()},
		Action: func(c *cli.Context) error {
			if err := store.MakeDirectory(c.String("data")); err != nil {
				return failed(err)
			}
			sum, kept, err := store.Restore(c.Context, c.Args().First(), central.DatabasePath(c.String("data")), sealKeyFile(c))
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.App.Writer, "restored: %s\n", describe(sum))
			if kept != "" {
				fmt.Fprintf(c.App.Writer, "kept what was there as %s\n", kept)
			}
			return nil
		},
	}
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "check the database for damage",
		Description: "Central may run meanwhile." +
			examples("rackpower-central check", "rackpower-central check --database postgres://central@db.example/rackpower") + exitHelp,
		Flags: []cli.Flag{databaseFlag(), databaseURLFlag()},
		Action: func(c *cli.Context) error {
			sum, err := checkDatabase(c.Context, c.String("data"), c.String("database"))
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.App.Writer, "ok: %s\n", describe(sum))
			return nil
		},
	}
}

// checkDatabase reads the database, wherever it is.
func checkDatabase(ctx context.Context, data, database string) (store.Summary, error) {
	if database != "" {
		return store.CheckServer(ctx, database)
	}
	return store.Check(ctx, central.DatabasePath(data))
}

func migrateCommand() *cli.Command {
	return &cli.Command{
		Name: "migrate", Usage: "move the database from SQLite to PostgreSQL, or back",
		Description: "Central must not run. All is copied in one transaction and compared, table by table, before it counts.\n" +
			"The database that it comes from stays as it is: do not start a central on it again. Agents notice the\n" +
			"move as they do a restore, and go on. The keys that seal passwords are those in the directory of the\n" +
			"file, or --seal-key-file. Run it as the user that central runs as." +
			examples("rackpower-central migrate --from sqlite:/var/lib/rackpower/central/central.db --to postgres://central@db.example/rackpower",
				"rackpower-central migrate --from postgres://central@db.example/rackpower --to sqlite:/var/lib/rackpower/central/central.db") +
			exitHelp,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Required: true, Usage: "move what is in `DATABASE`: sqlite:PATH or postgres://..."},
			&cli.StringFlag{Name: "to", Required: true, Usage: "move it to `DATABASE`, which has to be new"},
			sealKeyFlag(),
		},
		Action: func(c *cli.Context) error {
			sum, err := migrate(c)
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(c.App.Writer, "moved and compared: %s\n", describe(sum))
			return nil
		},
	}
}

const sqliteScheme = "sqlite:"

func migrate(c *cli.Context) (sum store.Summary, err error) {
	from, to := c.String("from"), c.String("to")
	fromPath, fromFile := strings.CutPrefix(from, sqliteScheme)
	toPath, toFile := strings.CutPrefix(to, sqliteScheme)
	if fromFile == toFile {
		return sum, errors.New("one of --from and --to has to be sqlite:PATH, the other one postgres://")
	}
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelError}))
	first := store.Config{KeyFile: sealKeyFile(c), Log: log}
	second := first
	if fromFile {
		if _, err := os.Stat(fromPath); err != nil {
			return sum, fmt.Errorf("there is no database: %w", err)
		}
		first.Path, second.Path, second.Database = fromPath, fromPath, to
	} else {
		if _, err := os.Lstat(toPath); err == nil {
			return sum, fmt.Errorf("cannot move the database to %s: %w", toPath, fs.ErrExist)
		}
		first.Path, first.Database, second.Path = toPath, from, toPath
	}
	source, err := store.Open(first)
	if err != nil {
		return sum, err
	}
	target, err := store.Open(second)
	if err == nil {
		sum, err = store.Move(c.Context, source, target, time.Now())
		err = errors.Join(err, target.Close())
		if err != nil && toFile {
			err = errors.Join(err, os.Remove(toPath))
		}
	}
	return sum, errors.Join(err, source.Close())
}

func failed(err error) error { return settings.Exit(settings.ExitFailed, "%s", oneLine(err)) }

func describe(s store.Summary) string {
	return fmt.Sprintf("schema %d, generation %d, id %s; %d nodes, %d agents, %d operations (%d outstanding), %d audit entries",
		s.Schema, s.Generation, s.ID, s.Nodes, s.Agents, s.Ops, s.Open, s.Audit)
}
