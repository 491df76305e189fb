//! Writes an IORT as text: source for `iasl`, or the bytes as `acpidump` prints them.

use super::madt::Extensions;
use super::numbering::{WriteError, WriteErrorKind};
use crate::acpi::fields::{
    Field, named_component, node_head, node_start, pmcg, root_complex, smmu_v3,
};
use crate::acpi::iort::{IdMapping, Iort, IortNode, NodeKind};
use crate::acpi::table::Table;
use crate::description::Description;
use crate::finding::NodeId;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// Writes the IORT of `description` as source for `iasl`; returns `None` if no IORT is needed. The
/// IORT refers to ITSes by their numbers in the MADT that [`write`](super::write) returns.
///
/// `iasl` compiles no node whose type it does not know. A table with the draft node of
/// [`extensions`](Extensions) is therefore written as `acpidump` prints it, which `acpixtract`
/// converts.
///
/// # Errors
///
/// Returns an error if `description` cannot be expressed in these tables. The caller is at fault.
pub fn iort_source(
    description: &Description,
    extensions: Extensions,
) -> Result<Option<String>, WriteError> {
    let Some(blob) = super::write_with(description, extensions)?.iort else { return Ok(None) };
    if extensions.draft_redistributor_group {
        return Ok(Some(dump(&blob)));
    }
    source(&blob).map(Some).ok_or_else(|| WriteErrorKind::TooLong.of(&NodeId::new("IORT")))
}

/// Returns a table's bytes as `acpidump` prints them. `acpixtract` requires the column of
/// characters and the empty line.
fn dump(blob: &[u8]) -> String {
    let mut text = String::from("IORT @ 0x0000000000000000\n");
    for (row, bytes) in blob.chunks(16).enumerate() {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let shown = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        let (hex, shown) = (hex.join(" "), bytes.iter().map(shown).collect::<String>());
        let _ = writeln!(text, "    {:04X}: {hex:<47}  {shown}", row * 16);
    }
    text + "\n"
}

/// Returns the source of a table that this crate wrote; only the node revisions that the writer
/// uses are supported.
fn source(blob: &[u8]) -> Option<String> {
    let table = Table::new(blob).ok()?;
    let iort = Iort::new(table).ok()?;
    let mut source = Source(String::new());
    source.text("Signature", "IORT");
    source.number("Table Length", 0, 4);
    source.number("Revision", table.revision().into(), 1);
    source.number("Checksum", 0, 1);
    source.text("Oem ID", table.oem_id());
    source.text("Oem Table ID", table.oem_table_id());
    source.number("Oem Revision", 1, 4);
    source.text("Asl Compiler ID", "INTL");
    source.number("Asl Compiler Revision", 0, 4);
    source.number("Node Count", iort.stated_nodes().into(), 4);
    source.number("Node Offset", 48, 4);
    source.number("Reserved", 0, 4);
    for node in iort.nodes() {
        source.node(node.ok()?)?;
    }
    Some(source.0)
}

struct Source(String);

impl Source {
    fn line(&mut self, name: &str, value: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{name:>30} : {value}");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.line(name, &format!("\"{text}\""));
    }

    /// Writes a number of `bytes` bytes.
    fn number(&mut self, name: &str, number: u64, bytes: usize) {
        self.line(name, &format!("{number:0width$X}", width = 2 * bytes));
    }

    /// Writes zero to fields that this crate does not use, given as names and lengths in bytes.
    fn zeroes(&mut self, fields: &[(&str, usize)]) {
        for (name, bytes) in fields {
            self.number(name, 0, *bytes);
        }
    }

    /// Writes a field of a node.
    fn field(&mut self, name: &str, node: IortNode<'_>, field: Field) {
        self.number(name, node.get(field), field.bytes);
    }

    fn node(&mut self, node: IortNode<'_>) -> Option<()> {
        let _ = writeln!(self.0, "\n// At {:#x}", node.offset);
        self.field("Type", node, node_start::KIND);
        self.field("Length", node, node_start::LENGTH);
        self.field("Revision", node, node_head::REVISION);
        self.number("Reserved", 0, 4);
        self.field("Mapping Count", node, node_head::MAPPINGS);
        self.field("Mapping Offset", node, node_head::FIRST_MAPPING);
        match node.kind {
            NodeKind::ItsGroup => {
                self.number("ItsCount", 1, 4);
                self.number("Identifiers", node.its_ids().next()?.into(), 4);
            }
            NodeKind::NamedComponent => {
                self.number("Node Flags", 0, 4);
                self.memory();
                self.field("Memory Size Limit", node, named_component::ADDRESS_BITS);
                self.text("Device Name", node.path());
                let end = 29 + node.path().len() + 1;
                let padding = end.next_multiple_of(4) - end;
                if padding > 0 {
                    self.line("Padding", &["00"; 3].get(..padding)?.join(" "));
                }
            }
            NodeKind::RootComplex => {
                self.memory();
                self.number("ATS Attribute", 0, 4);
                self.field("PCI Segment Number", node, root_complex::SEGMENT);
                self.field("Memory Size Limit", node, root_complex::ADDRESS_BITS);
                self.number("Reserved", 0, 3);
            }
            NodeKind::SmmuV3 => self.smmu(node),
            NodeKind::Pmcg => {
                self.field("Page 0 Base Address", node, pmcg::PAGE_0);
                self.zeroes(&[("Overflow Interrupt GSIV", 4), ("Node Reference", 4)]);
                self.number("Page 1 Base Address", 0, 8);
            }
            _ => return None,
        }
        node.mappings().for_each(|mapping| self.mapping(mapping));
        Some(())
    }

    fn smmu(&mut self, smmu: IortNode<'_>) {
        self.field("Base Address", smmu, smmu_v3::BASE);
        self.number("Flags (decoded below)", 0, 4);
        for flag in ["COHACC Override", "HTTU Override", "Proximity Domain Valid"] {
            self.line(flag, "0");
        }
        self.zeroes(&[("Reserved", 4), ("VATOS Address", 8), ("Model", 4)]);
        for wire in ["Event GSIV", "PRI GSIV", "GERR GSIV", "Sync GSIV"] {
            self.number(wire, 0, 4);
        }
        self.zeroes(&[("Proximity Domain", 4), ("Device ID Mapping Index", 4)]);
    }

    /// Writes the access properties of cacheable, coherent memory.
    fn memory(&mut self) {
        self.line("Memory Properties", "[IORT Memory Access Properties]");
        self.number("Cache Coherency", 1, 4);
        self.number("Hints (decoded below)", 0, 1);
        for hint in ["Transient", "Write Allocate", "Read Allocate", "Override"] {
            self.line(hint, "0");
        }
        self.number("Reserved", 0, 2);
        self.number("Memory Flags (decoded below)", 3, 1);
        self.line("Coherency", "1");
        self.line("Device Attribute", "1");
    }

    fn mapping(&mut self, mapping: IdMapping) {
        self.0.push('\n');
        self.number("Input base", mapping.input.into(), 4);
        self.number("ID Count", mapping.id_count.into(), 4);
        self.number("Output Base", mapping.output.into(), 4);
        self.number("Output Reference", mapping.target.into(), 4);
        self.number("Flags (decoded below)", mapping.is_single.into(), 4);
        self.line("Single Mapping", if mapping.is_single { "1" } else { "0" });
    }
}
