-- Who keeps a node's power from being taken away: power.Protection as JSON, '' for nobody.
ALTER TABLE nodes ADD COLUMN protected TEXT NOT NULL DEFAULT '';
