//! Findings: what the sweep saw at a provider that the ledger does not explain.

use amends_engine::store::tx::Row;
use amends_engine::store::{Error, Store};
use amends_engine::{Failure, Local, Timestamp, Tx, params};
use serde::{Deserialize, Serialize};

/// Writes that something was seen (again).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordFinding {
    /// At whom.
    pub provider: String,
    /// What kind of thing.
    pub kind: String,
    /// The provider's id.
    pub external_id: String,
    /// The name it bears.
    pub name: String,
}

impl Local for RecordFinding {
    const NAME: &'static str = "finding.record";
    /// When it was first seen; nothing when that is now.
    type Output = Option<Timestamp>;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<Option<Timestamp>, Failure> {
        let now = tx.now();
        let rows = tx
            .fetch(
                "insert into finding (provider, external_id, kind, name, finding, first_seen_at, last_seen_at)
                 values ($1, $2, $3, $4, 'orphan', $5, $5)
                 on conflict (provider, external_id) do update set last_seen_at = excluded.last_seen_at
                 returning first_seen_at",
                params![&self.provider, &self.external_id, &self.kind, &self.name, now],
            )
            .await?;
        let first_seen = Timestamp(rows.first().map_or(Ok(now.0), |row| row.int("first_seen_at"))?);
        Ok(Some(first_seen).filter(|first_seen| *first_seen < now))
    }
}

/// Writes that what was seen was taken away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordFindingRemoved {
    /// At whom.
    pub provider: String,
    /// The provider's id.
    pub external_id: String,
}

impl Local for RecordFindingRemoved {
    const NAME: &'static str = "finding.removed";
    type Output = ();

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let now = tx.now();
        tx.execute(
            "update finding set removed_at = $3 where provider = $1 and external_id = $2",
            params![&self.provider, &self.external_id, now],
        )
        .await?;
        Ok(())
    }
}

/// Forgets what was settled long ago.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgetFindings {}

/// How long a settled finding is kept.
const KEPT: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

impl Local for ForgetFindings {
    const NAME: &'static str = "finding.forget";
    /// How many.
    type Output = u64;

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<u64, Failure> {
        let until = Timestamp(tx.now().0.saturating_sub(i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX)));
        Ok(tx.execute("delete from finding where removed_at < $1", params![until]).await?)
    }
}

/// What was found and is not removed, newest first.
pub async fn findings(store: &dyn Store) -> Result<Vec<Row>, Error> {
    store
        .fetch(
            "select provider, kind, external_id, name, finding, first_seen_at, last_seen_at from finding
             where removed_at is null order by first_seen_at desc limit 200"
                .into(),
            params![],
        )
        .await
}
