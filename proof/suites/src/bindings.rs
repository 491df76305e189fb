//! Inserts our additions to the kernel's GICv3 schema into that schema, and checks the result with
//! dtschema, which the kernel uses as well. The schema's own examples and ours must pass. Every
//! counter-example must cause the error that its first lines state, and no other. Our own lint must
//! accept and reject the same files.

mod insertion;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use doorbell_harness::dtb::{self, Tools};
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, process, schemas, system};
use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Finding, Severity, devicetree};

/// The version that is installed into the cache. The wording of the error messages is stable within
/// a version.
const VERSION: &str = "2026.9";
const FOLDER: &str = "docs/bindings";
const ADDITIONS: &str = "arm,gic-v3-additions.yaml";
/// The additions in the series of patches for the kernel.
const IN_SERIES: &str = "linux/built-in/0001-dt-bindings-direct-lpi.patch";
/// The patch that the additions make.
const PATCH: &str = "arm,gic-v3.patch";
/// Prefix of the line in which a counter-example states its expected error.
const COMPLAINT: &str = "// Complaint: ";
/// The part of dtschema's output that occurs once in each error.
const SOURCE: &str = "from schema $id";

pub(crate) fn cases() -> Result<Vec<Case>> {
    let folder = workspace::this()?.root.join(FOLDER);
    let mut cases = vec![
        case("extended schema", Judge::accept_schema),
        case("examples of the extended schema", Judge::accept_schema_examples),
        case("schema without the additions", Judge::check_original),
        case("patch in the kernel's series", Judge::compare_patch),
    ];
    for example in files(&folder.join("examples"), "dts")? {
        cases.push(case(&name(&example), move |judge| {
            let blob = judge.compile(&example)?;
            let findings = lint(&blob)?;
            ensure!(findings.is_empty(), "our lint reports {findings:?}");
            judge.accept(&judge.extended, &blob)
        }));
    }
    for example in files(&folder.join("counter-examples"), "dts")? {
        cases.push(case(&name(&example), move |judge| judge.reject(&example)));
    }
    Ok(cases)
}

/// Returns a case that needs the tools and the kernel's schema.
fn case(name: &str, run: impl FnOnce(&Judge) -> Result<()> + Send + 'static) -> Case {
    static JUDGE: Shared<Judge> = Shared::new();
    crate::case(name, || run(JUDGE.get(|| Judge::find(workspace::this()?))?))
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
    /// Folder of the kernel's schemas.
    original: PathBuf,
    /// Folder of the kernel's schemas, with the additions inserted.
    extended: PathBuf,
}

impl Judge {
    fn find(workspace: &Workspace) -> Result<Self> {
        let output = workspace.target.join("bindings");
        if output.exists() {
            fs::remove_dir_all(&output)?;
        }
        let original = output.join("a").join(schemas::FOLDER);
        let extended = output.join("b").join(schemas::FOLDER);
        let fetched = schemas::fetch(workspace).or_absent("the kernel's schemas")?;
        for folder in [&original, &extended] {
            copy(&fetched.folder, folder)?;
        }
        let folder = workspace.root.join(FOLDER);
        let schema = extended.join(schemas::GIC_V3);
        let additions = fs::read_to_string(folder.join(ADDITIONS))?;
        let text = insertion::insert(&fs::read_to_string(&schema)?, &additions)
            .with_context(|| format!("the additions do not fit {}", fetched.package))?;
        fs::write(schema, text)?;
        fs::write(output.join(PATCH), patch(&output)?)?;
        Ok(Self {
            programs: find_or_install(workspace).or_absent("dtschema")?,
            unpacked: find_compiler(workspace).or_absent("the devicetree compiler")?,
            folder,
            output,
            original,
            extended,
        })
    }

    fn accept_schema(&self) -> Result<()> {
        let schema = self.extended.join(schemas::GIC_V3);
        let said = self.ask("dt-doc-validate", &[Path::new("-u"), &self.extended, &schema])?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    /// Checks the examples in the schema's text, one of which comes from the additions.
    fn accept_schema_examples(&self) -> Result<()> {
        let (before, _) = self.examples(&self.original, "before")?;
        let (count, blob) = self.examples(&self.extended, "after")?;
        ensure!(count == before + 1, "{count} examples, and {before} without the additions");
        self.accept(&self.extended, &blob)
    }

    /// Checks that the schema's examples pass without the additions, and that our example does not.
    fn check_original(&self) -> Result<()> {
        let (count, blob) = self.examples(&self.original, "alone")?;
        ensure!(count > 0, "the schema has no example");
        self.accept(&self.original, &blob)?;
        let ours = self.folder.join("examples/direct-lpi.dts");
        let said = self.complaints(&self.original, &self.compile_as(&ours, "unknown")?)?;
        ensure!(said.contains("'arm,direct-lpi' do not match"), "{said}");
        Ok(())
    }

    /// Checks that the series for the kernel changes the schema in the same way. The schema in its
    /// kernel may have other lines beside the changes.
    fn compare_patch(&self) -> Result<()> {
        let in_series = workspace::this()?.root.join(IN_SERIES);
        let [ours, theirs] = [self.output.join(PATCH), in_series].map(|file| {
            let text = fs::read_to_string(&file);
            text.map(|text| changes(&text)).with_context(|| format!("no {}", file.display()))
        });
        let (ours, theirs) = (ours?, theirs?);
        ensure!(!ours.is_empty(), "the additions change nothing");
        let differ = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
        ensure!(
            ours == theirs,
            "{IN_SERIES} differs from {FOLDER} (copy target/bindings/{PATCH}): {differ:#?}"
        );
        Ok(())
    }

    /// Extracts the examples in the text of a folder's GICv3 schema. Returns their number and the
    /// compiled devicetree that contains them all.
    fn examples(&self, schemas: &Path, name: &str) -> Result<(usize, PathBuf)> {
        let mut extract = self.program("dt-extract-example");
        let text = process::capture(extract.arg(schemas.join(schemas::GIC_V3)))?;
        let source = self.output.join(name).with_extension("dts");
        fs::write(&source, &text)?;
        Ok((text.matches(" example-").count(), self.compile(&source)?))
    }

    fn accept(&self, schemas: &Path, blob: &Path) -> Result<()> {
        let said = self.complaints(schemas, blob)?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    fn reject(&self, example: &Path) -> Result<()> {
        let text = fs::read_to_string(example)?;
        let complaint = text.lines().find_map(|line| line.strip_prefix(COMPLAINT));
        let complaint = complaint.context("the counter-example does not state its complaint")?;
        let blob = self.compile(example)?;
        ensure!(!lint(&blob)?.is_empty(), "our lint accepts it");
        let said = self.complaints(&self.extended, &blob)?;
        ensure!(said.contains(complaint), "expected \"{complaint}\", got \"{said}\"");
        ensure!(said.matches(SOURCE).count() == 1, "expected one error, got \"{said}\"");
        Ok(())
    }

    /// Returns dt-validate's error messages about a devicetree. The exit code of dt-validate is not
    /// meaningful.
    fn complaints(&self, schemas: &Path, blob: &Path) -> Result<String> {
        self.ask("dt-validate", &[Path::new("-s"), schemas, blob])
    }

    fn compile(&self, source: &Path) -> Result<PathBuf> {
        self.compile_as(source, &source.file_stem().unwrap_or_default().to_string_lossy())
    }

    /// Compiles a source into a file of this name. The name must be unique, because cases run in
    /// parallel.
    fn compile_as(&self, source: &Path, name: &str) -> Result<PathBuf> {
        let blob = self.output.join(name).with_extension("dtb");
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
        process::unpacked(&self.programs.join(name).to_string_lossy(), &self.folder)
    }
}

/// Returns the warnings and errors that our own lint reports for a devicetree.
fn lint(blob: &Path) -> Result<Vec<Finding>> {
    let description = devicetree::parse(&fs::read(blob)?)?;
    let mut findings = check(&description, &KnownRegisters::default());
    findings.retain(|finding| finding.rule.severity() != Severity::Note);
    Ok(findings)
}

/// Returns the lines that a patch adds and removes.
fn changes(patch: &str) -> Vec<String> {
    let hunks = patch.lines().skip_while(|line| !line.starts_with("@@"));
    hunks.filter(|line| line.starts_with(['+', '-'])).map(str::to_owned).collect()
}

/// Copies a folder of schemas.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in cache::files_below(from)? {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().unwrap_or(to))?;
        fs::copy(&file, copy)?;
    }
    Ok(())
}

/// Returns the difference between the folders `a` and `b` in `output` as a patch.
fn patch(output: &Path) -> Result<Vec<u8>> {
    let mut git = process::command("git", output);
    git.args(["diff", "--no-index", "--no-prefix", "--no-color", "--no-ext-diff", "a", "b"]);
    let patch = process::output(&mut git)?.stdout;
    ensure!(!patch.is_empty(), "the additions do not change the schema");
    Ok(patch)
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
