-- Who has signed in, or may with a password. No part of the log: what they decide is.
CREATE TABLE accounts (
  identity  TEXT    PRIMARY KEY,
  -- Who they are for whoever vouches for them; with a password we do.
  issuer    TEXT    NOT NULL,
  subject   TEXT    NOT NULL,
  -- With a password.
  role      TEXT,
  password  TEXT,
  created   INTEGER NOT NULL,
  UNIQUE (issuer, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
  token         BLOB    PRIMARY KEY,
  identity      TEXT    NOT NULL REFERENCES accounts (identity),
  role          TEXT    NOT NULL,
  assurance     TEXT    NOT NULL,
  strong_until  INTEGER,
  since         INTEGER NOT NULL,
  until         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of ON sessions (identity);
