-- Which opening of an agent's journal the latest hello was from.

ALTER TABLE agents ADD COLUMN opening TEXT NOT NULL DEFAULT ''; -- '': an agent of before, which names none
