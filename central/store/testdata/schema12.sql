INSERT OR REPLACE INTO meta (one, id, generation, created_at, seq, rev, incarnation)
VALUES (1, 'f4ecf608-e052-4b1e-b73d-d62135feaae8', 1, 1795689977995163871, 0, 1, 0);
INSERT OR REPLACE INTO agents (name, rev, floor, rev_seen, journal_id, epoch, lsn, session, seen_at, version, alarm, address, settings, settings_rev, pause_until, rack, opening, forgotten, run, peer, hello_at)
VALUES ('', 1, 0, 0, '', 0, 0, '', 0, '', '', '', '', 0, 0, '', '', 1, '', '', 0);
INSERT OR REPLACE INTO agents (name, rev, floor, rev_seen, journal_id, epoch, lsn, session, seen_at, version, alarm, address, settings, settings_rev, pause_until, rack, opening, forgotten, run, peer, hello_at)
VALUES ('r1', 41, 7, 40, 'journal', 3, 99, 's', 5, 'v', '', '192.0.2.1:7946', '{"monitor":"off","brake_percent":10}', 5, 0, '{"monitor":"@every 60s","brake":{"id":"b","since":"2026-11-26T10:30:00.123456789Z","kind":"cut","nodes":["n"],"of":1,"says":"1 of 1 nodes would lose power"},"pause":{"by":"bob","reason":"why","since":"2026-11-26T10:30:00.123456789Z","until":"2026-11-26T11:30:00.123456789Z"},"faults":2,"dead_bmc":3,"domains":[{"name":"d","rate":2.5,"concurrent":7,"in_flight":1,"waiting":2}],"alarms":[{"kind":"disk-full","message":"full","since":"2026-11-26T10:30:00.123456789Z","remedy":"make room","needs_ack":true}]}', 'o', 0, 'run', 'peer', 6);
INSERT OR REPLACE INTO agents (name, rev, floor, rev_seen, journal_id, epoch, lsn, session, seen_at, version, alarm, address, settings, settings_rev, pause_until, rack, opening, forgotten, run, peer, hello_at)
VALUES ('r2', 1, 0, 0, '', 0, 0, '', 0, '', '', '', '', 0, 0, '', '', 0, '', '', 0);
INSERT OR REPLACE INTO nodes (name, rack, agent, bmc, password, domain, status, confirmed, rev, state, reach, observed_at, tried_at, hold_want, hold_by, hold_reason, hold_schedule, hold_since, hold_until, hold_seq, hold_heard, hold_confirmed, retry, monitor, fault, matched, drifting, left_alone, unsettled, kg, bmc_part, bmc_addr, bmc_at, bmc_shared, waits_for)
VALUES ('m', 'r1', 'r1', '', '', '', 'READY', 0, 4, 'unknown', 'never', 0, 0, '', '', '', '', 0, 0, 0, 0, 0, 0, '{"matched":true}', '', 0, 0, 0, 1, '', '', '', '', '', '');
INSERT OR REPLACE INTO nodes (name, rack, agent, bmc, password, domain, status, confirmed, rev, state, reach, observed_at, tried_at, hold_want, hold_by, hold_reason, hold_schedule, hold_since, hold_until, hold_seq, hold_heard, hold_confirmed, retry, monitor, fault, matched, drifting, left_alone, unsettled, kg, bmc_part, bmc_addr, bmc_at, bmc_shared, waits_for)
VALUES ('n', 'r1', 'r1', 'ipmi://u@192.0.2.2', 'secret', 'd', 'READY', 1, 3, 'off', 'ok', 1000, 2000, 'off', 'bob', 'why', 'night', 1795689000123456789, 1795692600123456789, 4611686018427387904, 2305843009213693952, 1, 9, '{"fault":"3 corrections failed","fault_since":"2026-11-26T10:30:00.123456789Z","failures":3,"faults":1,"fell":"it went off again","fell_op":"op","fell_at":"2026-11-26T10:30:00.123456789Z","fell_times":2,"matched":true,"waits":"fault","waits_says":"it is in fault","waits_until":"2026-11-26T10:31:00.123456789Z"}', '3 corrections failed', 1, 1, 1, 0, 'k', 'p', 'x', 'y', 'z', 'r2');
INSERT OR REPLACE INTO removed (agent, name, rev, at, confirmed)
VALUES ('r1', 'gone', 2, 3, 1);
INSERT OR REPLACE INTO ops (id, seq, node, agent, action, asked_by, origin, reason, asked_at, deadline, if_busy, boot, grace, no_escalate, confirmed, cursor, stage, phase, delivered, verdict, why, says, started_at, ended_at, outcome, detail, already, superseded_by, joined, attempts, state, journal_id, lsn, cancel_by, cancel_reason, cancel_cursor, rev)
VALUES ('id', 77, 'n', 'r1', 'soft-off', 'me', 'local', 'because', 1795689000123456789, 1795689001123456789, 'queue', 'pxe', 60000000000, 1, 1, 5, 4, 'ended', 1, 'start', 'auth-failed', 'it was on', 1795689000123456789, 1795689000123456789, 'failed', 'detail', 1, 's', 'j', 3, 'off', 'jj', 4611686018427387904, 'c', 'cr', 6, 1);
INSERT OR REPLACE INTO audit (id, at, who, what, node, op, why, outcome, detail, happened)
VALUES (1, 1795689000123456789, 'me', 'asked', 'n', 'id', 'w', 'failed', 'd', 1795688999123456789);
INSERT OR REPLACE INTO domains (name, rate, concurrent)
VALUES ('d', 2.5, 7);
INSERT OR REPLACE INTO schedules (name, cron, nodes, want, lasts, reason, by, confirmed, created_at, done, last_at, last_says)
VALUES ('night', '0 19 * * *', 'all', 'off', 3600000000000, 'why', 'bob', 1, 1795689000123456789, 1795689060123456789, 1795689000123456789, 'held 40 nodes');
INSERT OR REPLACE INTO alarms (agent, kind, message, since, remedy, needs_ack)
VALUES ('r1', 'journal-lost', 'lost', 1795689000123456789, 'r', 1);
INSERT OR REPLACE INTO leaving (agent, node, part, at, rev, since, forced)
VALUES ('r2', 'n', 'p', 'a', 4, 1795689000123456789, '');
