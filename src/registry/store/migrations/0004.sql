-- The ledger: one leaf a row of the log, and the whole subtrees of the Merkle tree over them.
CREATE TABLE leaves (
  position  INTEGER PRIMARY KEY,
  revision  INTEGER NOT NULL UNIQUE REFERENCES log (revision),
  leaf      TEXT    NOT NULL,
  -- Sixteen bytes for each commitment of the leaf.
  salts     BLOB    NOT NULL
) STRICT;

CREATE TABLE nodes (
  level  INTEGER NOT NULL,
  place  INTEGER NOT NULL,
  hash   BLOB    NOT NULL,
  PRIMARY KEY (level, place)
) STRICT, WITHOUT ROWID;

-- What was signed about it.
CREATE TABLE checkpoints (
  size  INTEGER PRIMARY KEY,
  note  TEXT    NOT NULL
) STRICT;

-- What was erased for good: the leaf stays, and proves as before.
ALTER TABLE edits ADD COLUMN erased INTEGER NOT NULL DEFAULT 0;
