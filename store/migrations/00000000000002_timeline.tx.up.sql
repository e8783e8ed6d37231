CREATE TABLE incidents (
  id TEXT PRIMARY KEY,
  monitor_id TEXT NOT NULL,
  monitor_name TEXT NOT NULL,
  cause TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL
);
--bun:split
CREATE INDEX incidents_started ON incidents (started_at, id);
--bun:split
CREATE INDEX incidents_monitor ON incidents (monitor_id, started_at, id);
--bun:split
CREATE INDEX incidents_open ON incidents (started_at, id) WHERE ended_at = 0;
--bun:split
CREATE TABLE events (
  id TEXT PRIMARY KEY,
  monitor_id TEXT NOT NULL,
  incident_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  from_condition INTEGER NOT NULL,
  to_condition INTEGER NOT NULL,
  at INTEGER NOT NULL,
  message TEXT NOT NULL,
  payload BLOB NOT NULL
);
--bun:split
CREATE INDEX events_at ON events (at, id);
--bun:split
CREATE INDEX events_monitor ON events (monitor_id, at, id);
--bun:split
CREATE INDEX events_incident ON events (incident_id, at, id) WHERE incident_id <> '';
--bun:split
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id TEXT NOT NULL,
  monitor_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  outcome INTEGER NOT NULL,
  error TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  done_at INTEGER NOT NULL,
  UNIQUE (event_id, channel_id)
);
--bun:split
CREATE INDEX outbox_pending ON outbox (channel_id, monitor_id, id) WHERE done_at = 0;
--bun:split
CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at <> 0;
--bun:split
CREATE TABLE healths (
  channel_id TEXT PRIMARY KEY,
  last_success_at INTEGER NOT NULL,
  last_error_at INTEGER NOT NULL,
  last_error TEXT NOT NULL,
  streak INTEGER NOT NULL
);
--bun:split
CREATE TABLE log_lines (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  level INTEGER NOT NULL,
  message TEXT NOT NULL,
  attrs TEXT NOT NULL
);
