//! The files of a source, and the folders that they may be read from.

use anyhow::{Error, anyhow};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum length of the text that the compilers read and write, in bytes.
pub(super) const MAX_TEXT: usize = 64 << 20;
/// Maximum length of all files of a source, in bytes.
const MAX_READ: u64 = 64 << 20;

/// A file of a source.
#[derive(Debug)]
struct SourceFile {
    path: PathBuf,
    text: Arc<str>,
}

/// The files that a source consists of. The compilers know each by a name such as `<3>`, which
/// needs no quoting.
#[derive(Debug)]
pub(super) struct SourceFiles {
    list: Vec<SourceFile>,
    /// Folders to search, in this order.
    search: Vec<PathBuf>,
    /// Folders that files may be read from, without symbolic links.
    readable: Vec<PathBuf>,
    /// Number of bytes that may still be read.
    budget: u64,
}

impl SourceFiles {
    /// Creates the list of files with its first one. If this is standard input, only the folders
    /// in `search` may be read.
    ///
    /// # Errors
    /// The file has control characters.
    pub(super) fn new(path: &Path, bytes: &[u8], search: &[PathBuf]) -> Result<Self, Error> {
        let first = SourceFile { path: path.to_owned(), text: plain(path, bytes)? };
        let own =
            (!doorbell_inspection::is_stdin(path)).then(|| Path::new(".").join(folder_of(path)));
        let readable = own.iter().chain(search).filter_map(|folder| folder.canonicalize().ok());
        let readable = readable.collect();
        Ok(Self { list: vec![first], search: search.to_vec(), readable, budget: MAX_READ })
    }

    pub(super) fn text(&self, file: usize) -> Arc<str> {
        self.list.get(file).map_or_else(|| "".into(), |file| Arc::clone(&file.text))
    }

    pub(super) fn path(&self, file: usize) -> String {
        let path = self.list.get(file).map(|file| file.path.as_path());
        let path = path.filter(|path| !doorbell_inspection::is_stdin(path));
        path.map_or_else(|| String::from("stdin"), |path| path.display().to_string())
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Opens the file that an include in the file `from` names, and returns its index. An include
    /// in quotes also searches the folder of the file.
    pub(super) fn open(&mut self, name: &str, from: usize, quoted: bool) -> Result<usize, Error> {
        let path = self.find(name, from, quoted)?;
        if let Some(known) = self.list.iter().position(|file| file.path == path) {
            return Ok(known);
        }
        let text = plain(&path, &self.read(&path)?)?;
        self.list.push(SourceFile { path, text });
        Ok(self.list.len() - 1)
    }

    /// Returns the bytes of a file that the file `from` includes.
    pub(super) fn bytes(&mut self, name: &str, from: usize) -> Result<Vec<u8>, Error> {
        let path = self.find(name, from, true)?;
        self.read(&path)
    }

    fn find(&self, name: &str, from: usize, quoted: bool) -> Result<PathBuf, Error> {
        let own = self.list.get(from).filter(|_| quoted).map(|file| folder_of(&file.path));
        let mut candidates = own.iter().chain(&self.search).map(|folder| folder.join(name));
        // Devices and pipes could block, so only regular files are read.
        let Some(path) = candidates.find(|path| path.is_file()) else {
            return Err(anyhow!("cannot find {name:?}; `-I DIR` adds a folder to search"));
        };
        let actual = path.canonicalize().unwrap_or_default();
        if self.readable.iter().any(|folder| actual.starts_with(folder)) {
            return Ok(path);
        }
        Err(anyhow!(
            "{name:?} is outside of the folders that may be read: that of the source and those of \
             `-I DIR`"
        ))
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, Error> {
        let fail = |error| anyhow!("cannot read {}: {error}", path.display());
        let length = path.metadata().map_err(fail)?.len();
        self.budget = self
            .budget
            .checked_sub(length)
            .ok_or_else(|| anyhow!("the included files are larger than {} MiB", MAX_READ >> 20))?;
        fs::read(path).map_err(fail)
    }

    /// Replaces the compilers' names of files in an error with paths.
    pub(super) fn explained(&self, error: &Error) -> Error {
        let text = format!("{error:#}");
        let mut parts = text.split('<');
        let mut told = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let name = part.split_once(">:");
            let known = name.and_then(|(file, rest)| Some((file.parse::<usize>().ok()?, rest)));
            match known.filter(|(file, _)| *file < self.list.len()) {
                Some((file, rest)) => told.extend([self.path(file).as_str(), ":", rest]),
                None => told.extend(["<", part]),
            }
        }
        anyhow!(told)
    }
}

/// Returns a file's text with `\n` as the end of each line. Other control characters are refused,
/// because compilers disagree on which of them separate words or lines.
pub(crate) fn plain(path: &Path, bytes: &[u8]) -> Result<Arc<str>, Error> {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut others = text.chars().filter(|one| one.is_control() && !"\t\n\x0b\x0c".contains(*one));
    match others.next() {
        Some(other) => Err(anyhow!("{}: control character {other:?}", path.display())),
        None => Ok(text.into()),
    }
}

/// Returns the folder of a file.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
