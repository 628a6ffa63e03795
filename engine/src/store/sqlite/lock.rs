//! The lock: one process has a database file, and opens it once, by whatever name it is reached.
//!
//! It is the kernel's lock on the file itself, so that a hard link, a symbolic link or a bind mount leads to the same
//! one. SQLite's own locks are of another kind and stand beside it. On systems where the two kinds are one, the lock is
//! on a file beside the database, and a hard link in another folder is not noticed.

use std::collections::HashSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::env::Env;
use crate::store::open::OpenError;

/// How often a lock that somebody has is asked for, and how far apart: two seconds, so that a busy machine has the time
/// to run the program of a process that was just started.
const LOCK_TRIES: u32 = 100;
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// The databases that this process has open. A second open must not so much as open and close the file: that would
/// take SQLite's locks away from the first.
static OPEN: Mutex<Option<HashSet<Identity>>> = Mutex::new(None);

/// What tells one file from all others.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

/// Held for as long as any connection to the database is open.
#[derive(Debug)]
pub(super) struct Lock {
    /// Let go by the kernel when it is closed.
    _file: File,
    identity: Identity,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(open) = OPEN.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            open.remove(&self.identity);
        }
    }
}

/// Makes the file if there is none, for its owner alone, and locks it.
pub(super) async fn lock(path: &Path, env: &Env) -> Result<Lock, OpenError> {
    let place = || path.display().to_string();
    let failed = |source| OpenError::File { place: place(), source };
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = try_lock(path).map_err(failed)? {
            return Ok(lock);
        }
        // A process that this one is just starting has a copy of every open file until it runs its program.
        env.sleep(LOCK_AGAIN).await;
    }
    Err(OpenError::InUse(place()))
}

fn try_lock(path: &Path) -> std::io::Result<Option<Lock>> {
    let mut all = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = all.get_or_insert_default();
    match identity(path) {
        Ok(known) if open.contains(&known) => return Ok(None),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(not(target_os = "linux"))]
    let file = {
        drop(file);
        options.open(beside(&path.canonicalize()?, ".lock"))?
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Of the file that was opened, whatever stands at the path by now.
    let identity = identity(path)?;
    #[allow(clippy::clone_on_copy, reason = "elsewhere it is a path")]
    open.insert(identity.clone());
    Ok(Some(Lock { _file: file, identity }))
}

#[cfg(unix)]
fn identity(path: &Path) -> std::io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|known| (known.dev(), known.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> std::io::Result<Identity> {
    path.canonicalize()
}

/// A path with this behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes a folder that is not there, for its owner alone.
pub(super) fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Takes from everybody but its owner what they may do with the database and the files beside it, and says so. The
/// database opens also where that is not allowed: the warning says what is left to do.
#[cfg(unix)]
pub(super) fn tighten(path: &Path) {
    let files = ["", "-wal", "-shm", ".lock"].map(|suffix| beside(path, suffix));
    files.iter().for_each(|file| crate::secret::tighten(file));
}

#[cfg(not(unix))]
pub(super) fn tighten(_: &Path) {}
