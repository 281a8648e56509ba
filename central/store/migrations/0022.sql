-- Approval by a second person.
ALTER TABLE meta ADD COLUMN policy TEXT NOT NULL DEFAULT ''; -- api.Policy as JSON, '' for the default
ALTER TABLE plans ADD COLUMN asker TEXT NOT NULL DEFAULT '{}'; -- auth.Principal as JSON: who asked for what awaits approval
CREATE INDEX plans_state ON plans (state, expires_at);
-- Nodes that lost power by what was asked for without an approval, lately.
CREATE TABLE cuts (
  principal TEXT    NOT NULL,
  node      TEXT    NOT NULL,
  at        INTEGER NOT NULL,
  PRIMARY KEY (principal, node)
) STRICT, WITHOUT ROWID;
