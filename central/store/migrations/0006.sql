-- When what the audit trail tells of happened, by the clock of who saw it: at is when
-- central wrote it down. 0: at the same time.

ALTER TABLE audit ADD COLUMN happened INTEGER NOT NULL DEFAULT 0;
