//! A function's messages as the guest sees them, emulated by `irq-routing`'s models: MSI-X if the
//! function has it, otherwise MSI. The model holds the message that the guest wrote, and sends it
//! whenever the function's physical message arrives.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use el2_vm::direct::{self, GuestVector};
use el2_vm::messages::MessageVector;
use gic_arch::Lpi;
use image_rt::pci::{self, Function};
use image_rt::println;
use irq_domain::MsiVector;
use irq_domain::pci::MsixCapability;
use irq_routing::msi::{MsiCapability, MsiLayout};
use irq_routing::msix::{MsixLayout, MsixTable, Signaled};
use irq_routing::{RoutedMessage, Router, Sender};
use msi_types::pci::{msi, msix};
use msi_types::{Delivery, DeviceId, MessageStore, MsiMessage, RequesterId};
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
    entries: Place,
    pending: Place,
    /// Offset of the function's MSI capability, which the guest sees as a null capability.
    msi: Option<u16>,
}

/// A BAR, and a range of offsets in its memory.
struct Place(usize, Range<u64>);

impl Place {
    /// Returns `true` if the place contains an address.
    fn contains(&self, bar: usize, offset: u64) -> bool {
        self.0 == bar && self.1.contains(&offset)
    }

    /// Returns `true` if the place is at least partially on the same page as an address.
    fn shares_page(&self, bar: usize, offset: u64) -> bool {
        let pages = self.1.start & !(PAGE - 1)..self.1.end.next_multiple_of(PAGE);
        self.0 == bar && pages.contains(&offset)
    }
}

impl Messages {
    /// Creates the model of a function's messages, which have this DeviceID in the guest. Returns
    /// `None` if the function has neither capability, or if it contains reserved values.
    pub(super) fn new(function: &Function, device: DeviceId, router: Arc<Router>) -> Option<Self> {
        let sender = Sender::Device(device);
        let msi = pci::capability(function, msi::CAPABILITY_ID);
        if let Ok(capability) = MsixCapability::find(&**function.config()) {
            let MsixCapability { offset, slots, table, pending, .. } = capability;
            let place = |bir: u8, start, length| Place(bir.into(), start..start + length);
            let entries = place(table.bir(), table.offset(), capability.table_length());
            let bits = place(pending.bir(), pending.offset(), capability.pending_length());
            let next = function.config().read8(offset + 1);
            let layout = MsixLayout { next, table, pending };
            let table = MsixTable::new(slots, sender, router).ok()?.with_layout(layout);
            return Some(Self::Msix(offset, Msix { table, entries, pending: bits, msi }));
        }
        let offset = msi?;
        let control = msi::Control::from(function.config().read16(offset + msi::CONTROL));
        let layout = MsiLayout {
            log2_vectors: control.multiple_message_capable(),
            address_64: control.address_64(),
            per_vector_masking: control.per_vector_masking(),
        };
        let next = function.config().read8(offset + 1);
        Some(Self::Msi(offset, MsiCapability::new(layout, next, sender, router).ok()?))
    }

    /// Returns `true` if the guest lets the function send messages.
    pub(super) fn are_enabled(&self) -> bool {
        match self {
            Self::Msi(_, capability) => capability.control().enable(),
            Self::Msix(_, msix) => msix.table.control().enable(),
        }
    }

    /// Signals a vector to the guest, unless `delivers` delivers its message. If the guest has
    /// masked the vector, its message becomes pending in the table.
    ///
    /// # Errors
    /// The message was lost, and the guest is not notified in any other way.
    fn signal(
        &self,
        vector: u16,
        delivers: &mut dyn FnMut(DeviceId, MsiMessage) -> bool,
    ) -> Result<(), &'static str> {
        let delivers = |RoutedMessage { sender, message }: RoutedMessage| match sender {
            Sender::Device(device) => delivers(device, message),
            Sender::Anonymous => false,
        };
        let signaled = match self {
            Self::Msi(_, capability) => capability.signal_unless(vector, delivers),
            Self::Msix(_, msix) => msix.table.signal_unless(vector, delivers),
        };
        Err(match signaled {
            Signaled::Sent(Delivery::Pending) | Signaled::Held => return Ok(()),
            Signaled::Sent(Delivery::Blocked) => "the guest's controller dropped the message",
            Signaled::Sent(Delivery::NoDoorbell) => "the message's address is not a doorbell",
            Signaled::Refused(_) => "the message's route was refused",
            Signaled::Disabled => "the guest has disabled MSI",
            Signaled::NoSuchVector => "the guest has not enabled this vector",
        })
    }

    /// Returns the message of a vector as the guest wrote it.
    pub(super) fn message(&self, vector: u16) -> MsiMessage {
        let mut words = [[0; 4]; 3];
        let [low, high, data] = &mut words;
        match self {
            Self::Msix(_, Msix { table, .. }) => {
                let entry = u64::from(vector) * msix::ENTRY_SIZE;
                table.read(entry + msix::ENTRY_ADDRESS_LOW, low);
                table.read(entry + msix::ENTRY_ADDRESS_HIGH, high);
                table.read(entry + msix::ENTRY_DATA, data);
            }
            Self::Msi(_, capability) => {
                let layout = msi::Layout::new(capability.control());
                capability.read(msi::ADDRESS_LOW, low);
                layout.address_high().into_iter().for_each(|at| capability.read(at, high));
                capability.read(layout.data(), &mut data[..2]);
            }
        }
        let [low, high, data] = words.map(u32::from_le_bytes);
        let data = match self {
            Self::Msix(..) => data,
            Self::Msi(_, capability) => {
                let granted = capability.control().multiple_message_enable();
                msi::vector_data(data, granted, vector)
            }
        };
        MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
    }

    /// Returns the address that the guest wrote for a slot, if it lets the function send the slot's
    /// message. An MSI has only slot 0.
    pub(super) fn address(&self, slot: u16) -> Option<u64> {
        let is_on = match self {
            Self::Msi(_, capability) => slot == 0 && capability.control().enable(),
            Self::Msix(_, Msix { table, .. }) => {
                let mut control = [0; 4];
                table.read(u64::from(slot) * msix::ENTRY_SIZE + msix::ENTRY_CONTROL, &mut control);
                control[0] & 1 == 0
            }
        };
        is_on.then(|| self.message(slot).address)
    }

    /// Returns a word of configuration space as the guest sees it, where `physical` is the physical
    /// value.
    pub(super) fn config_word(&self, offset: u16, physical: u32) -> u32 {
        let mut bytes = physical.to_le_bytes();
        match self {
            Self::Msi(at, capability) if offset >= *at => capability.read(offset - at, &mut bytes),
            Self::Msix(_, msix) if msix.msi == Some(offset) => return physical & 0xff00,
            Self::Msix(at, msix) if offset >= *at => {
                msix.table.read_capability(offset - at, &mut bytes);
            }
            _ => {}
        }
        u32::from_le_bytes(bytes)
    }

    /// Writes to configuration space.
    pub(super) fn write_config(&self, offset: u16, bytes: &[u8]) {
        match self {
            Self::Msi(at, capability) if offset >= *at => capability.write(offset - at, bytes),
            Self::Msix(at, msix) if offset >= *at => {
                msix.table.write_capability(offset - at, bytes);
            }
            _ => {}
        }
    }

    /// Reads from a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(super) fn read_page(&self, bar: usize, offset: u64, width: AccessWidth) -> Option<u64> {
        let Msix { table, entries, pending, .. } = self.msix()?;
        let mut bytes = [0; 8];
        let part = &mut bytes[..width.bytes() as usize];
        if entries.contains(bar, offset) {
            table.read(offset - entries.1.start, part);
        } else if pending.contains(bar, offset) {
            table.read_pending(offset - pending.1.start, part);
        } else if !self.traps(bar, offset) {
            return None;
        }
        Some(u64::from_le_bytes(bytes))
    }

    /// Writes to a page whose accesses trap. Returns `None` if the address is not in such a page.
    pub(super) fn write_page(
        &self,
        bar: usize,
        offset: u64,
        width: AccessWidth,
        value: u64,
    ) -> Option<()> {
        let Msix { table, entries, .. } = self.msix()?;
        if entries.contains(bar, offset) {
            let bytes = &value.to_le_bytes()[..width.bytes() as usize];
            table.write(offset - entries.1.start, bytes);
            return Some(());
        }
        self.traps(bar, offset).then_some(())
    }

    /// Returns `true` if the address is in a page that contains memory of the model.
    pub(super) fn traps(&self, bar: usize, offset: u64) -> bool {
        let places = self.msix().map(|msix| [&msix.entries, &msix.pending]);
        places.into_iter().flatten().any(|place| place.shares_page(bar, offset))
    }

    /// Lets the vectors' messages be injected directly. Those of an MSI can't be masked or share a
    /// message's address, unless it has one vector without a mask.
    pub(super) fn inject_directly(
        self: &Arc<Self>,
        (owner, place): (usize, RequesterId),
        store: &Arc<dyn MessageStore>,
        vectors: &[MsiVector],
    ) {
        let is_plain = vectors.len() == 1 && store.fast_mask().is_none();
        if self.msix().is_none() && !is_plain {
            return;
        }
        for vector in vectors {
            let Ok(physical) = Lpi::try_from(vector.hwirq.get()) else { continue };
            let (device, at) = (DeviceId::new(place.get()), (store.clone(), vector.slot));
            let guest = Box::new(GuestMessage(self.clone(), vector.slot));
            direct::add(guest, (owner, device), at, physical);
        }
    }

    fn msix(&self) -> Option<&Msix> {
        match self {
            Self::Msi(..) => None,
            Self::Msix(_, msix) => Some(msix),
        }
    }
}

/// The message of a vector.
struct GuestMessage(Arc<Messages>, u16);

impl GuestVector for GuestMessage {
    fn message(&self) -> Option<MsiMessage> {
        let Self(messages, vector) = self;
        let control = messages.msix().map(|msix| msix.table.control());
        let is_on = control.is_none_or(|control| control.enable() && !control.function_mask());
        messages.address(*vector).filter(|_| is_on)?;
        Some(messages.message(*vector))
    }
}

/// A vector of a function, by its slot.
pub(super) struct Vector {
    messages: Arc<Messages>,
    slot: u16,
    /// The function's address.
    function: RequesterId,
    /// `true` if a message was lost, and the reason was printed.
    is_told: AtomicBool,
}

impl Vector {
    pub(super) const fn new(messages: Arc<Messages>, slot: u16, function: RequesterId) -> Self {
        Self { messages, slot, function, is_told: AtomicBool::new(false) }
    }
}

impl MessageVector for Vector {
    fn signal(&self, delivers: &mut dyn FnMut(DeviceId, MsiMessage) -> bool) {
        let Err(reason) = self.messages.signal(self.slot, delivers) else { return };
        if !self.is_told.swap(true, Relaxed) {
            let (vector, function) = (self.slot, self.function.get());
            let MsiMessage { address, data } = self.messages.message(vector);
            println!(
                "hypervisor: vector {vector} of function {function:#06x}: {reason} ({data:#x} to \
                 {address:#x})"
            );
        }
    }
}
