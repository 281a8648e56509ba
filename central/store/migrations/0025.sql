-- The machines that central ('') and the agents run on, by host name: a node of that name
-- is protected when that becomes known.
CREATE TABLE machines (
    agent TEXT PRIMARY KEY,
    host  TEXT NOT NULL
) STRICT;
