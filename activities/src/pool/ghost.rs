//! Ghost: a thing of an instance is on the ledger and gone at its provider; the instance is not given to anybody.

use amends_engine::{Failure, Tx, params};

/// Takes the instance that holds this ledger row out of the pool, if it is idle: one without its project, or without
/// its key, is of no use to a claim. Answers the instance, if there was one to take out.
///
/// For whoever compares the ledger with the providers; one that is claimed stays so, and a person decides.
pub async fn note_ghost(tx: &mut Tx<'_>, resource: &str) -> Result<Option<String>, Failure> {
    let now = tx.now();
    let tainted = tx
        .fetch(
            "update instance set state = 'tainted', claim_epoch = claim_epoch + 1, changed_at = $2
             where state = 'idle' and id = (select holder from resource where id = $1) returning id",
            params![resource, now],
        )
        .await?;
    Ok(tainted.first().map(|row| row.text("id")).transpose()?)
}
