//! Places: a fresh database for each run, what it holds and weighs, and its removal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use amends_engine::Env;
use amends_engine::secret::Vault;
use amends_engine::store::Store;
use amends_engine::store::sqlite::SqliteStore;
use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::meter::Beside;
use super::sagas::NOTES;

/// Where the databases of a bench are made; it removes them all.
pub struct Ground {
    folder: PathBuf,
    made: Mutex<usize>,
}

impl Ground {
    /// A folder of this bench's own inside this one.
    pub fn new(inside: &Path) -> anyhow::Result<Self> {
        let folder = inside.join(format!("amends-bench-{}", std::process::id()));
        std::fs::create_dir(&folder)
            .with_context(|| format!("a folder for the databases could not be made: {}", folder.display()))?;
        Ok(Self { folder, made: Mutex::default() })
    }

    /// A new place, with the tables in it.
    pub async fn place(&self) -> anyhow::Result<Place> {
        let number = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            *made += 1;
            *made
        };
        let folder = self.folder.join(number.to_string());
        std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let place = Place::Sqlite { folder };
        let (store, _) = place.open().await?;
        store.close().await;
        Ok(place)
    }

    /// Removes a place.
    pub async fn remove(&self, place: Place) -> anyhow::Result<()> {
        match place {
            Place::Sqlite { folder } => {
                std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())
            }
        }
    }

    /// Removes whatever is left.
    pub async fn clear(&self) -> anyhow::Result<()> {
        std::fs::remove_dir_all(&self.folder).with_context(|| self.folder.display().to_string())
    }
}

/// One database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A file in this folder.
    Sqlite {
        /// Which.
        folder: PathBuf,
    },
}

impl Place {
    /// Opens it as the engine does.
    pub async fn open(&self) -> anyhow::Result<(Arc<dyn Store>, Vault)> {
        match self {
            Self::Sqlite { folder } => {
                let (file, key) = (self.file(), folder.join("key"));
                let (store, vault) = SqliteStore::open(&file, &key, "bench", NOTES, &Env::system()).await?;
                Ok((Arc::new(store), vault))
            }
        }
    }

    /// The database's file.
    pub fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite { folder } => folder.join("bench.db"),
        }
    }

    /// The processes that work for us besides our own.
    pub fn beside(&self) -> Beside {
        match self {
            Self::Sqlite { .. } => None,
        }
    }

    /// How many bytes it takes on the disk.
    pub async fn bytes(&self) -> anyhow::Result<u64> {
        let file = self.file();
        let log = with_suffix(&file, "-wal");
        let log = std::fs::metadata(log).map_or(0, |log| log.len());
        Ok(std::fs::metadata(&file).with_context(|| file.display().to_string())?.len() + log)
    }

    /// How many transactions have written to it; only the difference of two answers says something.
    ///
    /// SQLite counts them in the index of its write-ahead log, in the second half of the first eight bytes after its
    /// version (<https://www.sqlite.org/walformat.html>, `iChange`); the file is there while the database is open.
    pub async fn commits(&self) -> anyhow::Result<u64> {
        use std::io::{Read, Seek, SeekFrom};
        let file = with_suffix(&self.file(), "-shm");
        let mut index = std::fs::File::open(&file).with_context(|| file.display().to_string())?;
        let mut count = [0; 4];
        index.seek(SeekFrom::Start(8))?;
        index.read_exact(&mut count)?;
        Ok(u64::from(u32::from_ne_bytes(count)))
    }
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
