//! Sources of descriptions: devicetrees and their sources, ACPI tables, and embedded machines.

use crate::asl::{self, AslTables};
use crate::dts::{self, Compilation};
use anyhow::{Context, Result, bail};
use doorbell_inspection::{
    Locate, MAX_BYTES, Source, is_blob, is_devicetree_source, is_stdin, is_table_source,
};
use doorbell_machine::embedded;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The blob of a devicetree, and the text from which it was compiled.
type Compiled = (Vec<u8>, Option<Box<dyn Locate>>);

/// Lower-case names of the tables to read, as used by Linux and `acpixtract`.
const TABLES: [&str; 4] = ["apic", "iort", "mcfg", "facp"];
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
/// standard input if the path is `-`. Reads the source of an ACPI table with the other tables of
/// its folder.
pub(crate) fn file(path: &Path, how: Compilation<'_>) -> Result<Source> {
    if is_table_source(path) {
        if !is_named(path, &TABLES) {
            bail!("{}: name the source after its table: {}", path.display(), TABLES.join(", "));
        }
        // Reports a missing file by its name.
        read(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let own = stem(path);
        // The named source takes precedence over another of the same table.
        return machine(path, folder, |other| {
            is_table_source(other) && (stem(other) != own || other.file_name() == path.file_name())
        });
    }
    let name = if is_stdin(path) { "stdin".into() } else { path.display().to_string() };
    let bytes = if is_stdin(path) { limited(io::stdin(), &name)? } else { read(path)? };
    if !is_devicetree_source(path, &bytes)
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
    if !is_devicetree_source(path, &bytes) {
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
/// may be in any case, and may have the extension `dat`, `aml` or `bin`, or none. The source of a
/// table (`asl` or `dsl`) is compiled if the table itself is absent.
pub(crate) fn acpi(folder: &Path) -> Result<Source> {
    machine(folder, folder, |path| !is_table_source(path))
}

/// Reads the tables in a folder as the source `named`. If a table has several files, reads those
/// that are preferred.
fn machine(named: &Path, folder: &Path, is_preferred: impl Fn(&Path) -> bool) -> Result<Source> {
    let name = named.display().to_string();
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    let (mut files, mut topology) = (Vec::new(), None);
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
        if is_named(&path, &TOPOLOGY) && !is_table_source(&path) {
            topology = Some(path);
        } else if is_named(&path, &TABLES) {
            files.push(path);
        }
    }
    files.sort();
    let preferred = files.iter().filter(|path| is_preferred(path)).filter_map(|path| stem(path));
    let preferred: BTreeSet<String> = preferred.collect();
    files.retain(|path| {
        is_preferred(path) || stem(path).is_none_or(|stem| !preferred.contains(&stem))
    });
    let sources = files.iter().filter(|path| is_table_source(path));
    let of_one_table = sources.clone().zip(sources.skip(1)).find(|(a, b)| stem(a) == stem(b));
    if let Some((one, other)) = of_one_table {
        bail!("{} and {} are sources of one table", one.display(), other.display());
    }
    let (mut blobs, mut sources) = (Vec::new(), Vec::new());
    for path in &files {
        let bytes = read(path)?;
        if is_table_source(path) {
            let table = asl::compile(path, &bytes)?;
            blobs.push(table.blob.clone());
            sources.push(table);
        } else {
            blobs.push(bytes);
        }
    }
    let topology = topology.and_then(|path| read(&path).ok());
    blobs.extend(topology.filter(|blob| blob.starts_with(PPTT)));
    let positions = (!sources.is_empty()).then(|| AslTables { sources, blobs: blobs.clone() });
    let mut source = Source::tables(name, blobs)?;
    source.positions = positions.map(|positions| Box::new(positions) as Box<dyn Locate>);
    Ok(source)
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
    let name = machine.name;
    let description =
        machine.firmware.describe().with_context(|| format!("{name} has faulty firmware"))?;
    Ok(Source::embedded(name, description))
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
    let extensions = ["dat", "aml", "bin"];
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    let is_table = |extension: OsString| extensions.iter().any(|known| extension == *known);
    stem(path).is_some_and(|stem| tables.contains(&stem.as_str()))
        && (extension.is_none_or(is_table) || is_table_source(path))
}

/// Returns the file's name without its extension, in lower case.
fn stem(path: &Path) -> Option<String> {
    path.file_stem()?.to_str().map(str::to_lowercase)
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
