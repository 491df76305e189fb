//! A booted machine with a PCI function that sends messages to its ITS.
//!
//! Tests with a boot CPU that is not the first CPU in the description.

use crate::machine::{CPU0, CPU1, Chip, CpuRegisters, ITS, Machine, function};
use doorbell_hardware::bus::{AccessWidth, Bus, Doorbells};
use doorbell_hardware::pci::enumerate::{FoundFunction, enumerate};
use doorbell_hardware::pci::{
    DevFn, DeviceFunctions, Function, FunctionConfig, HostBridge, Segment, StoreConfig, Translator,
    Windows,
};
use gic_arch::icc::SysRegEncoding;
use gic_bringup::CpuError;
use gic_driver::SystemRegisters;
use gic_firmware::{BusRange, Region};
use irq_domain::{Irq, IrqHandle, MsiDevice, MsiDeviceConfig, WiredRequest};
use msi_types::explain::Explanation;
use msi_types::pci::msix;
use msi_types::{
    Cpu, Delivery, DeviceId, HwIrq, IrqState, Level, Line, LocalCpu, MsiMessage, RequesterId,
    Shape, SignalMsi, Trigger,
};
use std::sync::{Arc, OnceLock};
use vgic::Vgic;

pub(crate) const FUNCTION: RequesterId = RequesterId::pci(0, 3, 0);
pub(crate) const DEVICE: DeviceId = DeviceId::new(0x18);
pub(crate) const DOORBELL: u64 = ITS + 0x1_0040;
pub(crate) const SPI: u32 = 40;

/// The ITS's doorbell on the bus.
struct Ring(Arc<Vgic>);

impl SignalMsi<DeviceId> for Ring {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        self.0.its(0).unwrap().signal_msi(from, message)
    }
}

/// Registers of a CPU that masks IRQ exceptions.
pub(crate) struct Masked<'a>(pub(crate) &'a CpuRegisters<'a>);

impl SystemRegisters for Masked<'_> {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        self.0.read_raw(register)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        self.0.write_raw(register, value);
    }

    fn irqs_masked(&self) -> Option<bool> {
        Some(true)
    }
}

fn windows() -> Windows {
    Windows {
        ecam: Region::new(0x3f00_0000, 0x10_0000).unwrap(),
        memory: Region::new(0x1000_0000, 0x100_0000).unwrap(),
        buses: BusRange { first: 0, last: 0 },
    }
}

/// Attaches a host bridge to the bus, with a function whose DeviceID equals its requester ID.
fn plug(bus: &mut Bus, gic: &Arc<Vgic>) -> Arc<HostBridge> {
    let mut doorbells = Doorbells::default();
    doorbells.listen(DOORBELL, Arc::new(Ring(gic.clone())));
    let upstream = Translator::new(Arc::new(doorbells), |from| Some(DeviceId::new(from.get())));
    let mut root = Segment::new(0);
    let config = FunctionConfig {
        store: StoreConfig::Msix { vectors: 4, table_bar: 0, pba_bar: 0 },
        at: DevFn::new(3, 0),
        functions_in_device: DeviceFunctions::One,
    };
    root.plug(config, Arc::new(upstream));
    let host = Arc::new(HostBridge::new(windows(), root));
    bus.attach("ecam", windows().ecam, host.ecam()).unwrap();
    bus.attach("memory", windows().memory, host.memory()).unwrap();
    host
}

/// A booted machine with a function whose vector 1 has a handler on CPU 0.
pub(crate) struct Setup {
    pub(crate) machine: Machine,
    pub(crate) chip: Chip,
    host: Arc<HostBridge>,
    pub(crate) found: FoundFunction,
    pub(crate) device: MsiDevice,
    pub(crate) handle: IrqHandle,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::as_requester(FUNCTION)
    }

    /// Creates the setup with a driver that attaches the function under this requester ID.
    pub(crate) fn as_requester(requester: RequesterId) -> Self {
        let host = OnceLock::new();
        let plug = |bus: &mut Bus, gic: &Arc<Vgic>| {
            assert!(host.set(plug(bus, gic)).is_ok());
        };
        let machine = Machine::with_devices(|_| (), plug);
        let chip = machine.boot();
        let found = enumerate(&machine.bus(), windows()).unwrap().remove(0);
        let store = found.store(machine.kernel.clone()).unwrap();
        let bridge = chip.description().hosts.first().unwrap();
        let parent = chip.pci_parent(bridge, requester).unwrap();
        let config = MsiDeviceConfig::new("nvme0", requester, parent, store.store);
        let device = MsiDevice::attach(chip.interrupts(), config).unwrap();
        device.allocate(store.shape, 2..=2).unwrap();
        let handle = device.request(1, "nvme0-io", |_| {}).unwrap();
        handle.set_affinity(CPU0).unwrap();
        Self { machine, chip, host: host.into_inner().unwrap(), found, device, handle }
    }

    pub(crate) fn function(&self) -> &Function {
        &self.host.functions()[0]
    }

    /// Returns the address of a register of vector 1 in the MSI-X table.
    pub(crate) fn entry(&self, register: u64) -> u64 {
        let base = self.function().config_read(0x10, AccessWidth::Word) & !0xf;
        u64::from(base) + msix::ENTRY_SIZE + register
    }

    pub(crate) fn write_entry(&self, register: u64, value: u32) {
        let bus = self.machine.bus();
        bus.write(self.entry(register), AccessWidth::Word, value.into());
    }

    /// Returns the offset of MSI-X Message Control in configuration space.
    pub(crate) fn msix_control(&self) -> u16 {
        let at = |offset: u16| self.function().config_read(offset, AccessWidth::Byte);
        let at = |offset| u16::try_from(at(offset)).unwrap();
        let mut capability = at(0x34);
        while at(capability) != u16::from(msix::CAPABILITY_ID) {
            capability = at(capability + 1);
        }
        capability + msix::CONTROL
    }

    pub(crate) fn set_msix(&self, control: msix::Control) {
        let control = u16::from(control).into();
        self.function().config_write(self.msix_control(), AccessWidth::Half, control);
    }

    pub(crate) fn explain(&self) -> Explanation {
        self.explain_on(CPU0, self.handle.irq())
    }

    pub(crate) fn explain_on(&self, cpu: Cpu, irq: Irq) -> Explanation {
        self.on(cpu, |own| self.chip.explain(irq, cpu, own).unwrap())
    }

    /// Runs `code` in a task on `cpu`.
    pub(crate) fn on<R>(&self, cpu: Cpu, code: impl FnOnce(&CpuRegisters<'_>) -> R) -> R {
        self.machine.execute(cpu, |own| {
            self.machine.kernel.irq_restore(IrqState::new(0));
            code(own)
        })
    }

    pub(crate) fn line(&self, trigger: Trigger) -> IrqHandle {
        let request = WiredRequest::new(HwIrq::new(SPI), trigger, "line");
        let line = self.chip.interrupts().request_wired(request, |_| {}).unwrap();
        line.set_affinity(CPU0).unwrap();
        line
    }
}

#[test]
fn the_boot_cpu_is_cpu_0_at_any_position_in_the_description() {
    let machine = Machine::new().with_cpus_in_reverse();
    let chip = machine.boot();
    let described: Vec<_> =
        chip.description().enabled_cpus().map(|cpu| cpu.affinity.value).collect();
    assert_eq!([chip.affinity(CPU1), chip.affinity(CPU0)].map(Option::unwrap), described[..]);
    assert_eq!(chip.cpu_with(described[1]), Some(CPU0));
    let (device, messages) = function(&chip);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let handles = [0, 1].map(|slot| device.request(slot, "queue", |_| {}).unwrap());
    handles[0].set_affinity(CPU0).unwrap();
    handles[1].set_affinity(CPU1).unwrap();
    machine.send(&messages, 0);
    assert!(machine.wants(CPU0) && !machine.wants(CPU1));
    machine.send(&messages, 1);
    assert!(machine.wants(CPU1));
    machine.settle(&chip);
    assert_eq!(handles.map(|handle| handle.count()), [1, 1]);
}

#[test]
fn a_boot_cpu_keeps_its_kernel_number() {
    let machine = Machine::new();
    let chip = machine.execute_task(CPU1, || machine.bring_up()).unwrap();
    assert!(chip.interrupts().is_online(CPU1) && !chip.interrupts().is_online(CPU0));
    machine.execute(CPU1, |registers| chip.cpu_on(CPU1, registers, |_| unreachable!())).unwrap();
    let request = WiredRequest::new(HwIrq::new(SPI), Trigger::Edge, "uart");
    let handle = chip.interrupts().request_wired(request, |_| {}).unwrap();
    machine.set_line(Line::Spi(SPI), Level::High);
    assert!(machine.wants(CPU1));
    machine.settle(&chip);
    assert_eq!(handle.count(), 1);
}

#[test]
fn cpu_on_refuses_to_run_on_another_cpu() {
    let machine = Machine::new();
    let chip = machine.bring_up().unwrap();
    let [expected, found] = [CPU1, CPU0].map(|cpu| chip.affinity(cpu).unwrap());
    let refused = machine.execute(CPU0, |registers| chip.cpu_on(CPU1, registers, |_| ()));
    assert_eq!(refused, Err(CpuError::OtherCpu { expected, found }));
}
