-- Credentials that take the place of others: both are kept until all nodes use the new ones.
ALTER TABLE credentials ADD COLUMN next_user     TEXT    NOT NULL DEFAULT ''; -- '': they are not being replaced
ALTER TABLE credentials ADD COLUMN next_password TEXT    NOT NULL DEFAULT '';
ALTER TABLE credentials ADD COLUMN next_kg       TEXT    NOT NULL DEFAULT '';
ALTER TABLE credentials ADD COLUMN next_at       INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN took INTEGER NOT NULL DEFAULT 0; -- next_at of the credentials that its BMC took
