//! Secrets: sealed before they touch the disk, named by reference everywhere else.

use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
pub use secrecy::{ExposeSecret, SecretString};

use crate::env::{Env, Timestamp};
use crate::ids::{InstallationId, SecretRef};

/// A secret as the database holds it: unreadable without the key file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// How journals and inputs name it.
    pub id: SecretRef,
    /// What it is for, as `openrouter.key`.
    pub kind: String,
    /// Nonce (24 bytes) and ciphertext.
    pub bytes: Vec<u8>,
    /// When it was sealed.
    pub at: Timestamp,
}

/// What can go wrong with a key or with what it sealed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file could not be read or written.
    #[error("the key file {path} cannot be {done}: {source}")]
    File {
        /// Where it is.
        path: String,
        /// "read" or "written".
        done: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key file is not 32 bytes in hex.
    #[error("the key file {0} does not hold 64 hexadecimal digits")]
    Malformed(String),
    /// The database knows of a key, and the file is not there.
    #[error(
        "the key file {0} is missing, and this database was made with one; put it back, secrets cannot be opened without it"
    )]
    Missing(String),
    /// The file holds another key than the one the database was made with.
    #[error("the key in {0} is not the one this database was made with")]
    Foreign(String),
    /// The row was changed, moved, or sealed by another installation.
    #[error("secret {0} cannot be opened: it was changed, or sealed by another installation")]
    Damaged(SecretRef),
    /// There is no such row; it was destroyed with its owner.
    #[error("secret {0} does not exist any more")]
    Gone(SecretRef),
}

/// The installation's key, and the only code that seals and opens.
#[derive(Clone)]
pub struct Vault {
    cipher: XChaCha20Poly1305,
    installation: InstallationId,
    fingerprint: String,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("installation", &self.installation).finish_non_exhaustive()
    }
}

/// The key itself, before it is bound to an installation.
pub struct Key([u8; 32]);

impl Key {
    /// A key of these bytes, for stores that live only as long as the process.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the key file; makes it, readable by its owner alone, when there is none.
    pub fn read_or_make(path: &Path, env: &Env) -> Result<Self, Error> {
        match Self::read(path) {
            Err(Error::Missing(_)) => Self::make(path, env),
            other => other,
        }
    }

    /// Reads the key file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = || path.display().to_string();
        tighten(path);
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::Missing(name())),
            Err(source) => return Err(Error::File { path: name(), done: "read", source }),
        };
        let text = text.trim();
        let mut key = [0u8; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(Error::Malformed(name()));
        }
        for (place, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| Error::Malformed(name()))?;
            *place = u8::from_str_radix(digits, 16).map_err(|_| Error::Malformed(name()))?;
        }
        Ok(Self(key))
    }

    fn make(path: &Path, env: &Env) -> Result<Self, Error> {
        use std::io::Write;
        let failed = |source| Error::File { path: path.display().to_string(), done: "written", source };
        let key = Self(env.bytes());
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        let hex: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        file.write_all(hex.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        // The directory entry too: a key that a power cut takes away would orphan the database's secrets.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
        }
        Ok(key)
    }

    /// What the installation row records, so that another key is noticed at start.
    pub fn fingerprint(&self) -> String {
        blake3::keyed_hash(&self.0, b"amends key fingerprint").to_hex().as_str().chars().take(16).collect()
    }
}

/// Takes from everybody but its owner what they may do with a file, and says so; says it too where that is not allowed.
/// A file that is not there is left alone.
#[cfg(unix)]
pub(crate) fn tighten(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let Ok(known) = std::fs::metadata(path) else { return };
    let mode = known.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return;
    }
    match std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o700)) {
        Ok(()) => tracing::info!(
            file = %path.display(), was = format!("{mode:04o}"), "now for its owner alone"
        ),
        Err(error) => tracing::warn!(
            file = %path.display(), mode = format!("{mode:04o}"), %error, "others than its owner can use this file"
        ),
    }
}

#[cfg(not(unix))]
pub(crate) fn tighten(_: &Path) {}

impl Vault {
    /// Binds a key to the installation whose secrets it seals.
    pub fn new(key: &Key, installation: InstallationId) -> Self {
        Self { cipher: XChaCha20Poly1305::new(&key.0.into()), installation, fingerprint: key.fingerprint() }
    }

    /// The fingerprint of the key, as the installation row has it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Seals a value under a new reference.
    pub fn seal(&self, kind: &str, value: &SecretString, env: &Env) -> Result<Sealed, Error> {
        let id = SecretRef::from_uuid(env.uuid());
        let nonce: [u8; 24] = env.bytes();
        let associated = self.associated(&id, kind);
        let payload = Payload { msg: value.expose_secret().as_bytes(), aad: associated.as_bytes() };
        let sealed =
            self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::Damaged(id.clone()))?;
        Ok(Sealed { id, kind: kind.to_owned(), bytes: [nonce.as_slice(), &sealed].concat(), at: env.now() })
    }

    /// Opens a sealed value.
    pub fn open(&self, sealed: &Sealed) -> Result<SecretString, Error> {
        let damaged = || Error::Damaged(sealed.id.clone());
        let (nonce, text) = sealed.bytes.split_at_checked(24).ok_or_else(damaged)?;
        let nonce: [u8; 24] = nonce.try_into().map_err(|_| damaged())?;
        let associated = self.associated(&sealed.id, &sealed.kind);
        let payload = Payload { msg: text, aad: associated.as_bytes() };
        let plain = self.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| damaged())?;
        Ok(String::from_utf8(plain).map_err(|_| damaged())?.into())
    }

    /// What a ciphertext is bound to, so that one row's bytes do not open as another's.
    fn associated(&self, id: &SecretRef, kind: &str) -> String {
        format!("{}\n{id}\n{kind}", self.installation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_sealed_secret_opens_only_under_its_own_name_and_installation() {
        let env = Env::seeded(1);
        let key = Key::from_bytes([7; 32]);
        let vault = Vault::new(&key, InstallationId::from_uuid(Uuid::from_u128(1)));
        let sealed = vault.seal("test.key", &"hush".into(), &env).unwrap();
        assert!(!sealed.bytes.windows(4).any(|window| window == b"hush"));
        assert_eq!(vault.open(&sealed).unwrap().expose_secret(), "hush");

        let moved = Sealed { kind: "other.key".into(), ..sealed.clone() };
        assert!(matches!(vault.open(&moved), Err(Error::Damaged(_))));
        let elsewhere = Vault::new(&key, InstallationId::from_uuid(Uuid::from_u128(2)));
        assert!(matches!(elsewhere.open(&sealed), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_key_file_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = Key::read_or_make(&path, &Env::seeded(1)).unwrap();
        let read = Key::read_or_make(&path, &Env::seeded(2)).unwrap();
        assert_eq!(made.fingerprint(), read.fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
