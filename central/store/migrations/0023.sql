-- Credentials that many nodes share: a node names them, or its rack does (in its settings)
-- for all of its nodes that have neither a password nor a name of their own. Secrets are
-- sealed; the names of the columns are the purposes, apart from those of nodes.
CREATE TABLE credentials (
  name         TEXT    PRIMARY KEY,
  user         TEXT    NOT NULL,
  own_password TEXT    NOT NULL,
  own_kg       TEXT    NOT NULL, -- '' for none
  set_at       INTEGER NOT NULL,
  set_by       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE nodes ADD COLUMN credentials TEXT NOT NULL DEFAULT ''; -- '': none are named
CREATE INDEX nodes_credentials ON nodes (credentials) WHERE credentials <> '';
