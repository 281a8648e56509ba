-- After a restore the monitors wait until what their agents enforced before has been compared.
ALTER TABLE meta ADD COLUMN restored_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE meta ADD COLUMN restored_of INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agents ADD COLUMN restored INTEGER NOT NULL DEFAULT 0;
CREATE TABLE enforced (
	agent  TEXT    NOT NULL,
	node   TEXT    NOT NULL,
	had    INTEGER NOT NULL,
	status TEXT    NOT NULL,
	hold   TEXT    NOT NULL,
	PRIMARY KEY (agent, node)
) STRICT, WITHOUT ROWID;
