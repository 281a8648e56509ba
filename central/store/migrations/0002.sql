-- Holds, what the monitors say, settings of racks, power domains, schedules.

ALTER TABLE nodes ADD COLUMN hold_want      TEXT    NOT NULL DEFAULT ''; -- '': released, or never held
ALTER TABLE nodes ADD COLUMN hold_by        TEXT    NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN hold_reason    TEXT    NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN hold_schedule  TEXT    NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN hold_since     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN hold_until     INTEGER NOT NULL DEFAULT 0; -- 0: until released
ALTER TABLE nodes ADD COLUMN hold_seq       INTEGER NOT NULL DEFAULT 0; -- of the newest set or release
ALTER TABLE nodes ADD COLUMN hold_heard     INTEGER NOT NULL DEFAULT 0; -- of the newest that the schedule knew
ALTER TABLE nodes ADD COLUMN hold_confirmed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN retry          INTEGER NOT NULL DEFAULT 0; -- sequence of the latest wish to try again
ALTER TABLE nodes ADD COLUMN monitor        TEXT    NOT NULL DEFAULT ''; -- api.NodeMonitor as JSON, as the agent said it last
ALTER TABLE nodes ADD COLUMN fault          TEXT    NOT NULL DEFAULT ''; -- that of monitor
ALTER TABLE nodes ADD COLUMN matched        INTEGER NOT NULL DEFAULT 0; -- that of monitor, for what is desired now
ALTER TABLE nodes ADD COLUMN drifting       INTEGER NOT NULL DEFAULT 0; -- the audit trail says that it drifts
ALTER TABLE nodes ADD COLUMN left_alone     INTEGER NOT NULL DEFAULT 0; -- the audit trail says that its BMC is left alone
ALTER TABLE nodes ADD COLUMN unsettled      INTEGER NOT NULL DEFAULT 1; -- an equal report may still be news
CREATE INDEX nodes_held ON nodes (hold_until) WHERE hold_want <> '' AND hold_until > 0;
CREATE INDEX nodes_domain ON nodes (domain, agent) WHERE domain <> '';

ALTER TABLE agents ADD COLUMN settings     TEXT    NOT NULL DEFAULT ''; -- api.RackSettings as JSON, without domains
ALTER TABLE agents ADD COLUMN settings_rev INTEGER NOT NULL DEFAULT 0; -- rev when settings, or the limits of its domains, last changed
ALTER TABLE agents ADD COLUMN pause_until  INTEGER NOT NULL DEFAULT 0; -- when the pause in settings ends by itself, 0: not
ALTER TABLE agents ADD COLUMN rack         TEXT    NOT NULL DEFAULT ''; -- api.RackState as JSON, as the agent said it last
-- Agents that hold an assignment of before are to be told their limits.
UPDATE agents SET rev = rev + 1, settings_rev = rev + 1;

CREATE TABLE domains (
  name       TEXT    PRIMARY KEY,
  rate       REAL    NOT NULL, -- power-ons a second, 0: no bound
  concurrent INTEGER NOT NULL  -- nodes on their way to "on", 0: no bound
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
  name       TEXT    PRIMARY KEY,
  cron       TEXT    NOT NULL,
  nodes      TEXT    NOT NULL, -- a NODES expression
  want       TEXT    NOT NULL, -- '': releases
  lasts      INTEGER NOT NULL, -- nanoseconds, 0: until released
  reason     TEXT    NOT NULL,
  by         TEXT    NOT NULL,
  confirmed  INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  done       INTEGER NOT NULL, -- runs at or before this time are over; it only grows
  last_at    INTEGER NOT NULL, -- the latest time that was carried out
  last_says  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
