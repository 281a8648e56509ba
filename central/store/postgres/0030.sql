-- Schema 30 as PostgreSQL starts with it; migrations/0001.sql to 0030.sql say what the columns are.
-- Types are SQLite's names, which are translated: see ddl.

CREATE TABLE meta (
  one            INTEGER PRIMARY KEY CHECK (one = 1),
  id             TEXT NOT NULL,
  generation     INTEGER NOT NULL,
  created_at     INTEGER NOT NULL,
  seq            INTEGER NOT NULL,
  rev            INTEGER NOT NULL,
  incarnation    INTEGER NOT NULL DEFAULT 0,
  plain          INTEGER NOT NULL DEFAULT 1,
  pause          TEXT NOT NULL DEFAULT '',
  policy         TEXT NOT NULL DEFAULT '',
  webhook_passed INTEGER NOT NULL DEFAULT -1
);
CREATE TABLE agents (
  name         TEXT PRIMARY KEY,
  rev          INTEGER NOT NULL DEFAULT 1,
  floor        INTEGER NOT NULL DEFAULT 0,
  rev_seen     INTEGER NOT NULL DEFAULT 0,
  journal_id   TEXT NOT NULL DEFAULT '',
  epoch        INTEGER NOT NULL DEFAULT 0,
  lsn          INTEGER NOT NULL DEFAULT 0,
  session      TEXT NOT NULL DEFAULT '',
  seen_at      INTEGER NOT NULL DEFAULT 0,
  version      TEXT NOT NULL DEFAULT '',
  alarm        TEXT NOT NULL DEFAULT '',
  address      TEXT NOT NULL DEFAULT '',
  settings     TEXT NOT NULL DEFAULT '',
  settings_rev INTEGER NOT NULL DEFAULT 0,
  pause_until  INTEGER NOT NULL DEFAULT 0,
  rack         TEXT NOT NULL DEFAULT '',
  opening      TEXT NOT NULL DEFAULT '',
  forgotten    INTEGER NOT NULL DEFAULT 0,
  run          TEXT NOT NULL DEFAULT '',
  peer         TEXT NOT NULL DEFAULT '',
  hello_at     INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE nodes (
  name           TEXT PRIMARY KEY,
  rack           TEXT NOT NULL,
  agent          TEXT NOT NULL REFERENCES agents (name),
  bmc            TEXT NOT NULL,
  password       TEXT NOT NULL,
  domain         TEXT NOT NULL,
  status         TEXT NOT NULL,
  confirmed      INTEGER NOT NULL,
  rev            INTEGER NOT NULL,
  state          TEXT NOT NULL DEFAULT 'unknown',
  reach          TEXT NOT NULL DEFAULT 'never',
  observed_at    INTEGER NOT NULL DEFAULT 0,
  tried_at       INTEGER NOT NULL DEFAULT 0,
  hold_want      TEXT NOT NULL DEFAULT '',
  hold_by        TEXT NOT NULL DEFAULT '',
  hold_reason    TEXT NOT NULL DEFAULT '',
  hold_schedule  TEXT NOT NULL DEFAULT '',
  hold_since     INTEGER NOT NULL DEFAULT 0,
  hold_until     INTEGER NOT NULL DEFAULT 0,
  hold_seq       INTEGER NOT NULL DEFAULT 0,
  hold_heard     INTEGER NOT NULL DEFAULT 0,
  hold_confirmed INTEGER NOT NULL DEFAULT 0,
  retry          INTEGER NOT NULL DEFAULT 0,
  monitor        TEXT NOT NULL DEFAULT '',
  fault          TEXT NOT NULL DEFAULT '',
  matched        INTEGER NOT NULL DEFAULT 0,
  drifting       INTEGER NOT NULL DEFAULT 0,
  breaker_open   INTEGER NOT NULL DEFAULT 0,
  unsettled      INTEGER NOT NULL DEFAULT 1,
  kg             TEXT NOT NULL DEFAULT '',
  bmc_part       TEXT NOT NULL DEFAULT '',
  bmc_addr       TEXT NOT NULL DEFAULT '',
  bmc_at         TEXT NOT NULL DEFAULT '',
  bmc_shared     TEXT NOT NULL DEFAULT '',
  waits_for      TEXT NOT NULL DEFAULT '',
  protected      TEXT NOT NULL DEFAULT '',
  credentials    TEXT NOT NULL DEFAULT '',
  took           INTEGER NOT NULL DEFAULT 0,
  labels         TEXT NOT NULL DEFAULT ''
);
CREATE TABLE removed (
  agent     TEXT NOT NULL REFERENCES agents (name),
  name      TEXT NOT NULL,
  rev       INTEGER NOT NULL,
  at        INTEGER NOT NULL,
  confirmed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (agent, name)
);
CREATE TABLE ops (
  id            TEXT PRIMARY KEY,
  seq           INTEGER NOT NULL,
  node          TEXT NOT NULL,
  agent         TEXT NOT NULL REFERENCES agents (name),
  action        TEXT NOT NULL,
  asked_by      TEXT NOT NULL,
  origin        TEXT NOT NULL,
  reason        TEXT NOT NULL,
  asked_at      INTEGER NOT NULL,
  deadline      INTEGER NOT NULL,
  if_busy       TEXT NOT NULL,
  boot          TEXT NOT NULL,
  grace         INTEGER NOT NULL,
  no_escalate   INTEGER NOT NULL,
  confirmed     INTEGER NOT NULL,
  cursor        INTEGER NOT NULL,
  stage         INTEGER NOT NULL,
  phase         TEXT NOT NULL,
  delivered     INTEGER NOT NULL,
  verdict       TEXT NOT NULL,
  why           TEXT NOT NULL,
  message       TEXT NOT NULL,
  started_at    INTEGER NOT NULL,
  ended_at      INTEGER NOT NULL,
  outcome       TEXT NOT NULL,
  detail        TEXT NOT NULL,
  already       INTEGER NOT NULL,
  superseded_by TEXT NOT NULL,
  joined        TEXT NOT NULL,
  attempts      INTEGER NOT NULL,
  state         TEXT NOT NULL,
  journal_id    TEXT NOT NULL,
  lsn           INTEGER NOT NULL,
  cancel_by     TEXT NOT NULL,
  cancel_reason TEXT NOT NULL,
  cancel_cursor INTEGER NOT NULL,
  rev           INTEGER NOT NULL,
  limit_watts   INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE audit (
  id       INTEGER PRIMARY KEY,
  at       INTEGER NOT NULL,
  who      TEXT NOT NULL,
  what     TEXT NOT NULL,
  node     TEXT NOT NULL,
  op       TEXT NOT NULL,
  why      TEXT NOT NULL,
  outcome  TEXT NOT NULL,
  detail   TEXT NOT NULL,
  happened INTEGER NOT NULL DEFAULT 0,
  via      TEXT NOT NULL DEFAULT '',
  address  TEXT NOT NULL DEFAULT '',
  hash     TEXT NOT NULL DEFAULT ''
);
CREATE TABLE domains (
  name       TEXT PRIMARY KEY,
  rate       REAL NOT NULL,
  concurrent INTEGER NOT NULL
);
CREATE TABLE schedules (
  name         TEXT PRIMARY KEY,
  cron         TEXT NOT NULL,
  nodes        TEXT NOT NULL,
  want         TEXT NOT NULL,
  lasts        INTEGER NOT NULL,
  reason       TEXT NOT NULL,
  by           TEXT NOT NULL,
  confirmed    INTEGER NOT NULL,
  created_at   INTEGER NOT NULL,
  done         INTEGER NOT NULL,
  last_at      INTEGER NOT NULL,
  last_message TEXT NOT NULL
);
CREATE TABLE alarms (
  agent     TEXT NOT NULL REFERENCES agents (name) ON DELETE CASCADE,
  kind      TEXT NOT NULL,
  message   TEXT NOT NULL,
  since     INTEGER NOT NULL,
  remedy    TEXT NOT NULL,
  needs_ack INTEGER NOT NULL,
  PRIMARY KEY (agent, kind)
);
CREATE TABLE leaving (
  agent  TEXT NOT NULL,
  node   TEXT NOT NULL,
  part   TEXT NOT NULL,
  at     TEXT NOT NULL,
  rev    INTEGER NOT NULL,
  since  INTEGER NOT NULL,
  forced TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (agent, node, part)
);
CREATE TABLE users (
  name       TEXT PRIMARY KEY,
  role       TEXT NOT NULL,
  scope      TEXT NOT NULL DEFAULT '',
  speaks     INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL
);
CREATE TABLE tokens (
  hash       TEXT PRIMARY KEY,
  "user"     TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  used_at    INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE enrolments (
  agent      TEXT PRIMARY KEY,
  token      TEXT NOT NULL DEFAULT '',
  expires_at INTEGER NOT NULL DEFAULT 0,
  used_at    INTEGER NOT NULL DEFAULT 0,
  serial     TEXT NOT NULL DEFAULT '',
  not_after  INTEGER NOT NULL DEFAULT 0,
  revoked_at INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE audit_anchor (
  one  INTEGER PRIMARY KEY CHECK (one = 1),
  id   INTEGER NOT NULL,
  hash TEXT NOT NULL
);
CREATE TABLE plans (
  id         TEXT PRIMARY KEY,
  principal  TEXT NOT NULL,
  state      TEXT NOT NULL,
  asked_at   INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  change     TEXT NOT NULL,
  plan       TEXT NOT NULL,
  asker      TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE certificates (
  serial     TEXT PRIMARY KEY,
  "user"     TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  not_after  INTEGER NOT NULL,
  until      INTEGER NOT NULL,
  used_at    INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE cuts (
  principal TEXT NOT NULL,
  node      TEXT NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (principal, node)
);
CREATE TABLE credentials (
  name          TEXT PRIMARY KEY,
  "user"        TEXT NOT NULL,
  own_password  TEXT NOT NULL,
  own_kg        TEXT NOT NULL,
  set_at        INTEGER NOT NULL,
  set_by        TEXT NOT NULL,
  next_user     TEXT NOT NULL DEFAULT '',
  next_password TEXT NOT NULL DEFAULT '',
  next_kg       TEXT NOT NULL DEFAULT '',
  next_at       INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE machines (
  agent TEXT PRIMARY KEY,
  host  TEXT NOT NULL
);
CREATE TABLE idempotent (
  who     TEXT NOT NULL,
  key     TEXT NOT NULL,
  sum     TEXT NOT NULL,
  request TEXT NOT NULL,
  at      INTEGER NOT NULL,
  status  INTEGER NOT NULL DEFAULT 0,
  answer  BLOB,
  PRIMARY KEY (who, key)
);
CREATE INDEX audit_node ON audit (node, id);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX certificates_user ON certificates ("user");
CREATE INDEX idempotent_at ON idempotent (at);
CREATE INDEX leaving_node ON leaving (node);
CREATE INDEX leaving_part ON leaving (part) WHERE part <> '';
CREATE INDEX nodes_agent ON nodes (agent, rev);
CREATE INDEX nodes_held ON nodes (hold_until) WHERE hold_want <> '' AND hold_until > 0;
CREATE INDEX nodes_domain ON nodes (domain, agent) WHERE domain <> '';
CREATE INDEX nodes_bmc_part ON nodes (bmc_part) WHERE bmc_part <> '';
CREATE INDEX nodes_bmc_at ON nodes (bmc_at) WHERE bmc_at <> '';
CREATE INDEX nodes_bmc_shared ON nodes (agent) WHERE bmc_shared <> '';
CREATE INDEX nodes_waiting ON nodes (agent) WHERE waits_for <> '';
CREATE INDEX nodes_credentials ON nodes (credentials) WHERE credentials <> '';
CREATE INDEX nodes_rack ON nodes (lower(rack));
CREATE INDEX nodes_status ON nodes (status);
CREATE INDEX nodes_state ON nodes (state);
CREATE INDEX nodes_labels ON nodes (labels) WHERE labels <> '';
CREATE INDEX ops_seq ON ops (seq);
CREATE INDEX ops_node ON ops (node, seq);
CREATE INDEX ops_rev ON ops (rev);
CREATE INDEX ops_open ON ops (agent, stage, cursor) WHERE stage < 4;
CREATE INDEX ops_joined ON ops (joined) WHERE joined <> '' AND stage < 4;
CREATE INDEX ops_open_node ON ops (node, seq) WHERE stage < 4;
CREATE INDEX ops_due ON ops (deadline) WHERE stage = 1 AND delivered = 0;
CREATE INDEX plans_principal ON plans (principal, asked_at);
CREATE INDEX plans_expires ON plans (expires_at);
CREATE INDEX plans_state ON plans (state, expires_at);
CREATE INDEX tokens_user ON tokens ("user");

INSERT INTO agents (name, forgotten) VALUES ('', 1);
INSERT INTO audit_anchor (one, id, hash) VALUES (1, 0, '');

CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND OLD.id <= (SELECT id FROM audit_anchor) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'the audit log is append-only';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_append_only();

-- What the store's SQL has of SQLite's functions. PostgreSQL expands the first into the query that asks.
CREATE FUNCTION json_each(list text) RETURNS TABLE (value text) LANGUAGE sql IMMUTABLE ROWS 100
  AS $$ SELECT * FROM json_array_elements_text(list::json) $$;
CREATE FUNCTION json_extract(document text, path text) RETURNS text LANGUAGE sql IMMUTABLE
  AS $$ SELECT jsonb_path_query_first(document::jsonb, path::jsonpath) #>> '{}' $$;
CREATE FUNCTION max(a bigint, b bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
  AS $$ SELECT greatest(a, b) $$;
