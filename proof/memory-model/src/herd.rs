//! herd7, which judges litmus tests, from Debian's unstable suite.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::apt::{self, Apt};
use doorbell_harness::dtb::Tools;
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{cache, process};

/// Packages that are unpacked: herd7, and the libraries of its suite.
const PACKAGES: [&str; 3] = ["herdtools7", "libc6", "libgmp10"];
/// Options that make herd7 faster by an order of magnitude and do not change a verdict. It ends
/// once the condition is decided, considers only executions that can decide it, and does not
/// generate those that are incoherent, which the model forbids.
const FASTER: [&str; 4] = ["-speedcheck", "fast", "-optace", "true"];
/// herd7 7.58's new solver loses executions in which a compare-and-swap of 32 bits expects a value
/// that another thread computed.
const SOLVER: [&str; 2] = ["-variant", "OldSolver"];

/// A simulator in the cache.
#[derive(Debug)]
pub struct Herd {
    root: PathBuf,
    /// Maximum processor time for one litmus test.
    limit: Duration,
}

/// herd7's verdict on a condition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// No execution satisfies the condition.
    Never,
    /// An execution satisfies the condition.
    Sometimes,
}

/// Unpacks herd7 into the cache. It is stopped when it has used `limit` of processor time for a
/// litmus test.
///
/// # Errors
/// Fails if Debian's mirror does not have the package for this machine's architecture.
pub fn fetch(workspace: &Workspace, limit: Duration) -> Result<Herd> {
    let root = cache::folder(workspace).join("herdtools7");
    cache::fill(&root, || {
        let apt = Apt::update_unstable(&cache::folder(workspace))?;
        for package in PACKAGES {
            apt.download(package, &root)?;
        }
        for package in apt::packages_in(&root)? {
            let mut unpack = process::command("dpkg-deb", &root);
            process::capture(unpack.arg("-x").arg(&package).arg(&root))?;
            fs::remove_file(package)?;
        }
        Ok(())
    })?;
    Ok(Herd { root, limit })
}

impl Herd {
    /// Judges a litmus test.
    ///
    /// # Errors
    /// Fails if herd7 cannot read the test, or exceeds the limit.
    pub fn judge(&self, test: &str, folder: &Path, name: &str) -> Result<Verdict> {
        let file = folder.join(format!("{name}.litmus"));
        fs::write(&file, test)?;
        let linker = Tools::at(self.root.clone()).linker().context("libc6 has no linker")?;
        let mut herd = process::command("prlimit", folder);
        herd.arg(format!("--cpu={}", self.limit.as_secs()));
        herd.args(linker).arg(self.root.join("usr/bin/herd7"));
        herd.arg("-set-libdir").arg(self.root.join("usr/share/herdtools7/herd"));
        herd.args(["-model", "aarch64.cat"]).args(FASTER).args(SOLVER);
        let output = process::output(herd.arg(&file))?;
        let verdict = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!errors.contains("unrolling limit"), "{name} has a loop: {errors}");
        let Some(line) = verdict.lines().find(|line| line.starts_with("Observation ")) else {
            bail!("herd7 does not judge {}: {}{errors}", file.display(), output.status);
        };
        match line.split_whitespace().nth(2) {
            Some("Never") => Ok(Verdict::Never),
            Some("Sometimes" | "Always") => Ok(Verdict::Sometimes),
            _ => bail!("herd7 prints `{line}`"),
        }
    }
}
