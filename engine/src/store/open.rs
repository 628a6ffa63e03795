//! Opening: what every database is asked before it is used, and why one is refused.

use std::path::Path;

use crate::ids::InstallationId;
use crate::secret::{self, Key, Vault};

/// The scripts that bring one part of a database up to date, in order.
///
/// A program's own tables stand beside the engine's, so they have other names than `installation`, `saga`, `journal`,
/// `saga_label`, `feed`, `resource`, `secret`, `inbox`, `audit`, `gate`, `gate_waiter`, `census`, `finding` and `engine_migration`; and on Postgres than
/// `worker`, `saga_lease`, `concurrency`, `outbox` and `feed_head`.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// The table that remembers which of them ran: one for each part.
    pub table: &'static str,
    /// Name and SQL for SQLite; the first number is 1.
    pub sqlite: &'static [(&'static str, &'static str)],
    /// The same for Postgres. A program that never runs there leaves it empty.
    pub postgres: &'static [(&'static str, &'static str)],
}

/// The engine's own part.
pub(in crate::store) const ENGINE: Migrations = Migrations {
    table: "engine_migration",
    sqlite: &[
        ("saga_and_journal", include_str!("../../migrations/sqlite/0001_saga_and_journal.sql")),
        ("census_and_finding", include_str!("../../migrations/sqlite/0002_census_and_finding.sql")),
    ],
    postgres: &[
        ("saga_and_journal", include_str!("../../migrations/postgres/0001_saga_and_journal.sql")),
        ("census_and_finding", include_str!("../../migrations/postgres/0002_census_and_finding.sql")),
    ],
};

/// Why a database was not opened. Nothing was changed in it. Its `Display` says in words what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another process; SQLite takes one at a time")]
    InUse(String),
    /// A newer program made or changed it.
    #[error(
        "{place} was written by a newer version ({table} is at {version}, this program knows {known}); use that version or a later one"
    )]
    Newer {
        /// Which file or server.
        place: String,
        /// Which part of it.
        table: &'static str,
        /// What it is at.
        version: i64,
        /// What we know.
        known: usize,
    },
    /// It is somebody else's, or none at all.
    #[error("{0} is not a database of this engine; it was left as it is")]
    Foreign(String),
    /// It was made for another environment.
    #[error("{place} belongs to the environment {stored}, and {given} was asked for")]
    OtherEnvironment {
        /// Which file or server.
        place: String,
        /// What it was made for.
        stored: String,
        /// What was asked for.
        given: String,
    },
    /// The key is not there, or is not its key.
    #[error(transparent)]
    Key(#[from] secret::Error),
    /// It cannot be written to, or what it acknowledges may be lost.
    #[error("{place} cannot be used: {reason}")]
    Unfit {
        /// Which server.
        place: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The SQLite in this program is too old.
    #[error("SQLite {0} is too old: 3.51.3 or later is needed")]
    SqliteTooOld(String),
    /// The file system did not let us.
    #[error("{place}: {source}")]
    File {
        /// Which file or server.
        place: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The database did not let us.
    #[error("{place}: {detail}")]
    Database {
        /// Which file or server.
        place: String,
        /// What it said.
        detail: String,
    },
}

/// What a database says of itself in its installation row.
pub(in crate::store) struct Known {
    pub(in crate::store) id: String,
    pub(in crate::store) environment: String,
    pub(in crate::store) fingerprint: String,
}

impl Known {
    /// The vault of a database that was made before, with the key that it was made with.
    pub(in crate::store) fn unlock(
        self,
        place: &str,
        key_path: &Path,
        environment: &str,
    ) -> Result<(InstallationId, Vault), OpenError> {
        if self.environment != environment {
            let (place, given) = (place.to_owned(), environment.to_owned());
            return Err(OpenError::OtherEnvironment { place, stored: self.environment, given });
        }
        let key = Key::read(key_path)?;
        if key.fingerprint() != self.fingerprint {
            return Err(secret::Error::Foreign(key_path.display().to_string()).into());
        }
        let installation = InstallationId::stored(self.id);
        let vault = Vault::new(&key, installation.clone());
        Ok((installation, vault))
    }
}
