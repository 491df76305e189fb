//! Folders with a few files of a Linux system, for tests.

use super::root::Root;
use std::path::PathBuf;

/// A temporary folder with files. Dropping the value removes the folder.
pub(super) struct Tree {
    folder: PathBuf,
}

impl Tree {
    /// Creates an empty folder. `name` must be unique among tests.
    pub(super) fn new(name: &str) -> Self {
        let name = format!("doorbell-live-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    /// Adds a file, and creates the folders on its path.
    pub(super) fn bytes(self, path: &str, content: &[u8]) -> Self {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// Adds a text file, and creates the folders on its path.
    pub(super) fn file(self, path: &str, content: &str) -> Self {
        self.bytes(path, content.as_bytes())
    }

    /// Adds a symbolic link, and creates the folders on its path. The link's target need not exist.
    pub(super) fn link(self, path: &str, target: &str) -> Self {
        let path = self.folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Removes a file, a symbolic link, or a folder with its files.
    pub(super) fn without(self, path: &str) -> Self {
        let path = self.folder.join(path);
        if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        self
    }

    /// Returns a root that reads the files of this folder.
    pub(super) fn root(&self) -> Root {
        Root::new(&self.folder)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
