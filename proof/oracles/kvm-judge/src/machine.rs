//! The common operations of machines with KVM's GIC and with the model's.

use crate::layout::CPUS;
use crate::{Operation, Ram};
use gic_arch::{Affinity, Iidr};
use msi_types::{Delivery, DeviceId, EventId, Level};
use std::error::Error;
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, Errno};

/// The newest revision of KVM's GIC.
pub(crate) const NEWEST: u8 = 3;

/// Returns `GICD_IIDR` of a revision of KVM's GIC.
pub(crate) const fn iidr(revision: u8) -> Iidr {
    Iidr::new().with_implementer(0x43b).with_product_id(0x4b).with_revision(revision)
}

/// A failure of the machine itself, as opposed to its guest.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A machine with a GICv3, two ITSes and a guest that performs given operations.
pub trait Machine {
    /// Returns the machine's memory.
    fn ram(&self) -> &Ram;

    /// Lets the guest perform operations on a vCPU, and returns the values that it read.
    fn run(&mut self, cpu: u16, operations: &[Operation]) -> Result<Vec<u64>, Failure>;

    /// Lets the guest set a vCPU's priority mask and Group 1 binary point, and enable Group 1.
    fn configure(&mut self, cpu: u16, mask: u64, binary_point: u64) -> Result<(), Failure>;

    /// Sends a device's message to the ITS with this index.
    fn signal(&mut self, its: usize, device: DeviceId, event: EventId)
    -> Result<Delivery, Failure>;

    /// Drives the input of an SPI.
    fn drive(&mut self, spi: u32, level: Level) -> Result<(), Failure>;

    /// Lets the guest acknowledge an interrupt on a vCPU without ending it. Returns 1020 to 1023 if
    /// none is pending.
    fn take(&mut self, cpu: u16) -> Result<u32, Failure>;

    /// Lets the guest end an interrupt that it took.
    fn end(&mut self, cpu: u16, intid: u32) -> Result<(), Failure>;

    /// Lets the guest acknowledge and end all interrupts that are signaled to a vCPU, and returns
    /// their INTIDs in order. The device of [`LEVEL_LINE`](crate::layout::LEVEL_LINE) then lowers
    /// its line.
    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<u32>, Failure>;

    /// Reads an attribute.
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno>;

    /// Checks for an attribute.
    fn has(&mut self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno>;

    /// Writes an attribute.
    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno>;
}

/// Returns the affinities of the vCPUs in order.
pub(crate) fn affinities() -> impl Iterator<Item = Affinity> {
    (0..CPUS).map(|cpu| Affinity::from_packed(u32::from(cpu)))
}
