//! What a newcomer does: makes crates from the packages' READMEs alone, in an empty folder outside
//! of the repository, against the packaged archives, and runs them.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, process};

use anyhow::{Context, Result, ensure};

use crate::package::Archives;
use crate::process as children;
use crate::step::Tally;
use crate::workspace::Workspace;

/// Packages whose README shows a whole program, and what that program says.
const PROGRAMS: &[(&str, &str)] = &[("vgic", "the guest took LPI 8192")];
/// Building it and its dependencies takes less, on a busy machine too.
const LIMIT: Duration = Duration::from_mins(10);

/// Makes and runs each program, counted as one case.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let archives = Archives::make(workspace)?;
    let empty = Empty::new()?;
    for (package, says) in PROGRAMS {
        tally.case(&format!("README of {package}"), follow(&archives, &empty, package, says));
    }
    Ok(())
}

/// Makes a crate of what the README shows, and runs it.
fn follow(archives: &Archives, empty: &Empty, package: &str, says: &str) -> Result<()> {
    let page = fs::read_to_string(archives.package(package)?.join("README.md"))?;
    let folder = empty.0.join(package);
    fs::create_dir_all(folder.join("src"))?;
    let dependencies = block(&page, "toml").context("the README names no dependencies")?;
    let name = format!("{package}-user");
    let header = format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[workspace]\n");
    let manifest = format!("{header}\n{dependencies}\n{}", archives.patch());
    fs::write(folder.join("Cargo.toml"), manifest)?;
    let program = block(&page, "rust").context("the README shows no program")?;
    fs::write(folder.join("src/main.rs"), program)?;
    archives.lock(&folder)?;
    let (mut cargo, mut lines) = (archives.cargo(None), Vec::new());
    cargo.current_dir(&folder).args(["run", "--quiet"]);
    let status = children::watch(&mut cargo, LIMIT, |line| lines.push(line.to_owned()))?;
    ensure!(status.success(), "ended with {status}");
    ensure!(lines.iter().any(|line| line == says), "it says {lines:?}, and not {says:?}");
    Ok(())
}

/// The first fenced block of this language.
fn block<'a>(page: &'a str, language: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("```{language}\n"))?;
    rest.split_once("```").map(|(block, _)| block)
}

/// A folder of the system's for temporary ones, removed in the end.
struct Empty(PathBuf);

impl Empty {
    fn new() -> Result<Self> {
        let folder = env::temp_dir().join(format!("doorbell-newcomer-{}", process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        // What stays is a temporary file.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_block_is_found_by_its_language() {
        let page = "text\n```toml\na = 1\n```\n\n```rust\nfn main() {}\n```\n";
        assert_eq!(block(page, "rust"), Some("fn main() {}\n"));
        assert_eq!(block(page, "toml"), Some("a = 1\n"));
        assert_eq!(block(page, "console"), None);
    }
}
