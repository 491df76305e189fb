//! Folders with a few files of a Linux system, for tests.

use super::root::Root;
use std::path::PathBuf;
use tempfile::TempDir;

/// A temporary folder with files. Dropping the value removes the folder.
pub(super) struct Tree(TempDir);

impl Tree {
    /// Creates an empty folder.
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns the path of a file, and creates the folders on it.
    fn place(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Adds a file, and creates the folders on its path.
    pub(super) fn bytes(self, path: &str, content: &[u8]) -> Self {
        std::fs::write(self.place(path), content).unwrap();
        self
    }

    /// Adds a text file, and creates the folders on its path.
    pub(super) fn file(self, path: &str, content: &str) -> Self {
        self.bytes(path, content.as_bytes())
    }

    /// Adds a symbolic link, and creates the folders on its path. The link's target need not exist.
    pub(super) fn link(self, path: &str, target: &str) -> Self {
        std::os::unix::fs::symlink(target, self.place(path)).unwrap();
        self
    }

    /// Removes a file, a symbolic link, or a folder with its files.
    pub(super) fn without(self, path: &str) -> Self {
        let path = self.0.path().join(path);
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        self
    }

    /// Returns a root that reads the files of this folder.
    pub(super) fn root(&self) -> Root {
        Root::new(self.0.path())
    }
}
