//! Decodes interrupt specifiers of the GIC (binding `arm,gic-v3.yaml`).

use crate::intx::WiredInterrupt;
use alloc::format;
use alloc::string::String;
use gic_arch::IntId;
use msi_types::Trigger;

/// A class of interrupts (IHI 0069H §2.2.1).
pub(super) struct Class {
    name: &'static str,
    /// INTID of the interrupt with number 0.
    pub(super) first: u32,
    count: u32,
}

/// Flags for an interrupt triggered by a rising or a falling edge (binding `arm,gic-v3.yaml`).
const EDGES: u32 = 3;

pub(super) const SPI: Class = Class { name: "SPI", first: 32, count: 988 };
const PPI: Class = Class { name: "PPI", first: 16, count: 16 };
/// The classes, by the type that a specifier states.
const CLASSES: [Class; 4] = [
    SPI,
    PPI,
    Class { name: "extended SPI", first: 4096, count: 1024 },
    Class { name: "extended PPI", first: 1056, count: 64 },
];

/// Returns the class and the number of an interrupt with its INTID, e.g. "SPI 40 (INTID 72)".
pub(super) fn describe(intid: IntId) -> String {
    let named = CLASSES.iter().find_map(|class| {
        let number = intid.get().checked_sub(class.first)?;
        (number < class.count).then(|| format!("{} {number} (INTID {})", class.name, intid.get()))
    });
    named.unwrap_or_else(|| format!("INTID {}", intid.get()))
}

/// Returns `true` if a specifier states a known type of interrupt.
pub(super) fn has_type(specifier: &[u32]) -> bool {
    let kind = specifier.first().and_then(|&kind| usize::try_from(kind).ok());
    kind.is_some_and(|kind| kind < CLASSES.len())
}

/// Decodes a specifier. The error is a message for the user.
pub(super) fn interrupt(specifier: &[u32]) -> Result<IntId, String> {
    let &[kind, number, _flags, ..] = specifier else {
        return Err(format!("{} cells are not an interrupt of the GIC", specifier.len()));
    };
    let class = usize::try_from(kind).ok().and_then(|kind| CLASSES.get(kind));
    let Some(Class { name, first, count }) = class else {
        return Err(format!("{kind:#x} is not a type of interrupt"));
    };
    if number < *count {
        return Ok(IntId::new(first + number));
    }
    let range =
        format!("{name} {number} does not exist: {name}s have the numbers 0 to {}", count - 1);
    // The number may be an INTID, or the type may be missing.
    Err(match number.checked_sub(*first).filter(|meant| meant < count) {
        Some(meant) => format!("{range}; INTID {number} is {name} {meant}"),
        None => range,
    })
}

/// Decodes a specifier with its trigger.
pub(super) fn wired(specifier: &[u32]) -> Option<WiredInterrupt> {
    let intid = interrupt(specifier).ok()?;
    let is_edge = specifier.get(2).is_some_and(|flags| flags & EDGES != 0);
    Some(WiredInterrupt { intid, trigger: if is_edge { Trigger::Edge } else { Trigger::Level } })
}

/// Returns the type and the number of an interrupt, which are the first cells of its specifier.
/// Returns `None` if no specifier can encode the INTID.
#[cfg(feature = "write")]
pub(super) fn specifier(intid: IntId) -> Option<[u32; 2]> {
    (0..).zip(CLASSES).find_map(|(kind, Class { first, count, .. })| {
        let number = intid.get().checked_sub(first)?;
        (number < count).then_some([kind, number])
    })
}
