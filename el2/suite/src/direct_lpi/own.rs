//! The files of our Direct LPI driver, with and without a planted fault.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use doorbell_harness::{cache, workspace};

/// Folder of the driver, relative to the project's root.
const FOLDER: &str = "linux/direct-lpi";

/// Files, with their names.
pub(super) type Sources = Vec<(String, String)>;

/// A change of the driver: a text that occurs once in a file, and its replacement in parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) file: &'static str,
    pub(super) old: &'static str,
    pub(super) new: &'static [&'static str],
}

/// A fault of style, which both of the kernel's checkers find.
pub(super) const GLOBAL: Change = Change {
    file: "pci.c",
    old: "static int probe(",
    new: &["int dlpi_planted = 0;\n\nstatic int probe("],
};
/// A call of the function that lists what is sent again.
const NOTED: Change = Change {
    file: "redistributors.c",
    old: "\t\tif (dlpi_is_served(lpi->cpu) && (!pending || test_bit(intid, pending)))\n",
    new: &["\t\tif (dlpi_is_served(lpi->cpu) && !pending) {\n\t\t\tvoid dlpi_note(const struct \
              dlpi *lpi);\n\n\t\t\tdlpi_note(lpi);\n\t\t}\n\t\tif (dlpi_is_served(lpi->cpu) && (!pending || \
              test_bit(intid, pending)))\n"],
};

/// Returns the driver's files.
pub(super) fn sources() -> Result<Sources> {
    sources_in(&workspace::this()?.root.join(FOLDER))
}

/// Returns the files of a driver, with a list of what it sends again without knowing whether it was
/// pending.
pub(super) fn noting(sources: Sources) -> Result<Sources> {
    let mut sources = NOTED.made(sources)?;
    let makefile = sources.iter_mut().find(|(name, _)| name == "Makefile");
    makefile.context("the driver has no makefile")?.1.push_str("direct-lpi-y += resent.o\n");
    sources.push(("resent.c".into(), include_str!("resent.c").into()));
    Ok(sources)
}

/// Returns the files in a folder.
pub(super) fn sources_in(folder: &Path) -> Result<Sources> {
    let files = cache::files_below(folder)?;
    let source = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, fs::read_to_string(file)?))
    };
    files.iter().map(source).collect()
}

impl Change {
    /// Changes the driver.
    ///
    /// # Errors
    /// The text that is replaced does not occur exactly once.
    pub(super) fn made(self, mut sources: Sources) -> Result<Sources> {
        let source = sources.iter_mut().find(|(name, _)| name == self.file);
        let (name, text) = source.with_context(|| format!("the driver has no {}", self.file))?;
        let times = text.matches(self.old).count();
        ensure!(times == 1, "{name} has this text {times} times: {:?}", self.old);
        *text = text.replace(self.old, &self.new.concat());
        Ok(sources)
    }
}
