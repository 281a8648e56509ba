-- A node goes to another agent when the one before has let go of it.
ALTER TABLE nodes ADD COLUMN waits_for TEXT NOT NULL DEFAULT ''; -- agents that have to let go first; its own is not told of it until then
CREATE INDEX nodes_waiting ON nodes (agent) WHERE waits_for <> '';

-- What agents were told to let go of, and have not confirmed.
CREATE TABLE leaving (
  agent  TEXT    NOT NULL,
  node   TEXT    NOT NULL,
  part   TEXT    NOT NULL,            -- of a BMC, as nodes.bmc_part, '' for none
  at     TEXT    NOT NULL,            -- likewise nodes.bmc_at
  rev    INTEGER NOT NULL,            -- the agent's, that takes it away
  since  INTEGER NOT NULL,
  forced TEXT    NOT NULL DEFAULT '', -- who said that the agent is dead: nobody waits for it
  PRIMARY KEY (agent, node, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX leaving_node ON leaving (node);
CREATE INDEX leaving_part ON leaving (part) WHERE part <> '';
