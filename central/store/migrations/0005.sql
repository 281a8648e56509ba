-- A restore keeps the id of the database and raises its incarnation: agents know the
-- central that they trust by the one, and whose acknowledgements count by both.
ALTER TABLE meta ADD COLUMN incarnation INTEGER NOT NULL DEFAULT 0; -- when it was restored last, in ms; 0: never
-- A person confirmed that the agent loses the node.
ALTER TABLE removed ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0;
