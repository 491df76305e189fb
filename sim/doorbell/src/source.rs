//! Sources of descriptions: devicetrees and their sources, ACPI tables, and embedded machines.

use crate::dts::{self, Compilation};
use crate::input::{MAX_BYTES, is_stdin};
use anyhow::{Context, Result, bail};
use doorbell_inspection::{Locate, Raw, Source, is_blob, is_source};
use doorbell_machine::embedded;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The blob of a devicetree, and the text from which it was compiled.
type Compiled = (Vec<u8>, Option<Box<dyn Locate>>);

/// Lower-case names of the tables to read, as used by Linux and `acpixtract`.
const TABLES: [&str; 3] = ["apic", "iort", "mcfg"];
/// Name of the table that states which CPUs belong together. It is read only for pictures, so a
/// defect in it affects no other output.
const TOPOLOGY: [&str; 1] = ["pptt"];
/// Signature of that table.
const PPTT: &[u8] = b"PPTT";
/// Path where Linux exposes the running machine's ACPI tables.
const RUNNING_ACPI: &str = "/sys/firmware/acpi/tables";
/// Path where Linux exposes the running machine's devicetree.
const RUNNING_DTB: &str = "/sys/firmware/fdt";

/// Reads a devicetree, its source or a dump if the path is a file, or ACPI tables if it is a
/// folder.
pub(crate) fn at(path: &Path, how: Compilation<'_>) -> Result<Source> {
    if path.is_dir() { acpi(path) } else { file(path, how) }
}

/// Reads the running machine's firmware: its ACPI tables if they include a MADT, otherwise its
/// devicetree.
///
/// # Errors
/// Returns an error if the firmware cannot be read or describes no GIC, as on an x86 machine.
pub(crate) fn running() -> Result<Source> {
    let source = of_running_machine()?;
    if source.description.gic.is_none() {
        bail!("the firmware of the running machine ({}) describes no GIC", source.name);
    }
    Ok(source)
}

fn of_running_machine() -> Result<Source> {
    let folder = Path::new(RUNNING_ACPI);
    if folder.join("APIC").exists() {
        return acpi(folder);
    }
    let dtb = Path::new(RUNNING_DTB);
    if !dtb.exists() {
        bail!(
            "Linux does not expose firmware of this machine: neither {RUNNING_ACPI}/APIC nor \
             {RUNNING_DTB} exists"
        );
    }
    file(dtb, Compilation::default())
}

/// Reads a flattened devicetree, its source, or a dump of ACPI tables from a file, or from
/// standard input if the path is `-`.
pub(crate) fn file(path: &Path, how: Compilation<'_>) -> Result<Source> {
    let name = if is_stdin(path) { "stdin".into() } else { path.display().to_string() };
    let bytes = if is_stdin(path) { limited(io::stdin(), &name)? } else { read(path)? };
    if !is_source(path, &bytes)
        && !is_blob(&bytes)
        && let Some(source) = Source::dump(&name, &bytes)?
    {
        return Ok(source);
    }
    let (blob, positions) = compiled(path, bytes, how)?;
    Source::devicetree(name, blob, positions)
}

/// Returns the blob of a devicetree, and compiles it if it is a source.
fn compiled(path: &Path, bytes: Vec<u8>, how: Compilation<'_>) -> Result<Compiled> {
    if !is_source(path, &bytes) {
        return Ok((bytes, None));
    }
    let compiled = dts::compile(path, &bytes, how);
    let compiled = compiled.with_context(|| format!("cannot compile {}", path.display()));
    let (blob, positions) = compiled?;
    Ok((blob, Some(Box::new(positions))))
}

/// Reads a devicetree, and applies overlays in their order.
pub(crate) fn overlaid(base: &Path, overlays: &[PathBuf], how: Compilation<'_>) -> Result<Source> {
    let how = Compilation { with_symbols: true, ..how };
    let mut source = file(base, how)?;
    for path in overlays {
        let (overlay, positions) = compiled(path, read(path)?, how)?;
        source.apply(&path.display().to_string(), &overlay, positions)?;
    }
    source.name = overlaid_name(base, overlays);
    Ok(source)
}

/// Reads a machine's ACPI tables (`APIC`, `IORT` and `MCFG`) from files in a folder. The names
/// may be in any case, and may have the extension `dat`, `aml` or `bin`, or none.
pub(crate) fn acpi(folder: &Path) -> Result<Source> {
    let name = folder.display().to_string();
    let entries = folder.read_dir().with_context(|| format!("cannot read {name}"))?;
    let (mut files, mut topology) = (Vec::new(), None);
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {name}"))?.path();
        if is_named(&path, &TOPOLOGY) {
            topology = Some(path);
        } else if is_named(&path, &TABLES) {
            files.push(path);
        }
    }
    files.sort();
    let mut blobs = files.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let topology = topology.and_then(|path| read(&path).ok());
    blobs.extend(topology.filter(|blob| blob.starts_with(PPTT)));
    Source::tables(name, blobs)
}

/// Reads an embedded machine. If `name` is `None`, reads the first machine.
pub(crate) fn embedded(name: Option<&str>) -> Result<Source> {
    let machines = embedded::machines();
    let Some(machine) =
        machines.iter().find(|machine| name.is_none_or(|name| name == machine.name))
    else {
        let known: Vec<&str> = machines.iter().map(|machine| machine.name).collect();
        bail!(
            "no embedded machine is named {:?}; available machines: {}",
            name.unwrap_or_default(),
            known.join(", ")
        );
    };
    let name = machine.name.to_owned();
    let description =
        machine.firmware.describe().with_context(|| format!("{name} has faulty firmware"))?;
    Ok(Source { name, description, raw: Raw::Embedded, positions: None, overlays: None })
}

/// Returns the name of a devicetree with overlays.
pub(crate) fn overlaid_name(base: &Path, overlays: &[PathBuf]) -> String {
    let paths = std::iter::once(base).chain(overlays.iter().map(PathBuf::as_path));
    paths.map(|path| path.display().to_string()).collect::<Vec<_>>().join(" + ")
}

/// Returns `true` if a folder contains a MADT, and thus the ACPI tables of a machine.
pub(crate) fn holds_tables(folder: &Path) -> bool {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let mut tables = entries.map(|entry| entry.path()).filter(|path| is_named(path, &TABLES));
    tables.any(|path| path.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case("apic")))
}

/// Returns `true` if the file is named like one of `tables`.
fn is_named(path: &Path, tables: &[&str]) -> bool {
    let lower =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_lowercase);
    let stem = lower(path.file_stem());
    let is_named = stem.is_some_and(|stem| tables.contains(&stem.as_str()));
    let extension = lower(path.extension());
    is_named
        && extension.is_none_or(|extension| ["dat", "aml", "bin"].contains(&extension.as_str()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    limited(file, &name)
}

fn limited(input: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut blob = Vec::new();
    let read = input.take(MAX_BYTES + 1).read_to_end(&mut blob);
    let length = read.with_context(|| format!("cannot read {name}"))?;
    if length as u64 > MAX_BYTES {
        bail!("{name} is larger than {} MiB, the limit for a description", MAX_BYTES >> 20);
    }
    Ok(blob)
}
