-- What sidecars saw of subjects to differ from what is governed. No part of the log: it governs
-- nothing.
CREATE TABLE observed (
  subject  TEXT    NOT NULL,
  facet    TEXT    NOT NULL,
  digest   TEXT    NOT NULL,
  sidecar  TEXT    NOT NULL,
  first    INTEGER NOT NULL,
  last     INTEGER NOT NULL,
  PRIMARY KEY (subject, facet, digest, sidecar)
) STRICT, WITHOUT ROWID;
