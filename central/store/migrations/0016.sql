-- Passwords and K_g are sealed (package seal).
ALTER TABLE meta ADD COLUMN plain INTEGER NOT NULL DEFAULT 1; -- 1: the file may still hold some that are not
