//! QEMU's educational device (docs/specs/edu.rst). A store to one of its registers sends its
//! message. QEMU sends the message before the store instruction completes.

use gic_bringup::Irqchip;
use gic_firmware::PciHost;
use image_rt::pci::{self, Function, MappedRegion};
use image_rt::platform::Kernel;
use irq_domain::pci::{FunctionStore, TableMemory};
use irq_domain::{IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig};
use msi_types::Cpu;

/// Vendor and device ID.
const EDU: (u16, u16) = (0x1234, 0x11e8);
/// Registers that raise and acknowledge the interrupt.
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;

/// An `edu` device whose interrupt initially targets CPU 0.
pub(crate) struct Edu {
    registers: MappedRegion,
    _device: MsiDevice,
    handle: IrqHandle,
}

impl Edu {
    /// Finds the device behind the first host bridge. The interrupt handler of the device calls
    /// `begun` first.
    pub(crate) fn find(irqchip: &Irqchip<Kernel>, begun: fn()) -> Option<Self> {
        let host = irqchip.description().hosts.first()?;
        let functions = pci::enumerate(irqchip.description(), host);
        let function = functions.iter().find(|function| pci::ids(function) == EDU)?;
        Some(Self::start(irqchip, host, function, begun))
    }

    fn start(irqchip: &Irqchip<Kernel>, host: &PciHost, function: &Function, begun: fn()) -> Self {
        let requester = function.requester();
        let parent =
            irqchip.pci_parent(host, requester).expect("the host bridge has no MSI parent");
        let FunctionStore { store, shape } =
            pci::store(function).expect("edu has no MSI capability");
        let config = MsiDeviceConfig::new("edu", requester.function, parent, store);
        let device =
            MsiDevice::attach(irqchip.interrupts(), config).expect("edu could not be attached");
        device.allocate(shape, 1..=1).expect("a vector could not be allocated");
        let registers = pci::bar(function, 0);
        let handler = move |_: &IrqContext<'_>| {
            begun();
            registers.write32(ACKNOWLEDGE, 1);
        };
        let handle = device.request(0, "edu", handler).expect("the vector was allocated above");
        let edu = Self { registers, _device: device, handle };
        edu.move_to(Cpu::new(0));
        edu
    }

    /// Makes the message signal another CPU.
    pub(crate) fn move_to(&self, cpu: Cpu) {
        self.handle.set_affinity(cpu).expect("the interrupt could not be moved");
    }

    /// Makes the device send its message.
    pub(crate) fn fire(&self) {
        self.registers.write32(RAISE, 1);
    }
}
