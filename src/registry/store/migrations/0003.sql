-- Sidecars that ever attended: what is taken back is waited for until they have taken it in. No part
-- of the log: it governs nothing.
CREATE TABLE attended (
  identity  TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
-- Of those let in before, that is not known.
INSERT INTO attended SELECT identity FROM access;
