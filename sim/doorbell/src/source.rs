//! Sources of descriptions: devicetrees and their sources, ACPI tables, and embedded machines.

use crate::dts::{self, Compilation, Location, Positions};
use crate::dump;
use crate::input::{MAX_BYTES, is_stdin};
use crate::overlaid::{self, Overlays};
use anyhow::{Context, Result, bail};
use doorbell_machine::embedded;
use gic_firmware::acpi::{Table, TableSet};
use gic_firmware::{Description, NodeId, Origin, acpi, devicetree};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

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

/// A description and its name.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path of the file or folder, or the embedded machine's name.
    pub(crate) name: String,
    /// The description itself.
    pub(crate) description: Description,
    /// The bytes from which the description was read.
    pub(crate) raw: Raw,
    /// Positions in the text, if the description was compiled from text.
    pub(crate) positions: Option<Positions>,
    /// Overlays that were applied to the devicetree.
    pub(crate) overlays: Option<Overlays>,
}

/// The sockets and clusters that contain each CPU, outermost first.
pub(crate) type CpuClusters = BTreeMap<NodeId, Vec<String>>;

/// A description's bytes.
#[derive(Debug)]
pub(crate) enum Raw {
    /// A devicetree.
    Devicetree(Vec<u8>),
    /// ACPI tables.
    Tables(Vec<Vec<u8>>),
    /// No bytes, because the machine is embedded.
    Embedded,
}

impl Source {
    /// Reads a devicetree, its source or a dump if the path is a file, or ACPI tables if it is a
    /// folder.
    pub(crate) fn at(path: &Path, how: Compilation<'_>) -> Result<Self> {
        if path.is_dir() { Self::acpi(path) } else { Self::file(path, how) }
    }

    /// Reads the running machine's firmware: its ACPI tables if they include a MADT, otherwise its
    /// devicetree.
    ///
    /// # Errors
    /// Returns an error if the firmware cannot be read or describes no GIC, as on an x86 machine.
    pub(crate) fn running() -> Result<Self> {
        let source = Self::of_running_machine()?;
        if source.description.gic.is_none() {
            bail!("the firmware of the running machine ({}) describes no GIC", source.name);
        }
        Ok(source)
    }

    fn of_running_machine() -> Result<Self> {
        let folder = Path::new(RUNNING_ACPI);
        if folder.join("APIC").exists() {
            return Self::acpi(folder);
        }
        let dtb = Path::new(RUNNING_DTB);
        if !dtb.exists() {
            bail!(
                "Linux does not expose firmware of this machine: neither {RUNNING_ACPI}/APIC nor \
                 {RUNNING_DTB} exists"
            );
        }
        Self::file(dtb, Compilation::default())
    }

    /// Reads a flattened devicetree, its source, or a dump of ACPI tables from a file, or from
    /// standard input if the path is `-`.
    pub(crate) fn file(path: &Path, how: Compilation<'_>) -> Result<Self> {
        let name = if is_stdin(path) { "stdin".into() } else { path.display().to_string() };
        let bytes = if is_stdin(path) { limited(io::stdin(), &name)? } else { read(path)? };
        if !dts::is_source(path, &bytes) && !dts::is_blob(&bytes) {
            let wanted = [&TABLES[..], &TOPOLOGY].concat();
            let tables = dump::tables(&bytes, &wanted);
            let tables = tables.with_context(|| format!("{name} is an incomplete dump"))?;
            if let Some(tables) = tables {
                return Self::tables(name, tables);
            }
        }
        let (blob, positions) = Self::compiled(path, bytes, how)?;
        let description = devicetree::parse(&blob)
            .with_context(|| format!("{name} is not a flattened devicetree"))?;
        let raw = Raw::Devicetree(blob);
        Ok(Self { name, description, raw, positions, overlays: None })
    }

    /// Returns the blob of a devicetree, and compiles it if it is a source.
    fn compiled(
        path: &Path,
        bytes: Vec<u8>,
        how: Compilation<'_>,
    ) -> Result<(Vec<u8>, Option<Positions>)> {
        if !dts::is_source(path, &bytes) {
            return Ok((bytes, None));
        }
        let compiled = dts::compile(path, &bytes, how);
        let compiled = compiled.with_context(|| format!("cannot compile {}", path.display()));
        compiled.map(|(blob, positions)| (blob, Some(positions)))
    }

    /// Reads a devicetree, and applies overlays in their order.
    pub(crate) fn overlaid(
        base: &Path,
        overlays: &[PathBuf],
        how: Compilation<'_>,
    ) -> Result<Self> {
        let how = Compilation { with_symbols: true, ..how };
        let mut source = Self::file(base, how)?;
        let Raw::Devicetree(blob) = &source.raw else {
            bail!("{} is not a devicetree, so overlays cannot be applied to it", source.name);
        };
        let mut applied = Overlays::new(blob)?;
        for path in overlays {
            let (overlay, positions) = Self::compiled(path, read(path)?, how)?;
            let name = path.display().to_string();
            let blob = applied.apply(&name, &overlay, positions, source.description)?;
            source.description = devicetree::parse(&blob)
                .with_context(|| format!("{name} makes the devicetree unreadable"))?;
            source.raw = Raw::Devicetree(blob);
        }
        source.name = overlaid::name(base, overlays);
        source.overlays = Some(applied);
        Ok(source)
    }

    /// Returns the text that sets a property or node; `None` if the description was not compiled.
    pub(crate) fn locate(&self, origin: &Origin) -> Option<Location> {
        match &self.overlays {
            Some(overlays) => overlays.locate(origin, self.positions.as_ref()),
            None => self.positions.as_ref()?.locate(origin.place()?, origin.item()),
        }
    }

    /// Reads a machine's ACPI tables (`APIC`, `IORT` and `MCFG`) from files in a folder. The names
    /// may be in any case, and may have the extension `dat`, `aml` or `bin`, or none.
    pub(crate) fn acpi(folder: &Path) -> Result<Self> {
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
        Self::tables(name, blobs)
    }

    /// Reads a machine's ACPI tables.
    fn tables(name: String, blobs: Vec<Vec<u8>>) -> Result<Self> {
        // A defect of the topology affects no other output.
        let described = blobs.iter().filter(|blob| !blob.starts_with(PPTT));
        let tables = TableSet::from_blobs(described.map(Vec::as_slice))
            .with_context(|| format!("{name} does not contain a machine's ACPI tables"))?;
        let description = acpi::parse(&tables);
        Ok(Self { name, description, raw: Raw::Tables(blobs), positions: None, overlays: None })
    }

    /// Returns the sockets and clusters of the CPUs, to the extent that firmware states them.
    pub(crate) fn cpu_clusters(&self) -> CpuClusters {
        match &self.raw {
            Raw::Devicetree(blob) => devicetree::cpu_clusters(blob).unwrap_or_default(),
            Raw::Tables(blobs) => {
                let tables = blobs.iter().filter_map(|blob| Table::new(blob).ok());
                let mut clusters = tables.filter_map(|table| acpi::cpu_clusters(table).ok());
                clusters.next().unwrap_or_default()
            }
            Raw::Embedded => CpuClusters::new(),
        }
    }

    /// Reads an embedded machine. If `name` is `None`, reads the first machine.
    pub(crate) fn embedded(name: Option<&str>) -> Result<Self> {
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
        Ok(Self { name, description, raw: Raw::Embedded, positions: None, overlays: None })
    }
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
