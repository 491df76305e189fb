//! Applies our patch of the kernel's GICv3 schema to that schema, and checks the result with
//! dtschema, which the kernel uses as well. The schema's own examples and ours must pass. Every
//! counter-example must cause the error that its first lines state, and no other. Our own lint must
//! accept and reject the same files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use doorbell_harness::dtb::Tools;
use doorbell_harness::suite::{Absent, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, process, schemas, system};
use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Finding, Severity, devicetree};

use crate::fetched;

/// The version that is installed into the cache. The wording of the error messages is stable within
/// a version.
const VERSION: &str = "2026.9";
const FOLDER: &str = "docs/bindings";
const EXAMPLES: &str = "examples";
const COUNTER_EXAMPLES: &str = "counter-examples";
/// The additions: the first patch of the series for the kernel.
const ADDITIONS: &str = "linux/built-in/0001-dt-bindings-direct-lpi.patch";
/// Prefix of the line in which a counter-example states its expected error.
const COMPLAINT: &str = "// Complaint: ";
/// The part of dtschema's output that occurs once in each error.
const SOURCE: &str = "from schema $id";
/// Part of a message that names no file: a value does not have its property's type. A message of
/// the schema follows.
const DECODED: &str = " error for type ";

pub(crate) fn cases() -> Result<Vec<Case>> {
    let folder = workspace::this()?.root.join(FOLDER);
    let mut cases = vec![
        case("extended schema", BindingJudge::accept_schema),
        case("examples of the extended schema", BindingJudge::accept_schema_examples),
        case("schema without the additions", BindingJudge::check_original),
    ];
    for example in files(&folder.join(EXAMPLES), "dts")? {
        cases.push(case(&name(&example), move |judge| {
            let blob = judge.blob(&example);
            let findings = lint(&blob)?;
            ensure!(findings.is_empty(), "our lint reports {findings:?}");
            judge.accept(&blob)
        }));
    }
    for example in files(&folder.join(COUNTER_EXAMPLES), "dts")? {
        cases.push(case(&name(&example), move |judge| judge.reject(&example)));
    }
    Ok(cases)
}

/// Returns a case that needs the tools and the kernel's schema.
fn case(name: &str, run: impl FnOnce(&BindingJudge) -> Result<()> + Send + 'static) -> Case {
    static JUDGE: Shared<BindingJudge> = Shared::new();
    Case::of(name, || run(JUDGE.get(|| BindingJudge::find(workspace::this()?))?))
}

/// The tools and their folders.
struct BindingJudge {
    /// Folder of Python's programs.
    programs: PathBuf,
    /// The devicetree compiler.
    compiler: &'static Tools,
    folder: PathBuf,
    /// Folder for compiled files.
    output: PathBuf,
    /// Folder of the kernel's schemas.
    original: PathBuf,
    /// Folder of the kernel's schemas, with the additions inserted.
    extended: PathBuf,
    /// The number of examples in each schema's text, and the devicetree that contains them all.
    original_examples: (usize, PathBuf),
    extended_examples: (usize, PathBuf),
    /// Messages of dtschema about all devicetrees, by the extended schemas. Each start of it reads
    /// all schemas.
    said: String,
}

impl BindingJudge {
    fn find(workspace: &Workspace) -> Result<Self> {
        let output = workspace.target.join("bindings");
        if output.exists() {
            fs::remove_dir_all(&output)?;
        }
        let original = output.join("a").join(schemas::FOLDER);
        let extended = output.join("b").join(schemas::FOLDER);
        let fetched = schemas::fetch(workspace).or_absent("the kernel's schemas")?;
        for folder in [&original, &extended] {
            fs::create_dir_all(folder)?;
            let mut copy = process::command("cp", &fetched.folder);
            process::capture(copy.args(["-r", "."]).arg(folder))?;
        }
        let folder = workspace.root.join(FOLDER);
        if !process::exists("patch") {
            return Err(Absent::new("patch is not installed on this machine").into());
        }
        let mut patch = process::command("patch", &output.join("b"));
        patch.args(["-s", "-p1", "-i"]).arg(workspace.root.join(ADDITIONS));
        process::capture(&mut patch)
            .with_context(|| format!("the additions do not fit {}", fetched.package))?;
        let mut judge = Self {
            programs: find_or_install(workspace).or_absent("dtschema")?,
            compiler: fetched::compiler().or_absent("the devicetree compiler")?,
            folder,
            output,
            original,
            extended,
            original_examples: (0, PathBuf::new()),
            extended_examples: (0, PathBuf::new()),
            said: String::new(),
        };
        judge.original_examples = judge.examples(&judge.original, "before")?;
        judge.extended_examples = judge.examples(&judge.extended, "after")?;
        let mut blobs = vec![judge.extended_examples.1.clone()];
        for folder in [EXAMPLES, COUNTER_EXAMPLES] {
            for source in files(&judge.folder.join(folder), "dts")? {
                judge.compile(&source, &judge.blob(&source))?;
                blobs.push(judge.blob(&source));
            }
        }
        judge.said = judge.validate(&judge.extended, &blobs)?;
        Ok(judge)
    }

    fn accept_schema(&self) -> Result<()> {
        let schema = self.extended.join(schemas::GIC_V3);
        let said = self.ask("dt-doc-validate", &[Path::new("-u"), &self.extended, &schema])?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    /// Checks the examples in the schema's text, one of which comes from the additions.
    fn accept_schema_examples(&self) -> Result<()> {
        let (before, (count, blob)) = (self.original_examples.0, &self.extended_examples);
        ensure!(*count == before + 1, "{count} examples, and {before} without the additions");
        self.accept(blob)
    }

    /// Checks that the schema's examples pass without the additions, and that our example does not.
    fn check_original(&self) -> Result<()> {
        let (count, blob) = &self.original_examples;
        ensure!(*count > 0, "the schema has no example");
        let ours = self.blob(Path::new("direct-lpi"));
        let said = self.validate(&self.original, &[blob.clone(), ours.clone()])?;
        ensure!(complaints(&said, blob).is_empty(), "{said}");
        ensure!(complaints(&said, &ours).contains("'arm,direct-lpi' do not match"), "{said}");
        Ok(())
    }

    /// Extracts the examples in the text of a folder's GICv3 schema. Returns their number and the
    /// compiled devicetree that contains them all.
    fn examples(&self, schemas: &Path, name: &str) -> Result<(usize, PathBuf)> {
        let mut extract = self.program("dt-extract-example");
        let text = process::capture(extract.arg(schemas.join(schemas::GIC_V3)))?;
        let source = self.output.join(name).with_extension("dts");
        fs::write(&source, &text)?;
        let blob = self.blob(&source);
        self.compile(&source, &blob)?;
        Ok((text.matches(" example-").count(), blob))
    }

    fn accept(&self, blob: &Path) -> Result<()> {
        let said = complaints(&self.said, blob);
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }

    fn reject(&self, example: &Path) -> Result<()> {
        let text = fs::read_to_string(example)?;
        let complaint = text.lines().find_map(|line| line.strip_prefix(COMPLAINT));
        let complaint = complaint.context("the counter-example does not state its complaint")?;
        let blob = self.blob(example);
        ensure!(!lint(&blob)?.is_empty(), "our lint accepts it");
        let said = complaints(&self.said, &blob);
        ensure!(said.contains(complaint), "expected \"{complaint}\", got \"{said}\"");
        ensure!(said.matches(SOURCE).count() == 1, "expected one error, got \"{said}\"");
        Ok(())
    }

    /// Returns dt-validate's error messages about devicetrees. The exit code of dt-validate is not
    /// meaningful.
    fn validate(&self, schemas: &Path, blobs: &[PathBuf]) -> Result<String> {
        let blobs = blobs.iter().map(PathBuf::as_path);
        let words: Vec<_> = [Path::new("-s"), schemas].into_iter().chain(blobs).collect();
        let said = self.ask("dt-validate", &words)?;
        let folder = self.output.display().to_string();
        let is_placed =
            |line: &str| is_continued(line) || line.starts_with(&folder) || line.contains(DECODED);
        ensure!(said.lines().all(is_placed), "{said}");
        let is_cut_off = said.lines().last().is_some_and(|line| line.contains(DECODED));
        ensure!(!is_cut_off, "no message follows a value that cannot be decoded: {said}");
        Ok(said)
    }

    /// Returns the file that a source is compiled into. Sources have unique names.
    fn blob(&self, source: &Path) -> PathBuf {
        self.output.join(source.file_stem().unwrap_or_default()).with_extension("dtb")
    }

    fn compile(&self, source: &Path, blob: &Path) -> Result<()> {
        let mut compiler = self.compiler.command("dtc");
        compiler.args(["-q", "-I", "dts", "-O", "dtb", "-o"]).args([blob, source]);
        process::capture(&mut compiler).map(drop)
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

/// Returns the messages about a devicetree.
fn complaints(said: &str, blob: &Path) -> String {
    let start = format!("{}:", blob.display());
    let mut is_meant = false;
    let lines = said.lines().filter(|line| {
        is_meant = line.starts_with(&start) || is_meant && is_continued(line);
        is_meant
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns `true` for a line that continues the message of the line before.
fn is_continued(line: &str) -> bool {
    line.starts_with(char::is_whitespace)
}

/// Returns the warnings and errors that our own lint reports for a devicetree.
fn lint(blob: &Path) -> Result<Vec<Finding>> {
    let description = devicetree::parse(&fs::read(blob)?)?;
    let mut findings = check(&description, &KnownRegisters::default());
    findings.retain(|finding| finding.rule.severity() != Severity::Note);
    Ok(findings)
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
