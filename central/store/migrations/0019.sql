-- That the monitors of all racks rest, those of racks to come too: api.Pause as JSON, '' while they do not.
ALTER TABLE meta ADD COLUMN pause TEXT NOT NULL DEFAULT '';
