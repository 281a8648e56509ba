-- The audit log is a hash chain: each entry has the SHA-256 of the one before it and of
-- what it says. The chain begins behind the entry of the anchor: the last one that was
-- pruned, or at first the last one of before there were hashes.
ALTER TABLE audit ADD COLUMN hash TEXT NOT NULL DEFAULT ''; -- hex
CREATE TABLE audit_anchor (
  one  INTEGER PRIMARY KEY CHECK (one = 1),
  id   INTEGER NOT NULL,
  hash TEXT NOT NULL
) STRICT;
INSERT INTO audit_anchor (one, id, hash) SELECT 1, coalesce(max(id), 0), '' FROM audit;
CREATE TRIGGER audit_pruned_from_the_start BEFORE DELETE ON audit
  WHEN OLD.id > (SELECT id FROM audit_anchor)
BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE INDEX audit_at ON audit (at);
