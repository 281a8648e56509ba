-- What expressions select nodes by is found without a look at the others.
CREATE INDEX nodes_rack ON nodes (lower(rack));
CREATE INDEX nodes_status ON nodes (status);
CREATE INDEX nodes_state ON nodes (state);
CREATE INDEX nodes_labels ON nodes (labels) WHERE labels <> '';
