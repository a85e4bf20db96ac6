-- How controls ran by themselves. No part of the log: what they found is.
CREATE TABLE runs (
  number            INTEGER PRIMARY KEY,
  control           TEXT    NOT NULL,
  control_revision  INTEGER NOT NULL,
  due               INTEGER,
  time              INTEGER NOT NULL,
  revision          INTEGER NOT NULL,
  passed            INTEGER NOT NULL,
  failed            INTEGER NOT NULL,
  untold            INTEGER NOT NULL,
  elsewhere         INTEGER NOT NULL,
  took              INTEGER NOT NULL,
  missed            INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_of_control ON runs (control, number);
