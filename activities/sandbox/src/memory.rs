//! Memory: what the agents in the containers write down, on disk, a directory for each container.

use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the directories are.
#[derive(Debug, Default)]
pub(crate) struct Memory(Root);

#[derive(Debug, Default)]
enum Root {
    /// Nothing is written; only until a sandbox says where.
    #[default]
    None,
    Kept(PathBuf),
    /// Removed with the sandbox.
    Temporary(tempfile::TempDir),
}

impl Memory {
    /// In this directory, which is made; in one of its own, for as long as the sandbox is there, without one.
    pub(crate) fn open(kept: Option<PathBuf>) -> std::io::Result<Self> {
        let root = match kept {
            Some(path) => {
                std::fs::create_dir_all(&path)?;
                Root::Kept(path)
            }
            None => Root::Temporary(tempfile::Builder::new().prefix("amends-sandbox-").tempdir()?),
        };
        Ok(Self(root))
    }

    fn root(&self) -> Option<&Path> {
        match &self.0 {
            Root::None => None,
            Root::Kept(path) => Some(path),
            Root::Temporary(directory) => Some(directory.path()),
        }
    }

    /// The directory of a container.
    pub(crate) fn directory(&self, domain: &str) -> Option<PathBuf> {
        // The domain has a project's name in it, which others choose.
        let plain = |letter: char| {
            if letter.is_ascii_alphanumeric() || letter == '-' || letter == '.' { letter } else { '_' }
        };
        let name: String = domain.chars().map(plain).collect();
        Some(self.root()?.join(format!("of-{name}")))
    }

    pub(crate) fn make(&self, domain: &str) {
        self.with(domain, |directory| std::fs::create_dir_all(directory));
    }

    /// Adds a line to a file.
    pub(crate) fn write(&self, domain: &str, file: &str, text: &str) {
        self.with(domain, |directory| {
            std::fs::create_dir_all(directory)?;
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(directory.join(file))?;
            writeln!(file, "{text}")
        });
    }

    /// Empties a directory.
    pub(crate) fn clear(&self, domain: &str) {
        self.remove(domain);
        self.make(domain);
    }

    pub(crate) fn remove(&self, domain: &str) {
        self.with(domain, |directory| match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        });
    }

    /// The names of the files in it.
    pub(crate) fn files(&self, domain: &str) -> Vec<String> {
        let entries = self.directory(domain).and_then(|directory| std::fs::read_dir(directory).ok());
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn with(&self, domain: &str, change: impl FnOnce(&Path) -> std::io::Result<()>) {
        let Some(directory) = self.directory(domain) else { return };
        if let Err(error) = change(&directory) {
            tracing::warn!(%error, directory = %directory.display(), "the sandbox could not change a memory");
        }
    }
}
