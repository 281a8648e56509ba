-- Changes of nodes that were planned, and what they were found to do.
CREATE TABLE plans (
  id         TEXT    PRIMARY KEY, -- chosen by the asker
  principal  TEXT    NOT NULL, -- who asked, as authenticated
  state      TEXT    NOT NULL, -- api.PlanState
  asked_at   INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  change     TEXT    NOT NULL, -- api.Change as JSON
  plan       TEXT    NOT NULL  -- api.Plan as JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX plans_principal ON plans (principal, asked_at);
CREATE INDEX plans_expires ON plans (expires_at);
