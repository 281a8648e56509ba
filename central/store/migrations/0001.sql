-- All times are nanoseconds since 1970, 0 where there is none.

CREATE TABLE meta (
  one        INTEGER PRIMARY KEY CHECK (one = 1),
  id         TEXT    NOT NULL, -- names this database; a restored one gets another
  generation INTEGER NOT NULL, -- how often it was restored
  created_at INTEGER NOT NULL,
  seq        INTEGER NOT NULL, -- high water of the sequences given or seen
  rev        INTEGER NOT NULL  -- high water of the revisions of operations
) STRICT;

CREATE TABLE agents (
  name       TEXT    PRIMARY KEY, -- the rack
  rev        INTEGER NOT NULL DEFAULT 1, -- raised with every change of what is assigned
  floor      INTEGER NOT NULL DEFAULT 0, -- revisions below it lack tombstones: send all
  rev_seen   INTEGER NOT NULL DEFAULT 0,
  journal_id TEXT    NOT NULL DEFAULT '',
  epoch      INTEGER NOT NULL DEFAULT 0,
  lsn        INTEGER NOT NULL DEFAULT 0, -- highest ever reported of this journal
  session    TEXT    NOT NULL DEFAULT '',
  seen_at    INTEGER NOT NULL DEFAULT 0,
  version    TEXT    NOT NULL DEFAULT '',
  alarm      TEXT    NOT NULL DEFAULT '',
  address    TEXT    NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
  name        TEXT    PRIMARY KEY,
  rack        TEXT    NOT NULL,
  agent       TEXT    NOT NULL REFERENCES agents (name),
  bmc         TEXT    NOT NULL, -- as power.ParseEndpoint reads it, '' for none
  password    TEXT    NOT NULL,
  domain      TEXT    NOT NULL,
  status      TEXT    NOT NULL,
  confirmed   INTEGER NOT NULL, -- the latest change of status was confirmed
  rev         INTEGER NOT NULL, -- the agent's, when this row last changed for it
  state       TEXT    NOT NULL DEFAULT 'unknown',
  reach       TEXT    NOT NULL DEFAULT 'never',
  observed_at INTEGER NOT NULL DEFAULT 0,
  tried_at    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX nodes_agent ON nodes (agent, rev);

-- Tombstones: what an agent must be told to forget.
CREATE TABLE removed (
  agent TEXT    NOT NULL REFERENCES agents (name),
  name  TEXT    NOT NULL,
  rev   INTEGER NOT NULL,
  at    INTEGER NOT NULL,
  PRIMARY KEY (agent, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE ops (
  id            TEXT    PRIMARY KEY,
  seq           INTEGER NOT NULL,
  node          TEXT    NOT NULL,
  agent         TEXT    NOT NULL REFERENCES agents (name),
  action        TEXT    NOT NULL,
  asked_by      TEXT    NOT NULL,
  origin        TEXT    NOT NULL,
  reason        TEXT    NOT NULL,
  asked_at      INTEGER NOT NULL,
  deadline      INTEGER NOT NULL,
  if_busy       TEXT    NOT NULL,
  boot          TEXT    NOT NULL,
  grace         INTEGER NOT NULL, -- nanoseconds
  no_escalate   INTEGER NOT NULL,
  confirmed     INTEGER NOT NULL,
  cursor        INTEGER NOT NULL, -- revision at which it was taken: the order of delivery
  -- what became of it
  stage         INTEGER NOT NULL, -- 1 taken, 2 waiting, 3 running, 4 ended
  phase         TEXT    NOT NULL,
  delivered     INTEGER NOT NULL, -- 1 from before it first left for the agent
  verdict       TEXT    NOT NULL,
  why           TEXT    NOT NULL,
  says          TEXT    NOT NULL,
  started_at    INTEGER NOT NULL,
  ended_at      INTEGER NOT NULL,
  outcome       TEXT    NOT NULL,
  detail        TEXT    NOT NULL,
  already       INTEGER NOT NULL,
  superseded_by TEXT    NOT NULL,
  joined        TEXT    NOT NULL,
  attempts      INTEGER NOT NULL,
  state         TEXT    NOT NULL,
  journal_id    TEXT    NOT NULL, -- where lsn counts
  lsn           INTEGER NOT NULL, -- of the record that the latest word stands on
  cancel_by     TEXT    NOT NULL,
  cancel_reason TEXT    NOT NULL,
  cancel_cursor INTEGER NOT NULL,
  rev           INTEGER NOT NULL  -- of the latest change
) STRICT;
CREATE INDEX ops_seq ON ops (seq);
CREATE INDEX ops_node ON ops (node, seq);
CREATE INDEX ops_rev ON ops (rev);
CREATE INDEX ops_open ON ops (agent, stage, cursor) WHERE stage < 4;
CREATE INDEX ops_joined ON ops (joined) WHERE joined <> '' AND stage < 4;

CREATE TABLE audit (
  id      INTEGER PRIMARY KEY,
  at      INTEGER NOT NULL,
  who     TEXT    NOT NULL,
  what    TEXT    NOT NULL,
  node    TEXT    NOT NULL,
  op      TEXT    NOT NULL,
  why     TEXT    NOT NULL,
  outcome TEXT    NOT NULL,
  detail  TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_node ON audit (node, id);
CREATE TRIGGER audit_append_only BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
