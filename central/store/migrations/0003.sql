-- Alarms that central raises about agents, one of a kind.

CREATE TABLE alarms (
  agent     TEXT    NOT NULL REFERENCES agents (name) ON DELETE CASCADE,
  kind      TEXT    NOT NULL,
  message   TEXT    NOT NULL,
  since     INTEGER NOT NULL,
  remedy    TEXT    NOT NULL,
  needs_ack INTEGER NOT NULL,
  PRIMARY KEY (agent, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO alarms SELECT name, 'journal-lost', alarm, seen_at, '', 1 FROM agents WHERE alarm <> '';
