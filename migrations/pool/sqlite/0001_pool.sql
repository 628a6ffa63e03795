-- A row is one kind of agent that can be claimed. It is archived, never deleted.
create table template (
  id text primary key,
  name text not null,
  pool text not null references pool (id),
  current_version integer not null,
  archived_at integer
) strict;

-- A row is what a template said at one time; claims finish with the version they began with.
create table template_version (
  template text not null references template (id),
  version integer not null,
  definition text not null,
  created_at integer not null,
  primary key (template, version)
) strict, without rowid;

-- A row is a stock of instances that are alike, and how many of them there shall be.
create table pool (
  id text primary key,
  settings text not null,
  min_idle integer not null,
  max_total integer not null
) strict;

-- A row is one instance, for ever; what it has outside is on the ledger.
create table instance (
  id text primary key,
  pool text not null references pool (id),
  state text not null check (state in
    ('provisioning', 'idle', 'claiming', 'pending_acceptance', 'claimed', 'tearing_down', 'gone',
     'tainted', 'crashed', 'sleeping', 'failed')),
  claim_epoch integer not null,
  name text not null unique,
  workspace text not null,
  token text not null,
  image text,
  domain text,
  project_id text,
  service_id text,
  template text,
  template_version integer,
  owner text,
  agent_name text,
  conversation_target text,
  conversation text,
  created_at integer not null,
  changed_at integer not null
) strict;

create index instance_of_pool on instance (pool, state);
create index instance_by_state on instance (state, id);

-- At most one claim for each conversation that is to be joined; one whose container sleeps or died still has it.
create unique index instance_conversation on instance (conversation_target)
  where conversation_target is not null
    and state in ('claiming', 'pending_acceptance', 'claimed', 'sleeping', 'crashed');

-- And at most one of them in each conversation that the runtimes report, however its invitation was spelled.
create unique index instance_in_conversation on instance (conversation)
  where conversation is not null
    and state in ('claiming', 'pending_acceptance', 'claimed', 'sleeping', 'crashed');

-- A row is a saga that has, or had, an instance to itself.
create table instance_saga (
  instance text not null references instance (id),
  saga text not null,
  kind text not null,
  began_at integer not null,
  ended_at integer,
  primary key (instance, saga)
) strict, without rowid;

-- One at a time.
create unique index instance_exclusive on instance_saga (instance) where ended_at is null;

-- A row is a saga that was started to make one instance for a pool. It counts as under way from its start, before
-- its instance has a row, until the instance is idle or the saga has turned round.
create table refill (
  saga text primary key,
  pool text not null references pool (id),
  instance text not null unique,
  outcome text check (outcome in ('idle', 'broken')),
  started_at integer not null,
  settled_at integer
) strict, without rowid;

create index refill_of_pool on refill (pool, settled_at);

-- A row is a claim that waits for an idle instance; the oldest is served first.
create table claim_queue (
  saga text primary key,
  pool text not null references pool (id),
  since integer not null
) strict, without rowid;

create index claim_queue_of_pool on claim_queue (pool, since);

-- A row is a telephone number that we bought, or are about to buy.
create table number (
  phone_number text primary key,
  telnyx_id text,
  state text not null check (state in ('ordering', 'available', 'assigned', 'quarantine')),
  instance text,
  quarantined_until integer,
  changed_at integer not null
) strict;
