CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;
--bun:split
INSERT INTO meta (name, value) VALUES ('series', 0), ('sealed_until', 0), ('clean', 1);
--bun:split
CREATE TABLE seal (
  mark BLOB NOT NULL
);
--bun:split
CREATE TABLE monitors (
  id TEXT PRIMARY KEY,
  series INTEGER NOT NULL UNIQUE,
  revision INTEGER NOT NULL,
  name TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  interval_ns INTEGER NOT NULL,
  timeout_ns INTEGER NOT NULL,
  retries INTEGER NOT NULL,
  retry_interval_ns INTEGER NOT NULL,
  recoveries INTEGER NOT NULL,
  config BLOB NOT NULL,
  assert TEXT NOT NULL,
  degrade TEXT NOT NULL,
  labels TEXT NOT NULL,
  folded TEXT NOT NULL,
  paused INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
);
--bun:split
CREATE INDEX monitors_kind ON monitors (kind, name);
--bun:split
CREATE TABLE channels (
  id TEXT PRIMARY KEY,
  revision INTEGER NOT NULL,
  name TEXT NOT NULL UNIQUE,
  provider TEXT NOT NULL,
  config BLOB NOT NULL,
  filter TEXT NOT NULL,
  disabled INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
);
--bun:split
CREATE TABLE monitor_channels (
  monitor_id TEXT NOT NULL REFERENCES monitors (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  channel_id TEXT NOT NULL REFERENCES channels (id),
  PRIMARY KEY (monitor_id, position)
) WITHOUT ROWID;
--bun:split
CREATE INDEX monitor_channels_channel ON monitor_channels (channel_id);
--bun:split
CREATE TABLE states (
  monitor_id TEXT PRIMARY KEY REFERENCES monitors (id) ON DELETE CASCADE,
  condition INTEGER NOT NULL,
  since INTEGER NOT NULL,
  incident TEXT NOT NULL,
  incident_since INTEGER NOT NULL,
  incident_cause TEXT NOT NULL,
  told TEXT NOT NULL,
  beat INTEGER NOT NULL,
  bad INTEGER NOT NULL,
  fail INTEGER NOT NULL,
  known INTEGER NOT NULL
);
--bun:split
CREATE TABLE tokens (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  last_used_at INTEGER NOT NULL
);
--bun:split
CREATE TABLE dead_series (
  series INTEGER PRIMARY KEY,
  monitor_id TEXT NOT NULL,
  first_hour INTEGER NOT NULL,
  last_hour INTEGER NOT NULL
);
