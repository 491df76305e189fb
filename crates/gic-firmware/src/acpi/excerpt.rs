//! Renders table structures as text, so that a message can show the field that it refers to.

use super::fields::{self, Field, Layout};
use super::iort::{IortNode, NodeKind};
use super::names::{NodesByOffset, node_name};
use super::table::{Fields, Signature, Table};
use super::table_set::TableSet;
use super::{Iort, Madt, Mcfg};
use crate::excerpt::Excerpt;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString as _};

/// Offset of the first structure of a MADT and of the first allocation of an MCFG; the nodes of an
/// IORT start later.
const FIRST_STRUCTURE: usize = 44;
/// Number of ID mappings that an excerpt of a node lists.
const LISTED_MAPPINGS: usize = 8;

/// Returns the text of the structure at each of `places`. Each must be the place of an
/// [`Origin`](crate::Origin), such as `MADT+0x2c`; other places are skipped.
///
/// A field is a line `name: value`, and an ID mapping of the IORT is a line such as
/// `SMMUv3@2b400000, mapping 1: input 0x0, count 0x1, output 0x8 -> ITS group 0, single`.
pub fn excerpts(tables: &TableSet<'_>, places: &BTreeSet<&str>) -> BTreeMap<String, Excerpt> {
    let mut shown = BTreeMap::new();
    let nodes = tables.iort.map(|iort| NodesByOffset::new(iort.nodes().filter_map(Result::ok)));
    for place in places {
        let excerpt = place.split_once("+0x").and_then(|(table, offset)| {
            let offset = usize::from_str_radix(offset, 16).ok()?;
            let mut excerpt = match table {
                "MADT" => of_madt(tables.madt, offset),
                "IORT" => of_iort(tables.iort?, nodes.as_ref()?, offset),
                "MCFG" => of_mcfg(tables.mcfg?, offset),
                _ => None,
            }?;
            let start = if offset < FIRST_STRUCTURE { 0 } else { offset };
            excerpt.offsets.iter_mut().for_each(|(_, offset)| *offset += start);
            Some(excerpt)
        });
        shown.extend(excerpt.map(|excerpt| (String::from(*place), excerpt)));
    }
    shown
}

fn add(excerpt: &mut Excerpt, list: &[Field], structure: Fields<'_>) {
    for field in list {
        if let Some(value) = field.spelled(structure) {
            excerpt.field(field.name, &value);
            excerpt.offsets.push((field.name, field.at));
        }
    }
}

fn of_header(table: Table<'_>, name: &str, more: &[Field]) -> Excerpt {
    let mut excerpt = Excerpt::new(format!("{name}, header"));
    add(&mut excerpt, fields::table_header::FIELDS, table.fields());
    let ids = format!("{:?}, {:?}", table.oem_id(), table.oem_table_id());
    excerpt.field("OEM IDs", &ids);
    add(&mut excerpt, more, table.fields());
    excerpt
}

fn of_madt(madt: Madt<'_>, offset: usize) -> Option<Excerpt> {
    let table = madt.table();
    if offset < FIRST_STRUCTURE {
        return Some(of_header(table, "MADT", &[]));
    }
    let rest = Fields(table.bytes().get(offset..)?);
    let (kind, length) = (rest.u8(0)?, usize::from(rest.u8(1)?));
    let structure = Fields(rest.0.get(..length).unwrap_or(rest.0));
    let (name, list) = Layout::of(Signature::MADT, kind)
        .map_or(("structure", &[][..]), |layout| (layout.name, layout.fields));
    let mut excerpt = Excerpt::new(format!("{name} at {offset:#x}"));
    if list.is_empty() {
        excerpt.field("type", &kind.to_string());
    }
    add(&mut excerpt, fields::structure_head::FIELDS, rest);
    add(&mut excerpt, list, structure);
    Some(excerpt)
}

fn of_iort(iort: Iort<'_>, nodes: &NodesByOffset<'_>, offset: usize) -> Option<Excerpt> {
    let table = iort.table();
    if offset < FIRST_STRUCTURE {
        return Some(of_header(table, "IORT", fields::iort_header::FIELDS));
    }
    let Some(node) = nodes.around(offset) else { return of_broken_node(table, offset) };
    if node.offset == offset {
        return Some(of_node(nodes, node));
    }
    let index = node.mappings().position(|mapping| mapping.offset == offset);
    let Some((index, mapping)) = index.zip(node.mappings().find(|one| one.offset == offset)) else {
        return of_broken_node(table, offset);
    };
    let mapping = nodes.mapping(mapping);
    Some(Excerpt::new(format!("{}, mapping {index}: {mapping}", node_name(node))))
}

fn of_node(nodes: &NodesByOffset<'_>, node: IortNode<'_>) -> Excerpt {
    let mut excerpt = Excerpt::new(node_name(node));
    let bytes = node.before_mappings();
    add(&mut excerpt, fields::node_head::FIELDS, bytes);
    add(&mut excerpt, node.layout().map_or(&[], |layout| layout.fields), bytes);
    if node.kind == NodeKind::NamedComponent {
        excerpt.field("device object name", node.path());
    }
    for (index, mapping) in node.mappings().take(LISTED_MAPPINGS).enumerate() {
        excerpt.field(&format!("mapping {index}"), &nodes.mapping(mapping));
    }
    let more = node.mappings().count().saturating_sub(LISTED_MAPPINGS);
    if more > 0 {
        excerpt.field("mappings not shown", &more.to_string());
    }
    excerpt
}

/// Returns the text of a node that could not be read.
fn of_broken_node(table: Table<'_>, offset: usize) -> Option<Excerpt> {
    let rest = Fields(table.bytes().get(offset..)?);
    let mut excerpt = Excerpt::new(format!("node at {offset:#x}"));
    // A node without a whole length field has no excerpt.
    rest.u16(1)?;
    add(&mut excerpt, fields::node_start::FIELDS, rest);
    add(&mut excerpt, fields::node_head::FIELDS, rest);
    Some(excerpt)
}

fn of_mcfg(mcfg: Mcfg<'_>, offset: usize) -> Option<Excerpt> {
    let table = mcfg.table();
    if offset < FIRST_STRUCTURE {
        return Some(of_header(table, "MCFG", &[]));
    }
    let index = (offset - FIRST_STRUCTURE) / 16;
    let mut excerpt = Excerpt::new(format!("MCFG, allocation {index}"));
    add(&mut excerpt, fields::allocation::FIELDS, Fields(table.bytes().get(offset..)?));
    Some(excerpt)
}
