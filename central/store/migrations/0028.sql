-- Requests that carried an Idempotency-Key and did something, so that the same one again does
-- not. The row is written with what they did, the answer after that: 0 for none yet.
CREATE TABLE idempotent (
    who     TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    sum     TEXT    NOT NULL, -- of method, path and body
    request TEXT    NOT NULL, -- which one of those with the key did it
    at      INTEGER NOT NULL,
    status  INTEGER NOT NULL DEFAULT 0,
    answer  BLOB,
    PRIMARY KEY (who, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotent_at ON idempotent (at);
