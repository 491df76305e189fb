//! Capacity of controllers: the number of interrupts that they can handle, and the number that
//! their devices need.

use super::listing::MAX_ROWS;
use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{Controller, ControllerIndex, ControllerKind, Description, DeviceId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Number of EventID bits for a function with up to 2048 MSI-X vectors (PCI Express Base
/// Specification 6.0, §7.7.2.2).
const MSI_X_BITS: u32 = 11;

/// A controller's capacity. A value is `null` if neither firmware nor a known register states it.
#[derive(Debug, Serialize)]
pub struct CapacityRow {
    /// The controller.
    pub controller: String,
    /// Its kind.
    pub kind: String,
    /// Number of interrupts: the GIC's LPIs (shared by all ITSes), or SPIs.
    pub interrupts: Option<u64>,
    /// Width of DeviceIDs in bits.
    pub device_id_bits: Option<u32>,
    /// Number of bits needed for the highest DeviceID that firmware assigns to a requester.
    pub needed_device_id_bits: Option<u32>,
    /// Width of EventIDs in bits.
    pub event_id_bits: Option<u32>,
    /// Number of EventID bits needed for MSI-X, if PCI functions signal through this controller.
    /// Firmware does not describe what other devices need.
    pub needed_event_id_bits: Option<u32>,
}

impl CapacityRow {
    /// Returns the first rows, one per enabled controller of a known kind.
    pub(super) fn all_of(description: &Description, known: &KnownRegisters) -> Vec<Self> {
        let highest = lint::highest_device_ids(description);
        let reader = Reader { known, highest, for_pci: for_pci(description) };
        let enabled = description.indexed_controllers().filter(|(_, one)| {
            one.status.is_enabled() && !matches!(one.kind, ControllerKind::Other(_))
        });
        enabled.take(MAX_ROWS).map(|(index, controller)| reader.row(index, controller)).collect()
    }
}

/// The row's cells: the available capacity, and in parentheses the capacity that devices need.
impl CapacityRow {
    /// Formats the number of interrupts.
    pub fn room(&self) -> String {
        number(self.interrupts)
    }

    /// Formats the number of DeviceID bits.
    pub fn device_ids(&self) -> String {
        self.bits(self.device_id_bits, self.needed_device_id_bits)
    }

    /// Formats the number of EventID bits.
    pub fn event_ids(&self) -> String {
        self.bits(self.event_id_bits, self.needed_event_id_bits)
    }

    /// Formats a number of bits. The text is empty for controllers other than ITSes, because such
    /// controllers don't distinguish devices and events.
    fn bits(&self, bits: Option<u32>, needed: Option<u32>) -> String {
        match needed {
            Some(needed) => format!("{} (need {needed})", number(bits)),
            None if self.kind == ControllerKind::Its.as_str() => number(bits),
            None => String::new(),
        }
    }
}

fn number(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
}

struct Reader<'d> {
    known: &'d KnownRegisters,
    highest: BTreeMap<ControllerIndex, DeviceId>,
    /// Controllers that PCI functions signal through, by index.
    for_pci: BTreeSet<usize>,
}

impl Reader<'_> {
    fn row(&self, index: ControllerIndex, controller: &Controller) -> CapacityRow {
        let is_its = controller.kind == ControllerKind::Its;
        let by_register = self.known.device_id_bits(&controller.id);
        let by_window = controller.device_id_bits();
        let device_id_bits = by_register.into_iter().chain(by_window).min();
        CapacityRow {
            controller: controller.id.to_string(),
            kind: controller.kind.to_string(),
            interrupts: self.interrupts(controller),
            device_id_bits: device_id_bits.filter(|_| is_its),
            needed_device_id_bits: self.highest.get(&index).map(|device| bits(device.get())),
            event_id_bits: self.known.event_id_bits(&controller.id).filter(|_| is_its),
            needed_event_id_bits: (is_its && self.for_pci.contains(&index.get()))
                .then_some(MSI_X_BITS),
        }
    }

    /// Returns the number of interrupts, or `None` for a v2m frame without a range (its register
    /// states the number).
    fn interrupts(&self, controller: &Controller) -> Option<u64> {
        match controller.kind {
            ControllerKind::Its | ControllerKind::DirectLpi => self.known.lpis(),
            _ if controller.kind.is_in_bridge() => controller.vectors().map(u64::from),
            _ if controller.ranges.is_empty() => None,
            _ => Some(controller.ranges.iter().map(|range| u64::from(range.count())).sum()),
        }
    }
}

/// Returns the indices of the controllers that functions behind enabled hosts signal through.
fn for_pci(description: &Description) -> BTreeSet<usize> {
    let hosts = description.hosts.iter().filter(|host| host.status.is_enabled());
    let spans = hosts.flat_map(|host| {
        let below = host.bridges.iter();
        let below = below.flat_map(|bridge| description.bridge_spans(bridge));
        description.host_spans(host).chain(below)
    });
    spans.map(|span| span.controller.get()).collect()
}

/// Returns the number of bits needed for numbers up to and including `last`.
const fn bits(last: u32) -> u32 {
    match last.checked_ilog2() {
        Some(highest) => highest + 1,
        None => 1,
    }
}
