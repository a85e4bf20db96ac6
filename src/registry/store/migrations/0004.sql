-- The ledger: one leaf a row of the log, and the whole subtrees of the Merkle tree over them.
CREATE TABLE leaves (
  position  INTEGER PRIMARY KEY,
  revision  INTEGER NOT NULL UNIQUE REFERENCES log (revision),
  leaf      TEXT    NOT NULL,
  -- Sixteen bytes for each commitment of the leaf.
  salts     BLOB    NOT NULL
) STRICT;

-- A subtree by the leaf it is whole with: it ends there, and is of 2^level leaves.
CREATE TABLE nodes (
  leaf   INTEGER NOT NULL,
  level  INTEGER NOT NULL,
  hash   BLOB    NOT NULL,
  PRIMARY KEY (leaf, level)
) STRICT, WITHOUT ROWID;

-- What was signed about it.
CREATE TABLE checkpoints (
  size  INTEGER PRIMARY KEY,
  note  TEXT    NOT NULL
) STRICT;

-- What was erased for good: the leaf stays, and proves as before.
ALTER TABLE edits ADD COLUMN erased INTEGER NOT NULL DEFAULT 0;

-- A log that is older than its ledger enters it once.
ALTER TABLE registry ADD COLUMN entered INTEGER NOT NULL DEFAULT 1;
UPDATE registry SET entered = 0;
