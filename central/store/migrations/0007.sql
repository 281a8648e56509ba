-- What has not ended is found by its node without going through the node's history.
CREATE INDEX ops_open_node ON ops (node, seq) WHERE stage < 4;
-- So is what is due that never left.
CREATE INDEX ops_due ON ops (deadline) WHERE stage = 1 AND delivered = 0;
