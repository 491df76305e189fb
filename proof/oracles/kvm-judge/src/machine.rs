//! Operations that machines on KVM and machines on the model have in common.

use crate::layout::CPUS;
use crate::memory::Ram;
use crate::{Failure, Operation};
use gic_arch::{Affinity, Iidr};
use msi_types::{Delivery, DeviceId, EventId, Level};
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, Errno};

/// The latest revision of KVM's GIC.
pub(crate) const NEWEST: u8 = 3;

/// Returns `GICD_IIDR` for a revision of KVM's GIC.
pub(crate) const fn iidr(revision: u8) -> Iidr {
    Iidr::new().with_implementer(0x43b).with_product_id(0x4b).with_revision(revision)
}

/// A machine with a GICv3 and two ITSes, whose guest performs the operations that it is given.
pub trait Machine {
    /// Returns the machine's memory.
    fn ram(&self) -> &Ram;

    /// Makes the guest perform operations on a vCPU. Returns the values that the guest read.
    fn run(&mut self, cpu: u16, operations: &[Operation]) -> Result<Vec<u64>, Failure>;

    /// Makes the guest set a vCPU's priority mask and Group 1 binary point, and enable Group 1
    /// interrupts.
    fn configure(&mut self, cpu: u16, mask: u64, binary_point: u64) -> Result<(), Failure>;

    /// Sends a device message to the ITS with this index.
    fn signal(&mut self, its: usize, device: DeviceId, event: EventId)
    -> Result<Delivery, Failure>;

    /// Drives an SPI's input.
    fn drive(&mut self, spi: u32, level: Level) -> Result<(), Failure>;

    /// Makes the guest acknowledge an interrupt on a vCPU without ending it. Returns 1020 to 1023
    /// if no interrupt is pending.
    fn take(&mut self, cpu: u16) -> Result<u32, Failure>;

    /// Makes the guest end an interrupt that it has acknowledged.
    fn end(&mut self, cpu: u16, intid: u32) -> Result<(), Failure>;

    /// Makes the guest acknowledge and end all interrupts that are signaled to a vCPU. Returns the
    /// INTIDs of these interrupts in order. The device on [`LEVEL_LINE`](crate::layout::LEVEL_LINE)
    /// then deasserts its line.
    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<u32>, Failure>;

    /// Returns whether a vCPU is powered off, or `None` if the machine does not know.
    fn stopped(&self, cpu: u16) -> Result<Option<bool>, Failure>;

    /// Reads an attribute.
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno>;

    /// Returns whether the machine has an attribute.
    fn has(&mut self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno>;

    /// Writes an attribute.
    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno>;
}

/// Returns the vCPUs' affinity values in order.
pub(crate) fn affinities() -> impl Iterator<Item = Affinity> {
    (0..CPUS).map(|cpu| Affinity::from_packed(u32::from(cpu)))
}
