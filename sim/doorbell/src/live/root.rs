//! Files of a running Linux, or a copy of its files in a folder.
//!
//! The files of a copy are not trusted. Only regular files and the kernel's log are opened, because
//! opening a pipe could block. The sizes of files and the numbers of entries in folders are
//! limited.

use rustix::fs::{FileType, Mode, OFlags};
use serde::Serialize;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Maximum number of entries that are read from a folder.
const MAX_ENTRIES: usize = 1 << 16;
/// Maximum size of a file with a single attribute.
const MAX_ATTRIBUTE: u64 = 1 << 16;

/// Maximum number of recorded problems.
const MAX_PROBLEMS: usize = 100;

/// A folder with the files of a Linux system, such as `/`.
#[derive(Debug)]
pub(super) struct Root {
    folder: PathBuf,
    problems: RefCell<Vec<Unreadable>>,
}

/// A file that exists but could not be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Unreadable {
    /// Path of the file on its machine. A problem of several files with the same name states the
    /// path of the first.
    pub(super) path: String,
    pub(super) reason: String,
}

impl Root {
    /// Creates a root without reading it.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), problems: RefCell::default() }
    }

    /// Returns the path of a file, given its path relative to the root.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads a file of at most `limit` bytes. Returns `None` if the file does not exist. If the
    /// file exists but cannot be read, also records a problem.
    pub(super) fn bytes(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        match read(&self.path(name), limit) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.record(name, &error);
                None
            }
        }
    }

    /// Reads an attribute as text, without leading and trailing whitespace.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.long_text(name, MAX_ATTRIBUTE).map(|text| text.trim().to_owned())
    }

    /// Reads a file of at most `limit` bytes as text.
    pub(super) fn long_text(&self, name: &str, limit: u64) -> Option<String> {
        self.bytes(name, limit).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the sorted names of a folder's entries. The result is empty if the folder does not
    /// exist. If the folder exists but cannot be read, also records a problem.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        let entries = match fs::read_dir(self.path(name)) {
            Ok(entries) => entries,
            Err(error) => {
                self.record(name, &error);
                return Vec::new();
            }
        };
        let names = entries.take(MAX_ENTRIES).flatten();
        let mut names: Vec<_> =
            names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Returns `true` if a file or folder exists.
    pub(super) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Returns the last component of a symbolic link's target.
    pub(super) fn link_name(&self, name: &str) -> Option<String> {
        let target = fs::read_link(self.path(name)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// Returns the absolute path of a file, with all symbolic links resolved.
    pub(super) fn resolved(&self, name: &str) -> Option<PathBuf> {
        fs::canonicalize(self.path(name)).ok()
    }

    /// Returns the files that could not be read.
    pub(super) fn problems(&self) -> Vec<Unreadable> {
        self.problems.borrow().clone()
    }

    /// Records a problem, unless the file does not exist. If several files of the same name fail
    /// for the same reason, only the first is recorded.
    pub(super) fn record(&self, name: &str, error: &io::Error) {
        let reason = match error.kind() {
            // A device, and its attributes with it, may disappear at any time.
            ErrorKind::NotFound | ErrorKind::NotADirectory => return,
            ErrorKind::PermissionDenied => "permission denied; run as root".to_owned(),
            _ => error.to_string(),
        };
        let file = |path: &str| Path::new(path).file_name().map(std::ffi::OsStr::to_owned);
        let mut problems = self.problems.borrow_mut();
        let is_known =
            |known: &Unreadable| known.reason == reason && file(&known.path) == file(name);
        if problems.len() < MAX_PROBLEMS && !problems.iter().any(is_known) {
            problems.push(Unreadable { path: format!("/{name}"), reason });
        }
    }
}

/// Reads a regular file, or the kernel's log.
///
/// # Errors
/// Fails if the file cannot be read, is of another type, or has more than `limit` bytes.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let status = rustix::fs::stat(path)?;
    let mut bytes = Vec::new();
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => {
            File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        }
        FileType::CharacterDevice if status.st_rdev == rustix::fs::makedev(1, 11) => {
            // At the end of the log, a blocking read waits for the next record.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let log = File::from(rustix::fs::open(path, flags, Mode::empty())?);
            read_records(log.take(limit + 1), &mut bytes)?;
        }
        _ => return Err(io::Error::other("not a regular file")),
    }
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads the records of the kernel's log. Each call of `read` returns one, or fails with
/// `BrokenPipe` if the kernel has overwritten it.
fn read_records(mut log: impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    // Linux refuses to return a part of a record.
    let mut record = [0; 1 << 13];
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(()),
            Ok(length) => bytes.extend_from_slice(&record[..length]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(()),
                ErrorKind::BrokenPipe | ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn overwritten_kernel_log_records_are_skipped() {
        struct Log(Vec<io::Result<&'static str>>);
        impl Read for Log {
            fn read(&mut self, record: &mut [u8]) -> io::Result<usize> {
                self.0.pop().unwrap().map(|text| {
                    record[..text.len()].copy_from_slice(text.as_bytes());
                    text.len()
                })
            }
        }
        let fails = |kind: ErrorKind| Err(io::Error::from(kind));
        for (end, is_good) in [(ErrorKind::WouldBlock, true), (ErrorKind::NotFound, false)] {
            let mut bytes = Vec::new();
            let log = Log(vec![fails(end), Ok("b\n"), fails(ErrorKind::BrokenPipe), Ok("a\n")]);
            assert_eq!(read_records(log, &mut bytes).is_ok(), is_good);
            assert_eq!(bytes, b"a\nb\n");
        }
    }

    #[test]
    fn absent_files_are_not_reported_as_problems() {
        let root = Tree::new().root();
        assert_eq!(root.text("proc/interrupts"), None);
        assert!(root.names("sys/bus/pci/devices").is_empty());
        assert_eq!(root.problems(), []);
    }

    #[test]
    fn only_regular_files_of_limited_length_are_read() {
        let tree = Tree::new().file("a/long", &"x".repeat(100)).file("b/folder/c", "");
        let root = tree.root();
        assert_eq!(root.bytes("a/long", 99), None);
        assert_eq!(root.bytes("a/long", 100).map(|bytes| bytes.len()), Some(100));
        assert_eq!(root.text("b/folder"), None);
        let reasons: Vec<_> = root.problems().into_iter().map(|one| one.reason).collect();
        assert_eq!(reasons, ["longer than 99 bytes", "not a regular file"]);
    }

    #[test]
    fn problems_are_reported_once_per_file_name() {
        let tree = Tree::new().file("a/c/x", "").file("b/c/x", "").file("d/x", "");
        let root = tree.root();
        assert!(["a/c", "b/c", "d"].into_iter().all(|folder| root.text(folder).is_none()));
        let paths: Vec<_> = root.problems().into_iter().map(|one| one.path).collect();
        assert_eq!(paths, ["/a/c", "/d"]);
    }
}
