//! A function's messages as the guest sees them, emulated by `irq-routing`'s models: MSI-X if the
//! function has it, otherwise MSI. The model holds the message that the guest wrote, and sends it
//! whenever the function's physical message arrives.

use alloc::sync::Arc;
use core::ops::Range;
use image_rt::pci::Function;
use irq_domain::pci::MsixCapability;
use irq_routing::msi::{MsiCapability, MsiLayout};
use irq_routing::msix::{MsixTable, Signalled};
use irq_routing::{Router, Sender};
use msi_types::pci::{msi, msix};
use msi_types::{Delivery, DeviceId};
use vgic::AccessWidth;

/// Page size of the guest's memory mappings.
pub(super) const PAGE: u64 = 0x1000;

/// The model, with the offset of its capability.
pub(super) enum Messages {
    Msi(u16, MsiCapability),
    Msix(u16, Msix),
}

/// An MSI-X table in the function's memory.
pub(super) struct Msix {
    table: MsixTable,
    entries: Range<u64>,
    pending: Range<u64>,
    /// Offset of the function's MSI capability, which the guest sees as a null capability.
    msi: Option<u16>,
}

impl Messages {
    /// Creates the model of a function's messages. Returns `None` if the function has neither
    /// capability, or if it contains reserved values.
    pub(super) fn new(function: &Function, router: Arc<Router>) -> Option<Self> {
        let sender = Sender::Device(DeviceId::new(function.requester.get()));
        let msi = function.capability(msi::CAPABILITY_ID);
        if let Ok(capability) = MsixCapability::find(&*function.config) {
            let MsixCapability { offset, slots, table, pending, .. } = capability;
            let range = |(bir, offset): (u8, u64), length| {
                let start = function.bars[usize::from(bir)]?.address + offset;
                Some(start..start + length)
            };
            let entries = range((table.bir(), table.offset()), capability.table_length())?;
            let pending = range((pending.bir(), pending.offset()), capability.pending_length())?;
            let table = MsixTable::new(slots, sender, router).ok()?;
            return Some(Self::Msix(offset, Msix { table, entries, pending, msi }));
        }
        let offset = msi?;
        let control = msi::Control::from(function.config.read16(offset + msi::CONTROL));
        let layout = MsiLayout {
            log2_vectors: control.multiple_message_capable(),
            address_64: control.address_64(),
            per_vector_masking: control.per_vector_masking(),
        };
        let next = function.config.read8(offset + 1);
        Some(Self::Msi(offset, MsiCapability::new(layout, next, sender, router).ok()?))
    }

    /// Signals a vector to the guest. If the guest has masked the vector, its message becomes
    /// pending in the table.
    ///
    /// # Errors
    /// Returns the reason why the message was lost. Without INTx, the guest is not notified in any
    /// other way.
    pub(super) fn signal(&self, vector: u16) -> Result<(), &'static str> {
        let signalled = match self {
            Self::Msi(_, capability) => capability.signal(vector),
            Self::Msix(_, msix) => msix.table.signal(vector),
        };
        Err(match signalled {
            Signalled::Sent(Delivery::Pending) | Signalled::Held => return Ok(()),
            Signalled::Sent(Delivery::Blocked) => "the guest's controller dropped the message",
            Signalled::Sent(Delivery::NoDoorbell) => "the message's address is not a doorbell",
            Signalled::Refused(_) => "the message's route was refused",
            Signalled::Disabled => "the guest has disabled MSI",
            Signalled::NoSuchVector => "the guest has not enabled this vector",
        })
    }

    /// Returns a word of configuration space as the guest sees it, where `physical` is the physical
    /// value.
    pub(super) fn config_word(&self, offset: u16, physical: u32) -> u32 {
        match self {
            Self::Msi(at, capability) if offset >= *at => {
                let mut bytes = physical.to_le_bytes();
                capability.read(offset - at, &mut bytes);
                u32::from_le_bytes(bytes)
            }
            Self::Msix(at, msix) if offset == *at => {
                physical & 0xffff | u32::from(u16::from(msix.table.control())) << 16
            }
            Self::Msix(_, msix) if msix.msi == Some(offset) => physical & 0xff00,
            _ => physical,
        }
    }

    /// Writes to configuration space.
    pub(super) fn write_config(&self, offset: u16, bytes: &[u8]) {
        match (self, bytes) {
            (Self::Msi(at, capability), _) if offset >= *at => {
                capability.write(offset - at, bytes);
            }
            (Self::Msix(at, msix), [low, high]) if offset == at + 2 => {
                msix.write_control(*low, *high);
            }
            (Self::Msix(at, msix), [_, _, low, high]) if offset == *at => {
                msix.write_control(*low, *high);
            }
            _ => {}
        }
    }

    /// Returns the memory of the function that the model emulates.
    pub(super) fn memory(&self) -> impl Iterator<Item = &Range<u64>> {
        self.msix().into_iter().flat_map(|msix| [&msix.entries, &msix.pending])
    }

    /// Reads from a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(super) fn read_page(&self, address: u64, width: AccessWidth) -> Option<u64> {
        let Msix { table, entries, pending, .. } = self.msix()?;
        let mut bytes = [0; 8];
        let part = &mut bytes[..width.bytes() as usize];
        if entries.contains(&address) {
            table.read(address - entries.start, part);
        } else if pending.contains(&address) {
            table.read_pending(address - pending.start, part);
        } else if !self.shares_page(address) {
            return None;
        }
        Some(u64::from_le_bytes(bytes))
    }

    /// Writes to a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(super) fn write_page(&self, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        let Msix { table, entries, .. } = self.msix()?;
        if entries.contains(&address) {
            let bytes = &value.to_le_bytes()[..width.bytes() as usize];
            table.write(address - entries.start, bytes);
            return Some(());
        }
        self.shares_page(address).then_some(())
    }

    /// Returns `true` if the address is in a page that contains the model's memory.
    fn shares_page(&self, address: u64) -> bool {
        let mut pages =
            self.memory().map(|range| range.start & !(PAGE - 1)..range.end.next_multiple_of(PAGE));
        pages.any(|pages| pages.contains(&address))
    }

    fn msix(&self) -> Option<&Msix> {
        match self {
            Self::Msi(..) => None,
            Self::Msix(_, msix) => Some(msix),
        }
    }
}

impl Msix {
    fn write_control(&self, low: u8, high: u8) {
        self.table.write_control(msix::Control::from(u16::from_le_bytes([low, high])));
    }
}
