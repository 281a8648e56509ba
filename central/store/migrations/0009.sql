-- An agent that was forgotten is not listed, until it says hello or gets a node again. The
-- one without a name stands for none: of the nodes that are assigned to nobody.

ALTER TABLE agents ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
INSERT INTO agents (name, forgotten) VALUES ('', 1);
