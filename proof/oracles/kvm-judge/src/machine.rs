//! The operations of every machine here, with KVM's GIC or the model's.

use crate::layout::CPUS;
use crate::{Failure, Operation, Ram};
use gic_arch::{Affinity, Iidr};
use msi_types::{Delivery, DeviceId, EventId, Level};
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, Errno};

/// The newest revision of KVM's GIC.
pub(crate) const NEWEST: u8 = 3;

/// `GICD_IIDR` of KVM's GIC of a revision.
pub(crate) const fn iidr(revision: u8) -> Iidr {
    Iidr::new().with_implementer(0x43b).with_product_id(0x4b).with_revision(revision)
}

/// A machine with a GICv3, two ITSes and a guest that does what it is told.
pub trait Machine {
    /// Its memory.
    fn ram(&self) -> &Ram;

    /// Has the guest do the operations on a vCPU; returns what it read.
    fn run(&mut self, cpu: u16, operations: &[Operation]) -> Result<Vec<u64>, Failure>;

    /// Has the guest set a vCPU's priority mask and Group 1 binary point, and enable Group 1.
    fn configure(&mut self, cpu: u16, mask: u64, binary_point: u64) -> Result<(), Failure>;

    /// A message of a device to an ITS, by its number.
    fn signal(&mut self, its: usize, device: DeviceId, event: EventId)
    -> Result<Delivery, Failure>;

    /// Drives the input of an SPI.
    fn drive(&mut self, spi: u32, level: Level) -> Result<(), Failure>;

    /// Has the guest acknowledge an interrupt on a vCPU, and not end it. From 1020 to 1023, there
    /// is none.
    fn take(&mut self, cpu: u16) -> Result<u32, Failure>;

    /// Has the guest end an interrupt that it took.
    fn end(&mut self, cpu: u16, intid: u32) -> Result<(), Failure>;

    /// Has the guest acknowledge and end on a vCPU whatever is signalled to it; returns the INTIDs
    /// in their order. The device of [`LEVEL_LINE`](crate::layout::LEVEL_LINE) lowers it then.
    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<u32>, Failure>;

    /// Reads an attribute.
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno>;

    /// Asks for an attribute.
    fn has(&mut self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno>;

    /// Writes an attribute.
    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno>;
}

/// Affinities of the vCPUs, in order.
pub(crate) fn affinities() -> impl Iterator<Item = Affinity> {
    (0..CPUS).map(|cpu| Affinity::from_packed(u32::from(cpu)))
}
