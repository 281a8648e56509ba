-- Which BMC a node has, and what a log-in to it takes beside the password.

ALTER TABLE nodes ADD COLUMN kg         TEXT NOT NULL DEFAULT ''; -- BMC key K_g as power.ParseKG reads it, '' for none
ALTER TABLE nodes ADD COLUMN bmc_part   TEXT NOT NULL DEFAULT ''; -- power.Endpoint.Part of bmc, '' for none
ALTER TABLE nodes ADD COLUMN bmc_addr   TEXT NOT NULL DEFAULT ''; -- address that the host's name stands for, as the agent said it last
ALTER TABLE nodes ADD COLUMN bmc_at     TEXT NOT NULL DEFAULT ''; -- bmc_part with bmc_addr in place of the name
ALTER TABLE nodes ADD COLUMN bmc_shared TEXT NOT NULL DEFAULT ''; -- names of other nodes that have the same, '' for none
CREATE INDEX nodes_bmc_part ON nodes (bmc_part) WHERE bmc_part <> '';
CREATE INDEX nodes_bmc_at ON nodes (bmc_at) WHERE bmc_at <> '';
CREATE INDEX nodes_bmc_shared ON nodes (agent) WHERE bmc_shared <> '';
