//! Minimal drivers that only make devices send interrupts.

use crate::report::{Outcome, Verdict, check};
use alloc::sync::Arc;
use image_rt::nvme::Nvme;
use image_rt::pci::{self, Function, MappedRegion};
use image_rt::virtio::{QUEUE_SLOT, Rng, SLOTS};
use irq_domain::pci::TableMemory;

/// A kind of device that has a driver in this module.
pub(crate) struct DeviceKind {
    pub(crate) name: &'static str,
    /// Vendor and device ID.
    ids: (u16, u16),
    make: fn(&Function) -> Arc<dyn Driver>,
}

const fn kind(
    name: &'static str,
    ids: (u16, u16),
    make: fn(&Function) -> Arc<dyn Driver>,
) -> DeviceKind {
    DeviceKind { name, ids, make }
}

/// All kinds of devices.
const KINDS: &[DeviceKind] = &[
    kind("edu", (0x1234, 0x11e8), |function| Arc::new(Edu(pci::bar(function, 0)))),
    kind("nvme", (0x1b36, 0x0010), |it| Arc::new(Nvme::new(pci::bar(it, 0), IO_QUEUES))),
    kind("virtio-net", (0x1af4, 0x1041), |_| Arc::new(Silent(3))),
    kind("virtio-rng", (0x1af4, 0x1044), |function| Arc::new(Rng::new(function))),
    // 16 messages of multi-message MSI.
    kind("nec-usb-xhci", (0x1033, 0x0194), |_| Arc::new(Silent(16))),
];

impl DeviceKind {
    /// Returns the kind of a function.
    pub(crate) fn of(function: &Function) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.ids == pci::ids(function))
    }

    /// Returns `true` if the function is of this kind.
    pub(crate) fn is(function: &Function, name: &str) -> bool {
        Self::of(function).is_some_and(|kind| kind.name == name)
    }

    /// Creates the function's driver.
    pub(crate) fn drive(&self, function: &Function) -> Arc<dyn Driver> {
        (self.make)(function)
    }
}

/// A device with this number of messages, which no driver makes it send.
struct Silent(u16);

impl Driver for Silent {
    fn vectors(&self) -> u16 {
        self.0
    }

    fn fires(&self) -> bool {
        false
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        Ok(false)
    }
}

/// A minimal driver of a device for tests.
pub(crate) trait Driver: Send + Sync {
    /// Returns the number of vectors that the driver uses.
    fn vectors(&self) -> u16;

    /// Returns `true` if the driver can make the device send at least one of its messages.
    fn fires(&self) -> bool {
        true
    }

    /// Returns `true` if [`fire`](Self::fire) returns before the handler has run.
    fn posts(&self) -> bool {
        true
    }

    /// Initializes the device. The device's vectors already have handlers.
    fn start(&self) -> Outcome {
        Ok(())
    }

    /// Makes the device send the message of `slot`, or returns `false` if the driver cannot do so.
    /// Must be called from a task.
    fn fire(&self, slot: u16) -> Result<bool, Verdict>;

    /// Handles an interrupt of the device. Called in hard IRQ context.
    fn handle(&self, slot: u16) {
        let _ = slot;
    }
}

/// Number of I/O queues: one for each of at most eight CPUs.
const IO_QUEUES: u16 = 8;

/// Returns the address of the code of the handler, whose instructions the runner counts.
pub(crate) fn handler_address() -> usize {
    let handle: fn(&Nvme<MappedRegion>, u16) = Driver::handle;
    (handle as *const ()).addr()
}

impl Driver for Nvme<MappedRegion> {
    fn vectors(&self) -> u16 {
        1 + IO_QUEUES
    }

    fn posts(&self) -> bool {
        false
    }

    fn start(&self) -> Outcome {
        Ok(Self::start(self)?)
    }

    /// On queue 0, identifies the controller. On queue *n*, reads sector *n*. Each sector contains
    /// its own number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot == 0 {
            self.identify()?;
            return Ok(true);
        }
        let number = self.read(slot, slot.into())?;
        check!(number == slot.into(), "sector {slot} contains number {number:#x}");
        Ok(true)
    }

    fn handle(&self, slot: u16) {
        self.complete(slot);
    }
}

impl Driver for Rng {
    fn vectors(&self) -> u16 {
        SLOTS
    }

    fn start(&self) -> Outcome {
        self.assign();
        Ok(())
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot != QUEUE_SLOT {
            return Ok(false);
        }
        check!(self.fetch()? != [0; 16], "no entropy");
        Ok(true)
    }
}

/// Interrupt status register: 0 while the interrupt is not asserted.
pub(crate) const STATUS: u64 = 0x24;
/// Registers that raise and acknowledge the interrupt.
pub(crate) const RAISE: u64 = 0x60;
pub(crate) const ACKNOWLEDGE: u64 = 0x64;

/// An `edu` device.
struct Edu(MappedRegion);

impl Driver for Edu {
    fn vectors(&self) -> u16 {
        1
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        self.0.write32(RAISE, 1);
        Ok(true)
    }

    fn handle(&self, _: u16) {
        self.0.write32(ACKNOWLEDGE, 1);
    }
}
