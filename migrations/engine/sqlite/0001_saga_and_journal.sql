-- One row: this database. Its id is part of every mark we leave at a provider.
create table installation (
  id text primary key,
  environment text not null,
  key_fingerprint text not null,
  created_at integer not null,
  -- The path by which a process has it open: its log bears that name. Nothing once it was closed in order.
  opened_as text
) strict;

-- A row is one saga as lists show it: the fold of its journal, written with every append.
-- `epoch` is the fence: an append that names another epoch changes nothing.
create table saga (
  id text primary key,
  workflow text not null,
  workflow_version integer not null,
  state text not null check (state in
    ('queued', 'running', 'waiting', 'paused', 'compensating', 'completed', 'compensated', 'failed')),
  attention text not null default '[]',
  step text,
  error text,
  fingerprint text,
  progress text,
  parent text,
  labels text not null default '{}',
  start_key text not null unique,
  start_fingerprint text not null,
  priority integer not null default 0,
  -- Of those with the same key only so many have a place, and only those with a place are begun.
  concurrency_key text,
  concurrency_limit integer,
  has_place integer not null default 0,
  deadline_at integer,
  due_at integer,
  -- `due_at` while nobody holds it; nothing while somebody does, so that its turns leave the index alone.
  claimable_at integer,
  epoch integer not null,
  seq integer not null,
  created_at integer not null,
  updated_at integer not null,
  ended_at integer,
  -- The last column: lists read all but it, and it may be long.
  output text
) strict;

create index saga_claimable on saga (priority, claimable_at) where claimable_at is not null;
create index saga_concurrent on saga (concurrency_key, priority) where concurrency_key is not null and ended_at is null;

-- One for each filter of the list of sagas, in the order in which it is shown. A filter of several states, or of none,
-- reads each state by itself.
create index saga_by_state on saga (state, id);
create index saga_by_workflow on saga (workflow, state, id);
create index saga_troubled on saga (state, id) where attention <> '[]';
create index saga_troubled_by_workflow on saga (workflow, state, id) where attention <> '[]';
create index saga_by_fingerprint on saga (fingerprint, id) where fingerprint is not null;
create index saga_called on saga (parent, id) where parent is not null;

-- A row is a label of a saga, once more, so that lists find it.
create table saga_label (
  saga text not null,
  name text not null,
  value text not null,
  primary key (saga, name)
) strict, without rowid;

create index saga_labelled on saga_label (name, value, saga);

-- A row is one line of a saga's journal: what happened, in order, for ever.
create table journal (
  saga text not null references saga (id),
  seq integer not null,
  at integer not null,
  epoch integer not null,
  version integer not null,
  kind text not null,
  event text not null,
  primary key (saga, seq)
) strict, without rowid;

-- A row is an append with the number that readers follow.
create table feed (
  number integer primary key,
  saga text not null,
  first_seq integer not null,
  last_seq integer not null
) strict;

-- A row is one thing that exists, or may exist, outside by our doing. It is written before the call that
-- makes the thing leaves, and only ever by its holder.
create table resource (
  id text primary key,
  provider text not null,
  kind text not null,
  name text not null,
  external_id text,
  state text not null check (state in ('intended', 'live', 'in_doubt', 'removing', 'gone')),
  holder text not null,
  keeper text,
  saga text not null,
  step text not null,
  within text,
  rev integer not null,
  intended_at integer not null,
  changed_at integer not null,
  -- Until when a lost call to it may still take effect.
  unsettled_until integer
) strict;

create index resource_held on resource (holder, state, id);
create index resource_made on resource (saga, id);
create index resource_by_state on resource (state, id);
create index resource_by_provider on resource (provider, state, id);
create index resource_unsettled on resource (provider, kind, unsettled_until) where unsettled_until is not null;
-- A thing whose row is gone is known by its name to have been ours.
create index resource_named on resource (provider, name, id);

-- A row is one sealed secret; nobody can read it without the key file.
create table secret (
  id text primary key,
  owner text not null,
  kind text not null,
  sealed blob not null,
  created_at integer not null
) strict;

create index secret_owned on secret (owner);

-- A row is a word left for a saga by somebody who does not hold it. It is consumed by the append that acts on it.
create table inbox (
  -- In the order of arrival.
  number integer primary key,
  id text not null unique,
  saga text not null references saga (id),
  message text not null,
  posted_at integer not null,
  -- It was read, nothing waits for it, and it makes its saga due no more.
  is_passed_over integer not null default 0,
  consumed_at integer
) strict;

create index inbox_waiting on inbox (saga, number) where consumed_at is null;

-- A row is one act of a person: who, what, why, and what came of it.
create table audit (
  id text primary key,
  saga text not null,
  actor text not null,
  act text not null,
  reason text not null,
  state_before text not null,
  at integer not null,
  state_after text,
  outcome text
) strict;

create index audit_of on audit (saga);

-- A row is a gate as all workers share it. `state` is written by whoever has seen `rev` as it is; a provider's word
-- that comes with an append stands beside it until then.
create table gate (
  key text primary key,
  rev integer not null,
  state text not null default '{}',
  closed_until integer,
  closed_for text
) strict;

-- A row is a step that waits at a gate, written and taken away by its saga. The gate says when it lets it go.
create table gate_waiter (
  saga text not null references saga (id),
  step text not null,
  gate text not null,
  lane text not null check (lane in ('forward', 'undo')),
  since integer not null,
  let_go_at integer,
  primary key (saga, step)
) strict, without rowid;

create index gate_waiter_next on gate_waiter (gate, lane, since);
