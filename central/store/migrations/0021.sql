-- Client certificates of users. One that is not here holds no longer.
CREATE TABLE certificates (
  serial     TEXT    PRIMARY KEY, -- in hexadecimal
  user       TEXT    NOT NULL REFERENCES users (name) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  not_after  INTEGER NOT NULL,
  until      INTEGER NOT NULL, -- when the token that it was made with expires, which no renewal goes beyond; 0: never
  used_at    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_user ON certificates (user);
