-- What is told elsewhere: written with the change it tells of. No part of the log, and not for ever.
CREATE TABLE outbox (
  number  INTEGER PRIMARY KEY AUTOINCREMENT,
  id      TEXT    NOT NULL UNIQUE,
  time    INTEGER NOT NULL,
  news    TEXT    NOT NULL,
  about   TEXT    NOT NULL,
  domain  TEXT,
  facts   TEXT    NOT NULL
) STRICT;
CREATE INDEX outbox_by_time ON outbox (time);

-- Who is told, and up to which of it that is settled.
CREATE TABLE endpoints (
  name  TEXT    PRIMARY KEY,
  seen  INTEGER NOT NULL,
  -- Said that it receives nothing any more.
  gone  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
  endpoint  TEXT    NOT NULL REFERENCES endpoints (name),
  number    INTEGER NOT NULL REFERENCES outbox (number),
  state     TEXT    NOT NULL,
  attempts  INTEGER NOT NULL,
  -- When it was, or is to be, tried.
  next      INTEGER NOT NULL,
  why       TEXT    NOT NULL,
  PRIMARY KEY (endpoint, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_by_time ON deliveries (endpoint, state, next);
CREATE INDEX deliveries_of ON deliveries (number);

-- Events that came from elsewhere: each counts once.
CREATE TABLE received (
  issuer  TEXT    NOT NULL,
  id      TEXT    NOT NULL,
  time    INTEGER NOT NULL,
  done    TEXT    NOT NULL,
  PRIMARY KEY (issuer, id)
) STRICT, WITHOUT ROWID;
