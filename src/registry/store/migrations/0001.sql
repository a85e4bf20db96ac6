-- Numbered, never edited once released.
CREATE TABLE registry (
  one            INTEGER PRIMARY KEY CHECK (one = 1),
  log_id         BLOB    NOT NULL,
  epoch          INTEGER NOT NULL,
  base_revision  INTEGER NOT NULL,
  base_sequence  INTEGER NOT NULL,
  copied         INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The log: every accepted change is one row here, with its edits and removals.
CREATE TABLE log (
  revision   INTEGER PRIMARY KEY,
  epoch      INTEGER NOT NULL,
  time       INTEGER NOT NULL,
  principal  TEXT    NOT NULL,
  action     TEXT    NOT NULL
) STRICT;

CREATE TABLE edits (
  revision         INTEGER NOT NULL REFERENCES log (revision),
  place            INTEGER NOT NULL,
  kind             INTEGER NOT NULL,
  id               TEXT    NOT NULL,
  object_revision  INTEGER NOT NULL,
  manifest         TEXT,
  PRIMARY KEY (revision, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX edits_of_object ON edits (kind, id, revision);

CREATE TABLE removals (
  sequence     INTEGER PRIMARY KEY,
  revision     INTEGER NOT NULL REFERENCES log (revision),
  act          TEXT    NOT NULL,
  target_kind  TEXT    NOT NULL,
  target_id    TEXT    NOT NULL,
  cause        TEXT    NOT NULL,
  note         TEXT    NOT NULL,
  initiator    TEXT    NOT NULL,
  time         INTEGER NOT NULL
) STRICT;

-- The fold of the log.
CREATE TABLE objects (
  kind             INTEGER NOT NULL,
  id               TEXT    NOT NULL,
  object_revision  INTEGER NOT NULL,
  manifest         TEXT,
  revision         INTEGER NOT NULL,
  PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE access (
  identity  TEXT PRIMARY KEY,
  role      TEXT NOT NULL,
  scope     TEXT NOT NULL,
  token     BLOB
) STRICT;

CREATE TABLE keys (
  place      INTEGER PRIMARY KEY,
  statement  BLOB NOT NULL
) STRICT;
