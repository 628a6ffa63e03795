-- A row is what is known of one provider's censuses, and who makes one now.
create table census (
  provider text primary key,
  holder text,
  held_until integer not null default 0,
  started_at integer,
  completed_at integer,
  pages integer not null default 0,
  things integer not null default 0,
  problem text,
  failed_at integer,
  failures integer not null default 0,
  accepts_absence text,
  next_at integer not null
) strict;

-- A row is one thing in which a provider and the ledger differ, from its first sight to its end.
create table finding (
  id text primary key,
  provider text not null,
  account text,
  class text not null check (class in ('orphan', 'ghost', 'foreign', 'drift')),
  kind text not null,
  external_id text not null,
  name text not null,
  resource text,
  holder text,
  detail text,
  first_seen_at integer not null,
  last_seen_at integer not null,
  times_seen integer not null,
  removal text,
  settled text check (settled in ('removed', 'vanished', 'adopted', 'ignored')),
  settled_at integer,
  settled_by text,
  reason text
) strict;

-- One for each thing that is seen; one that was ignored stays so while it is.
create unique index finding_seen on finding (provider, class, kind, external_id)
  where settled is null or settled = 'ignored';
create index finding_held on finding (holder) where settled is null and holder is not null;
create index finding_settled on finding (settled_at) where settled_at is not null;
