-- What a cap limits its node to, in watts; 0: it ends the limit, or the operation is no cap.
ALTER TABLE ops ADD COLUMN limit_watts INTEGER NOT NULL DEFAULT 0;
