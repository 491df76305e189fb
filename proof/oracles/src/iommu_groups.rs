//! Linux's IOMMU groups, next to our groups of functions that hardware does not isolate.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use irq_domain::pci::{ConfigSpace, Isolation, isolation_groups};
pub use msi_types::RequesterId;
use msi_types::pci::PciRequester;

/// Offset of a bridge's header type and of its secondary bus number.
const HEADER_TYPE: u16 = 0x0e;
const SECONDARY: u16 = 0x19;

/// A function: Linux's IOMMU group and the configuration space.
#[derive(Debug)]
pub struct Function {
    group: String,
    config: Bytes,
}

/// A copy of a configuration space. Writes are ignored.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Function {
    /// Parses a function's address, its group (`none` if it has none) and its configuration space
    /// in hexadecimal.
    pub fn parse(line: &str) -> Option<(RequesterId, Self)> {
        let mut words = line.split_whitespace();
        let (address, group, digits) = (words.next()?, words.next()?, words.next()?);
        let mut parts = address.split([':', '.']).skip(1);
        let mut part = || u8::from_str_radix(parts.next()?, 16).ok();
        let id = RequesterId::pci(part()?, part()?, part()?);
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let config = (0..digits.len()).step_by(2).map(byte).collect::<Option<_>>()?;
        Some((id, Self { group: group.to_owned(), config: Bytes(config) }))
    }

    fn secondary_bus(&self) -> Option<u8> {
        (self.config.read8(HEADER_TYPE) & 0x7f == 1).then(|| self.config.read8(SECONDARY))
    }
}

/// A division of functions into groups.
pub type Groups = BTreeSet<BTreeSet<u32>>;

/// Returns our groups of the functions' requester IDs, and those of Linux. `aliases` are the
/// requester IDs with which the functions' messages arrive at the host bridge.
///
/// # Errors
/// Fails if Linux has not put each function into a group.
pub fn both(
    functions: &BTreeMap<RequesterId, Function>,
    aliases: &BTreeMap<RequesterId, RequesterId>,
) -> Result<(Groups, Groups)> {
    let bridge = |bus: u8| {
        let mut all = functions.iter();
        all.find(|(_, one)| bus != 0 && one.secondary_bus() == Some(bus)).map(|(id, _)| *id)
    };
    let isolation = functions.iter().map(|(id, function)| {
        let requester = PciRequester::new(*id).with_alias(aliases.get(id).copied());
        Isolation::read(&function.config, requester, bridge(id.pci_bus()))
    });
    let ours = isolation_groups(&isolation.collect::<Vec<_>>()).context("the groups")?;
    let alone = functions.iter().filter(|(_, one)| one.group == "none").map(|(id, _)| id);
    let alone: Vec<_> = alone.collect();
    ensure!(alone.is_empty(), "Linux has no groups for {alone:?}");
    let (mut here, mut there) = (BTreeMap::new(), BTreeMap::new());
    for ((id, function), group) in functions.iter().zip(ours) {
        here.entry(group).or_insert_with(BTreeSet::new).insert(id.get());
        there.entry(&function.group).or_insert_with(BTreeSet::new).insert(id.get());
    }
    Ok((here.into_values().collect(), there.into_values().collect()))
}

impl ConfigSpace for Bytes {
    fn read8(&self, offset: u16) -> u8 {
        self.0.get(usize::from(offset)).copied().unwrap_or(0xff)
    }

    fn read16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([0, 1].map(|byte| self.read8(offset.saturating_add(byte))))
    }

    fn read32(&self, offset: u16) -> u32 {
        u32::from_le_bytes([0, 1, 2, 3].map(|byte| self.read8(offset.saturating_add(byte))))
    }

    fn write8(&self, _: u16, _: u8) {}
    fn write16(&self, _: u16, _: u16) {}
    fn write32(&self, _: u16, _: u32) {}
}
