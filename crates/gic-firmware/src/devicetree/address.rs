//! Decodes cells and `reg`, and translates bus addresses to CPU addresses (Devicetree Specification
//! §2.3).

use super::tree::NodeRef;
use crate::finding::{Fact, FindingList, Region, Rule};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Names of the regions in `reg`.
pub(super) const REGION_NAMES: &str = "reg-names";
/// Property of a bus that translates the CPUs' accesses to its devices.
pub(super) const RANGES: &str = "ranges";
/// Property of a bus that translates its devices' accesses to memory.
pub(super) const DMA_RANGES: &str = "dma-ranges";
/// Maximum number of cells in an address or a size: 64 bits plus a prefix of up to two cells (PCI
/// has one).
const MAX_CELLS: u32 = 4;
const CELL_BYTES: usize = 4;

/// Returns the cells of a property as numbers; `None` if its length is not a multiple of four.
pub(super) fn cells(value: &[u8]) -> Option<Vec<u32>> {
    let (cells, rest) = value.as_chunks::<CELL_BYTES>();
    rest.is_empty().then(|| cells.iter().map(|cell| u32::from_be_bytes(*cell)).collect())
}

/// Formats a number of cells, e.g. as `2 cells`.
pub(super) fn cells_in_words(count: usize) -> String {
    if count == 1 { String::from("1 cell") } else { format!("{count} cells") }
}

/// Number of cells in an address and in a size on a bus.
#[derive(Clone, Copy)]
struct Shape {
    address: usize,
    size: usize,
}

impl Shape {
    /// Returns the numbers of cells that the children of `bus` use.
    fn of(bus: NodeRef<'_, '_>) -> Result<Self, String> {
        let check = |property, stated| match stated {
            0..=MAX_CELLS => Ok(stated as usize),
            _ => Err(format!("{property} is {stated}")),
        };
        let cells = bus.child_cells();
        Ok(Self {
            address: check("#address-cells", cells.address)?,
            size: check("#size-cells", cells.size)?,
        })
    }
}

/// Splits a property into entries. Each entry consists of fields with these numbers of cells.
fn entries<const N: usize>(
    value: &[u8],
    fields: [usize; N],
) -> Option<impl Iterator<Item = [u128; N]> + use<'_, N>> {
    let entry_bytes = fields.iter().sum::<usize>() * CELL_BYTES;
    if entry_bytes == 0 || !value.len().is_multiple_of(entry_bytes) {
        return None;
    }
    Some(value.chunks_exact(entry_bytes).map(move |entry| {
        let mut rest = entry;
        fields.map(|cells| {
            let (field, after) = rest.split_at_checked(cells * CELL_BYTES).unwrap_or((rest, &[]));
            rest = after;
            field.iter().fold(0, |number, &byte| (number << 8) | u128::from(byte))
        })
    }))
}

/// Returns the `reg` entries of `node` as (address, size) on its bus. The list is empty if the node
/// has no `reg`. The error is a message for the user.
pub(super) fn bus_regions(node: NodeRef<'_, '_>) -> Result<Vec<(u128, u128)>, String> {
    let Some(value) = node.property("reg") else { return Ok(Vec::new()) };
    let shape = Shape::of(node.parent().unwrap_or(node))?;
    match entries(value, [shape.address, shape.size]) {
        Some(entries) => Ok(entries.map(|[address, size]| (address, size)).collect()),
        None => Err(format!(
            "{} bytes are not a whole number of ({},{})-cell entries",
            value.len(),
            shape.address,
            shape.size
        )),
    }
}

/// Translates an address on the bus of `node` to a CPU address. The error is a message for the
/// user.
pub(super) fn to_cpu(node: NodeRef<'_, '_>, address: u128) -> Result<u64, String> {
    translate(node, address, RANGES)
}

/// Translates an address on the bus of `node`, which `node` itself accesses, by the `dma-ranges` of
/// the buses above. A bus without the property does not translate (as in Linux's
/// `of_translate_dma_address`).
pub(super) fn to_memory(node: NodeRef<'_, '_>, address: u128) -> Result<u64, String> {
    translate(node, address, DMA_RANGES)
}

fn translate(node: NodeRef<'_, '_>, address: u128, property: &str) -> Result<u64, String> {
    let mut address = address;
    for bus in node.upwards().skip(1) {
        // Addresses of the root's children are CPU addresses.
        let Some(above) = bus.parent() else { break };
        let Some(ranges) = bus.property(property) else {
            if property == DMA_RANGES {
                continue;
            }
            return Err(format!("{} has no `{property}` for address {address:#x}", bus.path()));
        };
        if ranges.is_empty() {
            continue;
        }
        let (child, parent) = (Shape::of(bus)?, Shape::of(above)?);
        let entries = entries(ranges, [child.address, parent.address, child.size])
            .ok_or_else(|| format!("`{property}` of {} is malformed", bus.path()))?;
        address = search(bus, entries, address, property)?;
    }
    u64::try_from(address).map_err(|_| format!("address {address:#x} has more than 64 bits"))
}

/// Returns the entries of `ranges` or `dma-ranges` of `bus` as (bus address, parent address, size).
/// Bus addresses must have `cells` cells. `None` if the property is absent or malformed.
pub(super) fn range_entries<'a>(
    bus: NodeRef<'_, 'a>,
    property: &str,
    cells: usize,
) -> Option<impl Iterator<Item = [u128; 3]> + use<'a>> {
    let ranges = bus.property(property)?;
    let (child, parent) = (Shape::of(bus).ok()?, Shape::of(bus.parent()?).ok()?);
    let fields = [child.address, parent.address, child.size];
    if child.address == cells { entries(ranges, fields) } else { None }
}

/// Translates `address` by a property of `bus`; the first entry that contains it is used.
pub(super) fn search(
    bus: NodeRef<'_, '_>,
    entries: impl Iterator<Item = [u128; 3]>,
    address: u128,
    property: &str,
) -> Result<u128, String> {
    for [from, to, size] in entries {
        bus.spend()
            .ok_or_else(|| String::from("the tree has too many regions and ranges to translate"))?;
        let offset = address.checked_sub(from).filter(|&offset| offset < size);
        if let Some(above) = offset.and_then(|offset| to.checked_add(offset)) {
            return Ok(above);
        }
    }
    Err(format!("`{property}` of {} does not contain address {address:#x}", bus.path()))
}

/// Returns one `reg` entry as a CPU physical region. The error is a message for the user.
fn region(node: NodeRef<'_, '_>, (address, size): (u128, u128)) -> Result<Region, String> {
    let base = to_cpu(node, address)?;
    u64::try_from(size)
        .ok()
        .and_then(|size| Region::new(base, size))
        .ok_or_else(|| format!("{size:#x} bytes at {base:#x} reach past the address space"))
}

/// Returns the `reg` entries of `node` as CPU physical regions. An entry that cannot be translated
/// is reported, and is `None` in the result.
pub(super) fn regions(
    node: NodeRef<'_, '_>,
    findings: &mut FindingList,
) -> Vec<Option<Fact<Region>>> {
    let entries = match bus_regions(node) {
        Ok(entries) => entries,
        Err(message) => {
            findings.add(Rule::MalformedProperty, node.origin("reg"), message);
            return Vec::new();
        }
    };
    entries
        .into_iter()
        .map(|entry| match region(node, entry) {
            Ok(region) => Some(Fact::new(region, node.origin("reg"))),
            Err(message) => {
                findings.add(Rule::UntranslatableAddress, node.origin("reg"), message);
                None
            }
        })
        .collect()
}

/// Like [`regions`], for a node that must state regions. Otherwise, reports `missing`.
pub(super) fn required_regions(
    node: NodeRef<'_, '_>,
    missing: &'static str,
    findings: &mut FindingList,
) -> Vec<Option<Fact<Region>>> {
    if node.property("reg").is_none_or(<[u8]>::is_empty) {
        findings.add(Rule::MissingProperty, node.origin("reg"), missing);
    }
    regions(node, findings)
}

/// Returns the CPU physical regions of `node` without reporting anything; entries that cannot be
/// translated are omitted.
pub(super) fn regions_if_any(node: NodeRef<'_, '_>) -> Vec<Fact<Region>> {
    let entries = bus_regions(node).unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|entry| region(node, entry).ok())
        .map(|region| Fact::new(region, node.origin("reg")))
        .collect()
}

/// Returns the CPU address in a property that contains one address on the bus of `node`
/// (`mbi-alias`). The error is a message for the user.
pub(super) fn bus_address(node: NodeRef<'_, '_>, value: &[u8]) -> Result<u64, String> {
    let shape = Shape::of(node.parent().unwrap_or(node))?;
    let mut addresses = entries(value, [shape.address]).ok_or_else(|| {
        format!("{} bytes are not an address of {} cells", value.len(), shape.address)
    })?;
    let [address] = addresses.next().ok_or_else(|| String::from("the address is missing"))?;
    to_cpu(node, address)
}
