-- One row: this database. Its id is part of every mark we leave at a provider.
create table installation (
  id text primary key,
  environment text not null,
  key_fingerprint text not null,
  created_at bigint not null
);

-- A row is a process that drives sagas: what it holds is its own until `until`, by this server's clock.
create table worker (
  id text primary key,
  until bigint not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- A row is one saga as lists show it: the fold of its journal, written with every append.
-- Of the columns that a turn changes only `state`, `attention` and `fingerprint` are indexed: they change a few times in
-- a saga's life, and every other append touches the heap alone.
create table saga (
  id text primary key,
  workflow text not null,
  workflow_version bigint not null,
  state text not null check (state in
    ('queued', 'running', 'waiting', 'paused', 'compensating', 'completed', 'compensated', 'failed')),
  attention text not null default '[]',
  step text,
  error text,
  fingerprint text,
  progress text,
  parent text,
  labels text not null default '{}',
  output text,
  start_key text not null unique,
  start_fingerprint text not null,
  -- Of those with the same key only so many have a place, and only those with a place are begun.
  concurrency_key text,
  concurrency_limit bigint,
  deadline_at bigint,
  due_at bigint,
  created_at bigint not null,
  updated_at bigint not null,
  ended_at bigint
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create index saga_concurrent on saga (concurrency_key) where concurrency_key is not null;

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
);

create index saga_labelled on saga_label (name, value, saga);

-- A row is the right to write to one saga: who has it, under which number, and how far its journal goes.
-- It is narrow, because each append writes it: `epoch` and `seq` are the fence. While somebody holds the saga only
-- `seq` changes, which no index knows of; `due_at` is written when it is given back.
create table saga_lease (
  saga text primary key,
  holder text,
  epoch bigint not null,
  seq bigint not null,
  due_at bigint,
  priority bigint not null default 0,
  needs_place boolean not null default false
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

create index saga_lease_due on saga_lease (due_at) where holder is null and due_at is not null;
create index saga_lease_held on saga_lease (holder) where holder is not null;
create index saga_lease_placeless on saga_lease (saga) where needs_place;

-- A row is what sagas with one concurrency key have in common: whoever gives a place locks it first.
create table concurrency (
  key text primary key
);

-- A row is one line of a saga's journal: what happened, in order, for ever.
create table journal (
  saga text not null,
  seq bigint not null,
  at bigint not null,
  epoch bigint not null,
  version bigint not null,
  kind text not null,
  event text not null,
  primary key (saga, seq)
) with (autovacuum_vacuum_insert_scale_factor = 0.1);

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
  rev bigint not null,
  intended_at bigint not null,
  changed_at bigint not null,
  -- Until when a lost call to it may still take effect.
  unsettled_until bigint
) with (fillfactor = 70);

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
  sealed bytea not null,
  created_at bigint not null
);

create index secret_owned on secret (owner);

-- A row is a word left for a saga by somebody who does not hold it. It is consumed by the append that acts on it.
-- `arrived` is this server's clock, and `number` the place among those that came together.
create table inbox (
  id text primary key,
  saga text not null,
  arrived bigint not null,
  number bigint not null,
  kind text not null,
  message text not null,
  posted_at bigint not null,
  -- It was read, nothing waits for it, and it makes its saga due no more.
  is_passed_over boolean not null default false,
  consumed_at bigint
);

create index inbox_waiting on inbox (saga, arrived, number) where consumed_at is null;

-- A row is one act of a person: who, what, why, and what came of it.
create table audit (
  id text primary key,
  saga text not null,
  actor text not null,
  act text not null,
  reason text not null,
  state_before text not null,
  at bigint not null,
  state_after text,
  outcome text
);

create index audit_of on audit (saga);
create index audit_open on audit (saga) where outcome is null;

-- A row is a gate as all workers share it. `state` is written by whoever has seen `rev` as it is; a provider's word
-- that comes with an append stands beside it until then.
create table gate (
  key text primary key,
  rev bigint not null,
  state text not null default '{}',
  closed_until bigint,
  closed_for text
) with (fillfactor = 50);

-- A row is a step that waits at a gate, written and taken away by its saga. The gate says when it lets it go.
create table gate_waiter (
  saga text not null,
  step text not null,
  gate text not null,
  lane text not null check (lane in ('forward', 'undo')),
  since bigint not null,
  let_go_at bigint,
  primary key (saga, step)
);

create index gate_waiter_next on gate_waiter (gate, lane, since);

-- A row is an append that has no number yet. It is read whole and emptied, so that it needs no key.
create table outbox (
  saga text not null,
  first_seq bigint not null,
  last_seq bigint not null
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- A row is an append with the number that readers follow, given after it was committed.
create table feed (
  number bigint primary key,
  saga text not null,
  first_seq bigint not null,
  last_seq bigint not null
);

-- One row: the last number given. Who numbers, locks it.
create table feed_head (
  one boolean primary key default true check (one),
  last bigint not null
);

insert into feed_head (last) values (0);
