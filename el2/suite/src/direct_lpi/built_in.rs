//! Builds a small kernel of Debian's newest source, with our driver, its tests, a disk and a
//! network built in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use doorbell_harness::apt::Suite;
use doorbell_harness::linux_checkers::Checkers;
use doorbell_harness::linux_kernel::KernelBuilder;
use doorbell_harness::linux_module::ModuleBuilder;
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::{process, workspace};

use super::own::{self, Change, Sources};
use crate::built;
use crate::debian::Guest;

/// Folder of the patches and the options, relative to the project's root.
const FOLDER: &str = "linux/built-in";
/// Folder of the driver in the kernel's source.
const DRIVER: &str = "drivers/irqchip/direct-lpi";
/// Page with the commands that make a series of patches for the mailing list.
const PAGE: &str = "docs/direct-lpi.md";
/// The last of these commands.
const LAST_COMMAND: &str = "format-patch";
/// Makes the kernel also build the tests.
const TESTS: &str = "obj-y += ring.o retrigger.o\n";

/// Runs the kernel's checkers on the patches and on the driver that they make. They must find a
/// planted fault and nothing else, which also shows that they ran.
pub(super) fn check(parts: Parts) -> Result<()> {
    let workspace = workspace::this()?;
    let Parts { builder, .. } = parts;
    let checkers = Checkers::fetch(workspace, Suite::Unstable, builder);
    let checkers = checkers.or_absent("the kernel's checkers")?;
    let mut patches = with_fault(parts, None, |tree| Ok(tree.series.clone()))?;
    let planted = patches.len();
    // The script takes a file that git tracks for a source, so it checks copies.
    for (number, patch) in (1..).zip(&mut patches) {
        let mut text = fs::read_to_string(&*patch)?;
        if number == planted {
            text = text.replacen("+\tbool found;\n", "+\tbool found; \n", 1);
        }
        *patch = built::folder()?.join(format!("checked-{number}.patch"));
        fs::write(patch, text)?;
    }
    let found = checkers.checkpatch_patches(&patches)?;
    let is_right = |found: &[String], expected| found.len() == 1 && found[0].contains(expected);
    ensure!(is_right(&found, "trailing whitespace"), "checkpatch says: {found:#?}");
    let options = options(&workspace.root);
    let mut found = with_fault(parts, Some(own::GLOBAL), |tree| {
        let configured = (tree.folder.as_path(), options.as_path());
        checkers.sparse_of_kernel(&tree.kernel, configured, DRIVER)
    })?;
    // sparse does not know `__has_include`, which a test uses.
    let is_of = |line: &str, name: &str| line.contains(&format!("/{name}:"));
    let tests = parts.tests.iter().copied().flatten();
    found.retain(|line| !tests.clone().any(|(name, _)| is_of(line, name)));
    ensure!(is_right(&found, "'dlpi_planted' was not declared"), "sparse says: {found:#?}");
    Ok(())
}

/// Inputs of the kernel's build, in addition to its source, the patches and the driver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// A builder of modules for Debian's kernel of the same version.
    pub(super) builder: &'static ModuleBuilder,
    /// Files of the tests.
    pub(super) tests: [&'static [(&'static str, &'static str)]; 2],
}

/// The kernel's source with the patches.
struct Tree {
    kernel: KernelBuilder,
    folder: PathBuf,
    series: Vec<PathBuf>,
    driver: Sources,
}

/// Returns a guest with the kernel.
pub(super) fn guest(parts: Parts, name: &str) -> Result<Guest> {
    let workspace = workspace::this()?;
    let image = built::folder()?.join(format!("image-{name}"));
    with_fault(parts, None, |tree| {
        let built = tree.kernel.build(&tree.folder, &options(&workspace.root))?;
        fs::copy(built, &image).map_err(Into::into)
    })?;
    Guest::with_files(workspace, image, name, Vec::new()).or_absent("busybox")
}

/// Returns the file with the kernel's options.
fn options(root: &Path) -> PathBuf {
    root.join(FOLDER).join("small.config")
}

/// Calls `work` with the kernel's source, whose driver has a fault or none.
fn with_fault<T>(
    parts: Parts,
    fault: Option<Change>,
    work: impl FnOnce(&Tree) -> Result<T>,
) -> Result<T> {
    static TREE: Shared<Tree> = Shared::new();
    static BUILDING: Mutex<()> = Mutex::new(());
    let tree = TREE.get(|| patched(parts, &workspace::this()?.root))?;
    let sources = tree.driver.clone();
    let sources = fault.map_or(Ok(sources.clone()), |fault| fault.made(sources))?;
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    for (file, text) in &sources {
        let file = tree.folder.join(DRIVER).join(file);
        // A file that stays the same is not compiled again.
        if fs::read_to_string(&file).unwrap_or_default() != *text {
            fs::write(file, text)?;
        }
    }
    work(tree)
}

/// Unpacks the kernel's source, and adds the driver, by the series of patches, and its tests.
fn patched(parts: Parts, root: &Path) -> Result<Tree> {
    let kernel = KernelBuilder::fetch(workspace::this()?, parts.builder);
    let kernel = kernel.or_absent("the kernel's source")?;
    let folder = built::folder()?.join("built-in");
    let (tree, series) = (kernel.unpack(&folder)?, folder.join("series"));
    let series = series_for(&tree, &series, root)?;
    KernelBuilder::apply(&tree, &series)?;
    for (name, text) in parts.tests.iter().copied().flatten().filter(|(name, _)| is_code(name)) {
        fs::write(tree.join(DRIVER).join(name), text)?;
    }
    let mut driver = own::sources_in(&tree.join(DRIVER))?;
    let makefile = driver.iter_mut().find(|(name, _)| name == "Makefile");
    makefile.context("the patches add no makefile")?.1.push_str(TESTS);
    let driver = own::noting(driver)?;
    Ok(Tree { kernel, folder: tree, series, driver })
}

fn is_code(name: &str) -> bool {
    name != "Makefile"
}

/// Makes the series of patches by the commands that the page tells readers to run, in a repository
/// with those files of the kernel that our patches change.
fn series_for(tree: &Path, repository: &Path, root: &Path) -> Result<Vec<PathBuf>> {
    if repository.exists() {
        fs::remove_dir_all(repository)?;
    }
    for patch in patches_in(&root.join(FOLDER))? {
        let patch = fs::read_to_string(patch)?;
        for file in patch.lines().filter_map(|line| line.strip_prefix("--- a/")) {
            let (from, to) = (tree.join(file), repository.join(file));
            if from.exists() {
                fs::create_dir_all(to.parent().unwrap_or(repository))?;
                fs::copy(from, to)?;
            }
        }
    }
    let page = fs::read_to_string(root.join(PAGE))?;
    let commands = page.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands = commands.into_iter().find(|block| block.contains(LAST_COMMAND));
    let commands = commands.with_context(|| format!("{PAGE} has no {LAST_COMMAND}"))?;
    let commands = commands.lines().filter_map(|line| line.strip_prefix("$ "));
    let commands: Vec<_> = commands.collect();
    let commit = "git -C $LINUX init -q && git -C $LINUX add . && git -C $LINUX commit -qm base";
    let mut shell = process::command("sh", root);
    shell.args(["-ec", &format!("{commit}\n{}", commands.join("\n"))]).env("LINUX", repository);
    for (role, value) in [("NAME", "A Sender"), ("EMAIL", "sender@example.org")] {
        shell.env(format!("GIT_AUTHOR_{role}"), value).env(format!("GIT_COMMITTER_{role}"), value);
    }
    process::capture(&mut shell)?;
    patches_in(repository)
}

/// Returns the patches in a folder in their order.
fn patches_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut patches = entries.collect::<Result<Vec<_>>>()?;
    patches.retain(|file| file.extension().is_some_and(|it| it == "patch"));
    patches.sort();
    Ok(patches)
}
