//! The mirrors, as the machine's own apt knows them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process;

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

/// The release's code name, the mirrors of its packages and security updates, and the file with the
/// distribution's keys.
#[derive(Debug)]
pub(super) struct ReleaseSources {
    release: String,
    mirror: String,
    security: Option<String>,
    keys: String,
}

impl ReleaseSources {
    /// Reads `/etc/os-release`, and asks apt.
    pub(super) fn of_this_machine() -> Result<Self> {
        let system =
            fs::read_to_string("/etc/os-release").context("this is not a Debian machine")?;
        let value = |name: &str| {
            let mut values = system.lines().filter_map(|line| line.strip_prefix(name));
            let value = values.next().map(|value| value.trim_matches('"').to_owned());
            value.with_context(|| format!("/etc/os-release has no {name}"))
        };
        let (release, distribution) = (value("VERSION_CODENAME=")?, value("ID=")?);
        let mut apt = process::command("apt-get", Path::new("/"));
        apt.args(["indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]);
        let listed = process::capture(&mut apt)?;
        let of_suite = |suite: &str| {
            let mut uris = listed.lines().filter_map(|line| line.strip_prefix(suite));
            uris.find_map(|uri| uri.strip_prefix(' ')).map(str::to_owned)
        };
        let mirror =
            of_suite(&release).with_context(|| format!("no apt source names {release}"))?;
        let security = of_suite(&format!("{release}-security"));
        let keys = format!("/usr/share/keyrings/{distribution}-archive-keyring.gpg");
        Ok(Self { release, mirror, security, keys })
    }

    pub(super) fn mirror(&self) -> &str {
        &self.mirror
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
        self.source(&self.mirror, &[release.into()])
    }

    /// Formats these suites of the release as a source file for apt.
    pub(super) fn render(&self, suites: &[Suite]) -> String {
        let mut names = vec![self.release.clone(), format!("{}-updates", self.release)];
        if suites.contains(&Suite::Backports) {
            names.push(self.name_of(Suite::Backports));
        }
        let name = [format!("{}-security", self.release)];
        let security = self.security.iter().map(|uri| self.source(uri, &name));
        self.source(&self.mirror, &names) + &security.collect::<String>()
    }

    fn source(&self, uri: &str, suites: &[String]) -> String {
        let (suites, keys) = (suites.join(" "), &self.keys);
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {keys}\n\n"
        )
    }
}
