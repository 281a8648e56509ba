-- Which process has an agent's name, so that a second one of that name is told apart
-- from the same one after a restart of central.
ALTER TABLE agents ADD COLUMN run      TEXT    NOT NULL DEFAULT ''; -- of the process that said the latest hello; '': it has said goodbye, or is not known
ALTER TABLE agents ADD COLUMN peer     TEXT    NOT NULL DEFAULT ''; -- where that process is, for people
ALTER TABLE agents ADD COLUMN hello_at INTEGER NOT NULL DEFAULT 0;  -- since when it has the name
