//! What the hypervisor must know of a machine that it runs on.

use crate::flash::Flash;
use crate::uart::{self, Uart};
use alloc::boxed::Box;
use alloc::vec::Vec;
use dtoolkit::model::DeviceTreeNode;
use el2_passthrough::Pci;
use el2_vm::Devices;

/// A machine, and what its guests' machines have in common with it.
pub(crate) struct Board {
    /// Address of a guest's RAM.
    pub(crate) ram: u64,
    /// INTIDs of the pins of device 0 on a guest's PCI bus, or `None` if functions cannot be
    /// assigned to guests.
    pub(crate) intx: Option<[u32; 4]>,
    /// `true` if guests may start from flash.
    pub(crate) has_flash: bool,
    /// The machine's UART, which a guest has if it runs alone.
    pub(crate) uart: &'static uart::Model,
    /// Creates a guest's devices.
    pub(crate) devices: fn(Parts) -> Box<dyn Devices>,
    /// Describes the devices that have no part.
    pub(crate) nodes: fn() -> Vec<DeviceTreeNode>,
}

/// Parts of a guest's machine that depend on the guest.
pub(crate) struct Parts {
    pub(crate) uart: Uart,
    pub(crate) flash: Flash,
    pub(crate) pci: Option<Pci>,
}
