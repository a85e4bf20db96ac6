-- Starts of sidecars, in the order they came: of two under one identity the later counts. No part of
-- the log: it governs nothing.
CREATE TABLE starts (
  place     INTEGER PRIMARY KEY,
  identity  TEXT    NOT NULL,
  start     BLOB    NOT NULL,
  fencing   INTEGER,
  UNIQUE (identity, start)
) STRICT;
