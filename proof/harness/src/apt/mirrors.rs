//! Reads the mirrors from the machine's own apt configuration. Both of apt's formats are supported.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Name of the unstable suite in the archive.
pub(super) const SID: &str = "sid";

/// A suite of the distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The release and its updates.
    Stable,
    /// Newer versions that are built for the release.
    Backports,
    /// The newest versions, from which the next release is made (`sid`).
    Unstable,
}

/// The release's code name, and the sources of its packages and security updates.
#[derive(Debug)]
pub(super) struct ReleaseSources {
    release: String,
    main: Source,
    security: Option<Source>,
}

/// A package archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    /// The value of `Signed-By`: a file or a key.
    signed_by: Option<String>,
}

impl ReleaseSources {
    /// Reads `/etc/os-release` and `/etc/apt`.
    pub(super) fn of_this_machine() -> Result<Self> {
        let system =
            fs::read_to_string("/etc/os-release").context("this is not a Debian machine")?;
        let release = system.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let release =
            release.context("/etc/os-release names no release")?.trim_matches('"').to_owned();
        let all: Vec<_> = files(Path::new("/etc/apt")).iter().flat_map(|file| read(file)).collect();
        let of_suite =
            |suite: &str| all.iter().find(|source| source.suites.iter().any(|name| name == suite));
        let main =
            of_suite(&release).with_context(|| format!("no apt source names {release}"))?.clone();
        let security = of_suite(&format!("{release}-security")).cloned();
        Ok(Self { release, main, security })
    }

    pub(super) fn mirror(&self) -> &str {
        &self.main.uri
    }

    /// Returns the suite's name in the archive.
    pub(super) fn name_of(&self, suite: Suite) -> String {
        match suite {
            Suite::Stable => self.release.clone(),
            Suite::Backports => format!("{}-backports", self.release),
            Suite::Unstable => SID.into(),
        }
    }

    /// Returns the suite of an origin in the format of `apt-cache madison`: `http://mirror
    /// release/main arch Packages`.
    pub(super) fn suite_of(&self, origin: &str) -> Suite {
        let others = [Suite::Backports, Suite::Unstable];
        let is_of = |suite: &Suite| origin.contains(&format!(" {}/", self.name_of(*suite)));
        others.into_iter().find(is_of).unwrap_or(Suite::Stable)
    }

    /// Formats any release of the distribution as a source file for apt.
    pub(super) fn render_release(&self, release: &str) -> String {
        self.main.render(&[release.into()])
    }

    /// Formats these suites of the release as a source file for apt.
    pub(super) fn render(&self, suites: &[Suite]) -> String {
        let mut names = vec![self.release.clone(), format!("{}-updates", self.release)];
        if suites.contains(&Suite::Backports) {
            names.push(self.name_of(Suite::Backports));
        }
        let security = self
            .security
            .as_ref()
            .map(|source| source.render(&[format!("{}-security", self.release)]));
        self.main.render(&names) + &security.unwrap_or_default()
    }
}

impl Source {
    fn render(&self, suites: &[String]) -> String {
        let key =
            self.signed_by.as_ref().map(|key| format!("Signed-By: {key}\n")).unwrap_or_default();
        format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n{key}\n",
            self.uri,
            suites.join(" ")
        )
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let parts = folder.join("sources.list.d").read_dir();
    let parts = parts.into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(folder.join("sources.list"))
        .chain(parts)
        .filter(|path| path.is_file())
        .collect()
}

fn read(file: &Path) -> Vec<Source> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => text.split("\n\n").filter_map(from_stanza).collect(),
        Some("list") => text.lines().filter_map(from_line).collect(),
        _ => Vec::new(),
    }
}

/// Parses `deb [signed-by=FILE …] URI SUITE COMPONENT…`.
fn from_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let uri = words.next().filter(|uri| !uri.starts_with("cdrom:"))?.to_owned();
    let suites = vec![words.next()?.trim_end_matches('/').to_owned()];
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Source { uri, suites, signed_by: signed_by.map(str::to_owned) })
}

/// Parses fields of the form `Name: value`. Lines that start with a space continue the value.
fn from_stanza(stanza: &str) -> Option<Source> {
    let uri = field(stanza, "URIs")?.split_whitespace().next()?.to_owned();
    let suites = field(stanza, "Suites")?.split_whitespace().map(str::to_owned).collect();
    let binary = field(stanza, "Types")?.split_whitespace().any(|kind| kind == "deb");
    binary.then(|| Source { uri, suites, signed_by: field(stanza, "Signed-By") })
}

fn field(stanza: &str, name: &str) -> Option<String> {
    let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
    let first =
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().to_owned();
    let more = lines.take_while(|line| line.starts_with(' '));
    Some(more.fold(first, |value, line| value + "\n" + line))
}
