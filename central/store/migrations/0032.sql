-- The agents that can reach a node, in the order of preference, separated by commas; '': as its rack says.
ALTER TABLE nodes ADD COLUMN agents TEXT NOT NULL DEFAULT '';
-- By which lease its agent has a node that several can reach: a number that grows with each agent that is given a node; 0: it needs none.
ALTER TABLE nodes ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
-- Since when, from whom and why (JSON).
ALTER TABLE nodes ADD COLUMN tenure TEXT NOT NULL DEFAULT '';
CREATE INDEX nodes_epoch ON nodes (agent) WHERE epoch > 0;
-- The latest epoch that was given.
ALTER TABLE meta ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
-- The agent acts on it under a lease only, so that it need not be waited for once that has run out.
ALTER TABLE leaving ADD COLUMN leased INTEGER NOT NULL DEFAULT 0;
-- Who wants it without nodes that others can reach (JSON); '': nobody.
ALTER TABLE agents ADD COLUMN drained TEXT NOT NULL DEFAULT '';
-- The agent that had the operation before and may have begun with it.
ALTER TABLE ops ADD COLUMN handed TEXT NOT NULL DEFAULT '';
