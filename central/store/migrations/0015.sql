-- Who may ask, and how agents of other machines prove who they are.
CREATE TABLE users (
  name       TEXT PRIMARY KEY,
  role       TEXT NOT NULL,
  scope      TEXT NOT NULL DEFAULT '', -- NODES expression; '' for all nodes
  speaks     INTEGER NOT NULL DEFAULT 0, -- may ask in the name of others
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE tokens (
  hash       TEXT PRIMARY KEY, -- SHA-256 of the token
  user       TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL, -- 0: never
  used_at    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_user ON tokens (user);
CREATE TABLE enrolments (
  agent      TEXT PRIMARY KEY,
  token      TEXT NOT NULL DEFAULT '', -- SHA-256 of the secret; '' when there is none
  expires_at INTEGER NOT NULL DEFAULT 0, -- of the token
  used_at    INTEGER NOT NULL DEFAULT 0, -- 0: not used
  serial     TEXT NOT NULL DEFAULT '', -- of the newest certificate
  not_after  INTEGER NOT NULL DEFAULT 0,
  revoked_at INTEGER NOT NULL DEFAULT 0 -- certificates that began by then hold no longer
) STRICT, WITHOUT ROWID;
ALTER TABLE audit ADD COLUMN via TEXT NOT NULL DEFAULT '';     -- how who asked was authenticated
ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT ''; -- where from
