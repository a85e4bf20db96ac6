-- Uses of limited exceptions that were set aside for sidecars. Never fewer than were used: no part
-- of the log, and of a copy that is put back nobody knows what was set aside since.
CREATE TABLE reservations (
  id         BLOB    PRIMARY KEY,
  exception  TEXT    NOT NULL,
  sidecar    TEXT    NOT NULL,
  uses       INTEGER NOT NULL,
  returned   INTEGER NOT NULL DEFAULT 0,
  time       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_of ON reservations (exception, time);
