//! Compares the sources of Debian's kernel with its compiled devicetrees: `doorbell lint` must
//! report the same findings for both, each with a line, and `gic-firmware` must apply overlays like
//! `fdtoverlay`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use doorbell_harness::apt::{self, Apt, Suite};
use doorbell_harness::command::Doorbell;
use doorbell_harness::dtb::{self, Tools, Tree};
use doorbell_harness::process;
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::workspace::Workspace;
use serde_json::Value;

/// Package that contains the kernel's sources.
const PACKAGE: &str = "linux-source-6.1";
/// Folder of the devicetrees' sources.
const SOURCES: &str = "arch/arm64/boot/dts";
/// Parts of the kernel that devicetrees include.
const PARTS: &[&str] = &[
    SOURCES,
    "arch/arm/boot/dts",
    "include/dt-bindings",
    "include/uapi/linux",
    "scripts/dtc/include-prefixes",
];
/// Folders that the sources may include files from.
const INCLUDES: &[&str] = &["-I", "include", "-I", SOURCES, "-I", "scripts/dtc/include-prefixes"];
/// Minimum number of sources that have a packaged devicetree.
const LEAST: usize = 500;

/// The sources of Debian's kernel, and the programs that read them.
#[derive(Debug)]
pub(crate) struct Sources<'w> {
    workspace: &'w Workspace,
    command: &'w Doorbell,
    tools: &'w Tools,
    /// The unpacked kernel.
    folder: PathBuf,
}

impl<'w> Sources<'w> {
    /// Fetches the sources unless the cache has them.
    ///
    /// # Errors
    /// Fails with an [`Absent`](doorbell_harness::suite::Absent) if the package is unreachable.
    pub(crate) fn fetch(
        workspace: &'w Workspace,
        command: &'w Doorbell,
        tools: &'w Tools,
    ) -> Result<Self> {
        ensure!(tools.root().join("usr/bin/dtc").exists(), "`dtc` has not been fetched");
        let folder = apt::cached(workspace, Suite::Stable, PACKAGE, unpack);
        let folder = folder.or_absent("the kernel's sources")?;
        Ok(Self { workspace, command, tools, folder })
    }

    /// Compares the findings of each source with those of its packaged devicetree.
    ///
    /// # Errors
    /// Fails if they differ, or if a finding in a source has no line.
    pub(crate) fn compare_findings(&self) -> Result<()> {
        let trees = Tree::Debian.folder(self.workspace);
        let boards: Vec<_> = dtb::files(&trees)?.into_iter().map(|(board, _)| board).collect();
        // The package contains no overlays, only boards with overlays applied.
        let is_source = |board: &&String| {
            let source = self.source(board);
            source.exists() && !is_overlay(&source)
        };
        let boards: Vec<_> = boards.iter().filter(is_source).collect();
        ensure!(boards.len() >= LEAST, "only {} boards have a source", boards.len());
        let sources = self.lint(boards.iter().map(|board| self.source(board)))?;
        let packaged = boards.iter().map(|board| trees.join(format!("{board}.dtb")));
        let packaged = self.lint(packaged)?;
        let (in_sources, in_trees) = (by_board(&sources), by_board(&packaged));
        let differ = |board: &&&String| in_sources.get(**board) != in_trees.get(**board);
        let differing: Vec<_> = boards.iter().filter(differ).collect();
        ensure!(differing.is_empty(), "the findings of {differing:?} differ");
        let is_placed = |finding: &&Value| {
            finding["file"].is_string() && finding["line"].as_u64().is_some_and(|line| line > 0)
        };
        let placed = sources.iter().filter(is_placed).count();
        ensure!(placed == sources.len(), "{placed} of {} findings have a line", sources.len());
        eprintln!("{placed} findings in {} sources", boards.len());
        Ok(())
    }

    /// Applies each overlay to each board of its folder, and compares the trees with those of
    /// `fdtoverlay`.
    ///
    /// # Errors
    /// Fails if a tree differs, or if only one of the two programs refuses a pair.
    pub(crate) fn compare_overlays(&self, output: &Path) -> Result<()> {
        let mut equal = 0;
        let mut cargo = process::cargo(&self.workspace.root);
        process::must(cargo.args(["build", "-q", "-p", "gic-firmware", "--example", "overlay"]))?;
        let ours = self.workspace.target.join("debug/examples/overlay");
        for folder in self.folder.join(SOURCES).read_dir()? {
            let mut sources: Vec<_> = files_of(&folder?.path(), "dts")?;
            sources.sort();
            let (overlays, boards): (Vec<_>, Vec<_>) =
                sources.into_iter().partition(|source| is_overlay(source));
            if overlays.is_empty() {
                continue;
            }
            let mut blobs = Vec::new();
            for overlay in &overlays {
                blobs.push(self.compile(overlay, output)?);
            }
            for board in &boards {
                let base = self.compile(board, output)?;
                for overlay in &blobs {
                    equal += usize::from(self.overlay(&ours, &base, overlay, output)?);
                }
            }
        }
        ensure!(equal > 0, "no overlay fits a board");
        eprintln!("{equal} pairs have equal trees");
        Ok(())
    }

    /// Applies an overlay with both programs. Returns `false` if both refuse it.
    fn overlay(&self, ours: &Path, base: &Path, overlay: &Path, output: &Path) -> Result<bool> {
        let pair = format!("{} with {}", base.display(), overlay.display());
        let [mine, theirs] = ["ours.dtb", "theirs.dtb"].map(|name| output.join(name));
        let mut program = self.tools.command("fdtoverlay");
        program.arg("-i").arg(base).arg("-o").arg(&theirs).arg(overlay);
        let fits = process::output(&mut program)?.status.success();
        let mut program = process::command(&ours.to_string_lossy(), output);
        let is_applied = process::output(program.args([base, &mine, overlay]))?.status.success();
        ensure!(fits == is_applied, "{pair}: only one program refuses it");
        if fits {
            let text = |blob: &Path| {
                let mut dtc = self.tools.command("dtc");
                process::capture(dtc.args(["-q", "-s", "-I", "dtb", "-O", "dts"]).arg(blob))
            };
            ensure!(text(&mine)? == text(&theirs)?, "{pair}: the trees differ");
        }
        Ok(fits)
    }

    /// Compiles a source with labels into the folder `output`.
    fn compile(&self, source: &Path, output: &Path) -> Result<PathBuf> {
        let mut cpp = process::command("cpp", &self.folder);
        cpp.args(["-nostdinc", "-undef", "-D__DTS__", "-x", "assembler-with-cpp", "-P"]);
        let text = process::capture(cpp.args(INCLUDES).arg(source))?;
        let stem = output.join(source.file_stem().context("a source without a name")?);
        let (file, blob) = (stem.with_extension("i"), stem.with_extension("dtb"));
        fs::write(&file, text)?;
        let mut dtc = self.tools.command("dtc");
        dtc.args(["-q", "-@", "-I", "dts", "-O", "dtb", "-o"]).arg(&blob);
        let folder = source.parent().context("a source without a folder")?;
        process::capture(dtc.arg("-i").arg(folder).arg(&file))?;
        Ok(blob)
    }

    fn source(&self, board: &str) -> PathBuf {
        self.folder.join(SOURCES).join(format!("{board}.dts"))
    }

    /// Returns the findings of these devicetrees or sources.
    fn lint(&self, sources: impl Iterator<Item = PathBuf>) -> Result<Vec<Value>> {
        let mut lint = self.command.command(&["lint", "--json"]);
        let path = env::var_os("PATH").unwrap_or_default();
        let first = [self.tools.root().join("usr/bin")];
        let path = env::join_paths(first.into_iter().chain(env::split_paths(&path)))?;
        let libraries = format!("usr/lib/{}-linux-gnu", env::consts::ARCH);
        lint.env("PATH", path).env("LD_LIBRARY_PATH", self.tools.root().join(libraries));
        lint.current_dir(&self.folder).args(INCLUDES).args(["-I", "."]).args(sources);
        let output = process::output(&mut lint)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        let findings = serde_json::from_slice(&output.stdout);
        findings.with_context(|| format!("the command printed no findings: {errors}"))
    }
}

/// Collects the rule, place and message of each finding by board.
fn by_board(findings: &[Value]) -> BTreeMap<String, Vec<[&str; 3]>> {
    let mut boards: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for finding in findings {
        let source = Path::new(finding["source"].as_str().unwrap_or_default());
        let vendor = source.ancestors().nth(1).and_then(Path::file_name).unwrap_or_default();
        let board = Path::new(vendor).join(source.file_stem().unwrap_or_default());
        let fields = ["rule", "where", "message"].map(|it| finding[it].as_str().unwrap_or(""));
        boards.entry(board.display().to_string()).or_default().push(fields);
    }
    for findings in boards.values_mut() {
        findings.sort_unstable();
    }
    boards
}

fn files_of(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let paths = folder.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect())
}

fn is_overlay(source: &Path) -> bool {
    fs::read_to_string(source).is_ok_and(|text| text.contains("/plugin/;"))
}

/// Unpacks the files that devicetree sources include.
fn unpack(apt: &Apt, folder: &Path) -> Result<()> {
    let version = apt.newest(PACKAGE, Suite::Stable)?;
    let archive = format!("usr/src/{PACKAGE}.tar.xz");
    apt.unpack(&format!("{PACKAGE}={version}"), &[&format!("./{archive}")], folder)?;
    let parts = PARTS.iter().map(|part| format!("{PACKAGE}/{part}"));
    let mut tar = process::command("tar", folder);
    process::capture(tar.args(["-xJf", &archive, "--strip-components=1"]).args(parts))?;
    fs::remove_dir_all(folder.join("usr")).map_err(Into::into)
}
