//! Checks the devicetree bindings with dtschema, which the kernel uses as well. Schemas and
//! examples must pass without errors, and every counter-example must cause the error that its first
//! lines state.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::dtb::{self, Tools};
use doorbell_harness::suite::{self, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, process, system};

/// The version that is installed into the cache. The wording of the error messages is stable within
/// a version.
const VERSION: &str = "2026.9";
const FOLDER: &str = "docs/bindings";
/// Prefix of the line in which a counter-example states its expected error.
const COMPLAINT: &str = "// Complaint: ";

/// Time limit of a case, which may install the tools.
const LIMIT: Duration = Duration::from_mins(5);

fn main() -> Result<ExitCode> {
    let folder = workspace::this()?.root.join(FOLDER);
    let mut cases = Vec::new();
    for schema in files(&folder.join("interrupt-controller"), "yaml")? {
        let again = schema.clone();
        cases.push(case(&name(&schema), move |judge| judge.accept_schema(&again)));
        let own = format!("{}'s own example", name(&schema));
        cases.push(case(&own, move |judge| judge.accept_own_example(&schema)));
    }
    for example in files(&folder.join("examples"), "dts")? {
        cases.push(case(&name(&example), move |judge| judge.accept(&judge.compile(&example)?)));
    }
    for example in files(&folder.join("counter-examples"), "dts")? {
        cases.push(case(&name(&example), move |judge| judge.reject(&example)));
    }
    Ok(suite::main(cases))
}

/// Returns a case that needs the tools.
fn case(name: &str, run: impl FnOnce(&Judge) -> Result<()> + Send + 'static) -> Case {
    static JUDGE: Shared<Judge> = Shared::new();
    Case::new(name, LIMIT, || run(JUDGE.get(|| Judge::find(workspace::this()?))?))
}

/// The tools and their folders.
struct Judge {
    /// Folder of Python's programs.
    programs: PathBuf,
    /// The devicetree compiler, if it was unpacked and not installed.
    unpacked: Option<Tools>,
    folder: PathBuf,
    /// Folder for compiled files.
    output: PathBuf,
}

impl Judge {
    fn find(workspace: &Workspace) -> Result<Self> {
        let output = workspace.target.join("bindings");
        fs::create_dir_all(&output)?;
        Ok(Self {
            programs: find_or_install(workspace).or_absent("dtschema")?,
            unpacked: find_compiler(workspace).or_absent("the devicetree compiler")?,
            folder: workspace.root.join(FOLDER),
            output,
        })
    }

    fn accept_schema(&self, schema: &Path) -> Result<()> {
        let said = self.ask("dt-doc-validate", &[Path::new("-u"), &self.folder, schema])?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    /// Checks the example in the schema's own text.
    fn accept_own_example(&self, schema: &Path) -> Result<()> {
        let stem = schema.file_stem().context("the schema has no name")?.to_string_lossy();
        let example = self.output.join(format!("{stem}-own-example.dts"));
        let text = process::capture(self.program("dt-extract-example").arg(schema))?;
        ensure!(text.contains("example-0"), "the schema has no example");
        fs::write(&example, text)?;
        self.accept(&self.compile(&example)?)
    }

    fn accept(&self, blob: &Path) -> Result<()> {
        let said = self.complaints(blob)?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    fn reject(&self, example: &Path) -> Result<()> {
        let text = fs::read_to_string(example)?;
        let complaint = text.lines().find_map(|line| line.strip_prefix(COMPLAINT));
        let complaint = complaint.context("the counter-example does not state its complaint")?;
        let said = self.complaints(&self.compile(example)?)?;
        ensure!(said.contains(complaint), "expected \"{complaint}\", got \"{said}\"");
        Ok(())
    }

    /// Returns dt-validate's error messages about a devicetree. The exit code of dt-validate is not
    /// meaningful.
    fn complaints(&self, blob: &Path) -> Result<String> {
        self.ask("dt-validate", &[Path::new("-s"), &self.folder, blob])
    }

    fn compile(&self, source: &Path) -> Result<PathBuf> {
        let blob = self.output.join(source.with_extension("dtb").file_name().unwrap_or_default());
        let mut compiler = match &self.unpacked {
            Some(tools) => tools.command("dtc"),
            None => process::command("dtc", &self.folder),
        };
        process::capture(
            compiler.args(["-q", "-I", "dts", "-O", "dtb", "-o"]).args([&blob, source]),
        )?;
        Ok(blob)
    }

    /// Returns all output of a program. A crash of the program is reported as an error.
    fn ask(&self, name: &str, arguments: &[&Path]) -> Result<String> {
        let output = process::output(self.program(name).args(arguments))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        ensure!(!said.contains("Traceback"), "{name} crashed\n{said}");
        ensure!(output.status.success() || !said.is_empty(), "{name} ended with {}", output.status);
        Ok(said.trim().to_owned())
    }

    fn program(&self, name: &str) -> Command {
        process::command(&self.programs.join(name).to_string_lossy(), &self.folder)
    }
}

/// Returns a file's name, including that of its folder.
fn name(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    Path::new(folder).join(path.file_name().unwrap_or_default()).display().to_string()
}

/// Returns dtschema's programs, in a Python virtual environment in the cache.
fn find_or_install(workspace: &Workspace) -> Result<PathBuf> {
    let root = cache::folder(workspace).join(format!("dtschema-{VERSION}"));
    cache::fill(&root, || {
        system::need_venv(&workspace.root)?;
        process::capture(
            process::command("python3", &workspace.root).args(["-m", "venv"]).arg(&root),
        )?;
        let pip = root.join("bin/pip");
        let mut pip = process::command(&pip.to_string_lossy(), &workspace.root);
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        process::capture(pip.arg(format!("dtschema=={VERSION}"))).map(drop)
    })?;
    Ok(root.join("bin"))
}

/// Returns the unpacked compiler that comes with QEMU, or `None` if the machine has its own.
fn find_compiler(workspace: &Workspace) -> Result<Option<Tools>> {
    if process::exists("dtc") {
        return Ok(None);
    }
    let fetched = dtb::fetch(workspace).into_iter().find(|(tree, _)| *tree == dtb::Tree::Qemu);
    fetched.map_or(Ok(()), |(_, fetched)| fetched)?;
    Ok(Some(Tools::of(workspace)))
}

/// Returns the files with this extension, sorted by name. A folder without matching files is an
/// error, because nothing would be checked.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    let paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let mut found: Vec<_> = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|own| own == extension))
        .collect();
    ensure!(!found.is_empty(), "no .{extension} files in {}", folder.display());
    found.sort();
    Ok(found)
}
