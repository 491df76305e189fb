//! Descriptions with the bytes and texts from which they were read.

use crate::dump;
use crate::location::{Locate, Location};
use crate::overlaid::Overlays;
use anyhow::{Context, Result, bail};
use gic_firmware::acpi::{Table, TableSet};
use gic_firmware::lint::KnownRegisters;
use gic_firmware::{Description, Finding, NodeId, Origin, acpi, devicetree};
use std::collections::BTreeMap;
use std::path::Path;

/// Maximum file size in bytes. Kernels have a lower limit, which is 2 MiB in the arm64 boot
/// protocol.
pub const MAX_BYTES: u64 = 16 << 20;
/// Lower-case names of the tables of a machine, including the one that is read only for pictures.
const TABLES: [&str; 5] = ["apic", "iort", "mcfg", "facp", "pptt"];
/// Signature of the table that states which CPUs belong together. It is read only for pictures, so
/// a defect in it affects no other output.
const PPTT: &[u8] = b"PPTT";
/// Statement that begins each devicetree source.
const VERSION_TAG: &str = "/dts-v1/";

/// A description and its name.
#[derive(Debug)]
pub struct Source {
    /// Path of the file or folder, or the embedded machine's name.
    pub name: String,
    /// The description itself.
    pub description: Description,
    /// The bytes from which the description was read.
    pub raw: Raw,
    /// Positions in the text, if the description was compiled from text.
    pub positions: Option<Box<dyn Locate>>,
    /// Overlays that were applied to the devicetree.
    pub overlays: Option<Overlays>,
}

/// The sockets and clusters that contain each CPU, outermost first.
pub type CpuClusters = BTreeMap<NodeId, Vec<String>>;

/// A description's bytes.
#[derive(Debug)]
pub enum Raw {
    /// A devicetree.
    Devicetree(Vec<u8>),
    /// ACPI tables.
    Tables(Vec<Vec<u8>>),
    /// No bytes, because the machine is embedded.
    Embedded,
}

impl Source {
    /// Returns a description that was not read from firmware.
    pub fn embedded(name: &str, description: Description) -> Self {
        let name = name.to_owned();
        Self { name, description, raw: Raw::Embedded, positions: None, overlays: None }
    }

    /// Reads a flattened devicetree.
    pub fn devicetree(
        name: String,
        blob: Vec<u8>,
        positions: Option<Box<dyn Locate>>,
    ) -> Result<Self> {
        let description = devicetree::parse_and_check(&blob)
            .with_context(|| format!("{name} is not a flattened devicetree"))?;
        Ok(Self { name, description, raw: Raw::Devicetree(blob), positions, overlays: None })
    }

    /// Reads a dump of ACPI tables: the text of `acpidump`, or tables one after the other. Returns
    /// `None` if the bytes are no dump.
    pub fn dump(name: &str, bytes: &[u8]) -> Result<Option<Self>> {
        let tables = Self::dumped(name, bytes)?;
        tables.map(|tables| Self::tables(name.to_owned(), tables)).transpose()
    }

    /// Returns the tables of a dump that describe a machine; `None` if the bytes are no dump.
    pub fn dumped(name: &str, bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        dump::tables(bytes, &TABLES).with_context(|| format!("{name} is an incomplete dump"))
    }

    /// Reads a machine's ACPI tables.
    pub fn tables(name: String, blobs: Vec<Vec<u8>>) -> Result<Self> {
        // A defect of the topology affects no other output.
        let described = blobs.iter().filter(|blob| !blob.starts_with(PPTT));
        let tables = TableSet::from_blobs(described.map(Vec::as_slice))
            .with_context(|| format!("{name} does not contain a machine's ACPI tables"))?;
        let description = acpi::parse(&tables);
        Ok(Self { name, description, raw: Raw::Tables(blobs), positions: None, overlays: None })
    }

    /// Applies an overlay to a devicetree, after those that were applied before.
    pub fn apply(
        &mut self,
        name: &str,
        overlay: &[u8],
        positions: Option<Box<dyn Locate>>,
    ) -> Result<()> {
        let Raw::Devicetree(blob) = &self.raw else {
            bail!("{} is not a devicetree, so overlays cannot be applied to it", self.name);
        };
        let mut applied = match self.overlays.take() {
            Some(applied) => applied,
            None => Overlays::new(blob)?,
        };
        let before = std::mem::take(&mut self.description);
        let blob = applied.apply(name, overlay, positions, before)?;
        self.description = devicetree::parse_and_check(&blob)
            .with_context(|| format!("{name} makes the devicetree unreadable"))?;
        self.raw = Raw::Devicetree(blob);
        self.name = format!("{} + {name}", self.name);
        self.overlays = Some(applied);
        Ok(())
    }

    /// Returns the text that sets a property or node; `None` if the description was not compiled.
    pub fn locate(&self, origin: &Origin) -> Option<Location> {
        match &self.overlays {
            Some(overlays) => overlays.locate(origin, self.positions.as_deref()),
            None => self.positions.as_ref()?.locate(origin.place()?, origin.item()),
        }
    }

    /// Returns the overlay that brought each finding.
    pub fn brought(&self, findings: &[Finding], known: &KnownRegisters) -> Vec<Option<String>> {
        let brought = self.overlays.as_ref().map(|overlays| overlays.brought(findings, known));
        let brought = brought.unwrap_or_else(|| vec![None; findings.len()]);
        brought.into_iter().map(|name| name.map(str::to_owned)).collect()
    }

    /// Returns the sockets and clusters of the CPUs, to the extent that firmware states them.
    pub fn cpu_clusters(&self) -> CpuClusters {
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
}

/// Returns `true` if the path means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns `true` if the file is named like the source of an ACPI table.
pub fn is_table_source(path: &Path) -> bool {
    path.extension()
        .is_some_and(|end| ["asl", "dsl"].iter().any(|source| end.eq_ignore_ascii_case(source)))
}

/// Returns `true` if the bytes are the source of a devicetree.
pub fn is_devicetree_source(path: &Path, bytes: &[u8]) -> bool {
    let is_named = path.extension().is_some_and(|end| end == "dts" || end == "dtso");
    let tag = VERSION_TAG.as_bytes();
    !is_blob(bytes) && (is_named || bytes.windows(tag.len()).any(|window| window == tag))
}

/// Returns `true` if the bytes start like a flattened devicetree.
pub fn is_blob(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xd0, 0x0d, 0xfe, 0xed])
}
