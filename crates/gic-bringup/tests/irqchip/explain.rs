//! Driver faults, each planted in registers of the machine or of a PCI function, and the obstacle
//! that the explanation must report for each.

use crate::machine::{CPU0, CPU1, Chip, CpuRegisters, ITS, Machine};
use doorbell_hardware::bus::{AccessWidth, Bus, Doorbells};
use doorbell_hardware::pci::enumerate::{FoundFunction, enumerate};
use doorbell_hardware::pci::{
    DevFn, DeviceFunctions, Function, FunctionConfig, HostBridge, Segment, Signalled, StoreConfig,
    Translator, Windows,
};
use gic_arch::icc::{self, Igrpen, SysRegEncoding};
use gic_arch::{Affinity, IntId, gicd, gicr, gits};
use gic_bringup::MsiController;
use gic_driver::{GicError, Group, MmioExt, Route, SecurityView, SystemRegisters};
use gic_firmware::{BusRange, Region};
use irq_domain::{Irq, IrqHandle, MsiDevice, MsiDeviceConfig, RequestError, WiredRequest};
use msi_types::explain::{self, Explanation, Fact, Obstacle, TargetState};
use msi_types::pci::msix;
use msi_types::{
    Cpu, Delivery, DeviceId, HwIrq, IrqState, Level, Line, LocalCpu, MsiError, MsiMessage,
    RequesterId, SignalMsi, Trigger, WiredParent,
};
use std::sync::{Arc, OnceLock};
use vgic::Vgic;

pub(crate) const FUNCTION: RequesterId = RequesterId::pci(0, 3, 0);
const DEVICE: DeviceId = DeviceId::new(0x18);
const DOORBELL: u64 = ITS + 0x1_0040;
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
    found: FoundFunction,
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

/// Plants a fault in a working machine, and checks the obstacle.
pub(crate) fn plant(fault: impl FnOnce(&Setup), expected: Obstacle) {
    let setup = Setup::new();
    assert_eq!(setup.explain().obstacle(), None);
    fault(&setup);
    assert_eq!(setup.explain().obstacle(), Some(expected));
}

#[test]
fn a_working_vector_passes_every_stage() {
    let setup = Setup::new();
    let message = setup.device.message(1).unwrap();
    let interrupt = setup.handle.hwirq();
    let sent = [
        Fact::Message(message),
        Fact::BusMaster,
        Fact::Doorbell(DOORBELL),
        Fact::Event { device: DEVICE, event: message.data.into(), interrupt },
        Fact::Enabled(0xa0),
    ];
    let at = Fact::Target(CPU0, TargetState::Awake);
    let core = [Fact::Irq(setup.handle.irq().get()), Fact::Runs(0)];
    let idle = [at, Fact::WouldSignal(CPU0)];
    assert!(setup.explain().facts().eq(sent.into_iter().chain(idle).chain(core)));
    assert_eq!(setup.function().signal(1), Signalled::Sent(Delivery::Pending));
    let pending = [Fact::Pending(interrupt), at, Fact::Signaled(CPU0)];
    assert!(setup.explain().facts().eq(sent.into_iter().chain(pending).chain(core)));
    assert_eq!(setup.explain().obstacle(), None);
    setup.machine.settle(&setup.chip);
    assert!(setup.explain().facts().any(|fact| fact == Fact::Runs(1)));
}

#[test]
fn a_wrong_requester_is_named() {
    let setup = Setup::as_requester(RequesterId::pci(0, 4, 0));
    let expected = DeviceId::new(0x20);
    let wrong = Obstacle::WrongDevice { expected, actual: DEVICE };
    assert_eq!(setup.explain().obstacle(), Some(wrong));
    assert_eq!(setup.found.requester().function, FUNCTION);
}

#[test]
fn masks_of_the_function_are_named() {
    let masked = |pending| Obstacle::VectorMasked { vector: 1, pending };
    plant(|setup| setup.write_entry(msix::ENTRY_CONTROL, 1), masked(false));
    let waits = |setup: &Setup| {
        setup.write_entry(msix::ENTRY_CONTROL, 1);
        assert_eq!(setup.function().signal(1), Signalled::Held);
    };
    plant(waits, masked(true));
    let function_mask = msix::Control::new().with_enable(true).with_function_mask(true);
    plant(|setup| setup.set_msix(function_mask), Obstacle::FunctionMasked);
    plant(|setup| setup.set_msix(msix::Control::new()), Obstacle::MessagesDisabled);
}

#[test]
fn a_function_that_is_no_bus_master_is_named() {
    let command =
        |value| move |setup: &Setup| setup.function().config_write(4, AccessWidth::Half, value);
    plant(command(2), Obstacle::BusMasterDisabled);
    plant(command(4), Obstacle::MemoryDisabled);
    plant(|setup| setup.function().unplug(), Obstacle::Absent);
}

#[test]
fn a_reset_that_nobody_repaired_is_named() {
    plant(|setup| setup.function().reset(), Obstacle::MessagesDisabled);
}

#[test]
fn a_wrong_doorbell_or_data_is_named() {
    let expected = Setup::new().device.message(1).unwrap();
    let stored = MsiMessage { address: 0x808_0040, ..expected };
    let doorbell = |setup: &Setup| setup.write_entry(msix::ENTRY_ADDRESS_LOW, 0x808_0040);
    plant(doorbell, Obstacle::MessageDiffers { stored, expected });
    let stored = MsiMessage { data: 77, ..expected };
    let data = |setup: &Setup| setup.write_entry(msix::ENTRY_DATA, 77);
    plant(data, Obstacle::MessageDiffers { stored, expected });
}

#[test]
fn an_its_that_is_off_is_named() {
    let setup = Setup::new();
    let enable = |enabled| {
        setup.machine.its().write(gits::CTLR, gits::Ctlr::new().with_enabled(enabled));
    };
    enable(false);
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::ItsDisabled { its: ITS }));
    enable(true);
    assert_eq!(setup.explain().obstacle(), None);
}

#[test]
fn the_state_of_the_redistributor_is_named() {
    let lpis = |setup: &Setup| {
        setup.machine.redistributor(CPU0).write(gicr::CTLR, gicr::Ctlr::new());
    };
    plant(lpis, Obstacle::LpisDisabled { cpu: CPU0 });
    let sleep = |setup: &Setup| {
        let asleep = gicr::Waker::new().with_processor_sleep(true);
        setup.machine.redistributor(CPU0).write(gicr::WAKER, asleep);
    };
    plant(sleep, Obstacle::Asleep { cpu: CPU0 });
    let off = |setup: &Setup| {
        let gic = setup.chip.gic().v3().unwrap();
        setup.on(CPU0, |own| gic.cpu_off(CPU0, own)).unwrap();
    };
    plant(off, Obstacle::Offline { cpu: CPU0 });
}

#[test]
fn a_disabled_lpi_is_named() {
    let interrupt = Setup::new().handle.hwirq();
    let mask = |setup: &Setup| {
        let lpi = gic_arch::Lpi::try_from(setup.handle.hwirq().get()).unwrap();
        for (_, controller) in setup.chip.controllers() {
            let MsiController::Its(its) = controller else { panic!("{controller:?}") };
            its.mask(lpi).unwrap();
        }
    };
    plant(mask, Obstacle::Disabled { interrupt });
    plant(|setup| setup.handle.disable(), Obstacle::DisabledByDriver);
}

#[test]
fn a_group_that_the_distributor_withholds_is_named() {
    let distributor = |setup: &Setup| {
        let gic = setup.chip.gic().v3().unwrap();
        gic.distributor().mmio().write(gicd::CTLR, gicd::Ctlr::new().with_are(true));
    };
    let setup = Setup::new();
    distributor(&setup);
    let gic = setup.chip.gic().v3().unwrap();
    let ctlr = gic.distributor().mmio().read(gicd::CTLR).into();
    plant(distributor, Obstacle::GroupDisabled { group: explain::Group::One, ctlr });
}

#[test]
fn the_state_of_the_interface_is_named() {
    let mask = |setup: &Setup| setup.on(CPU0, |own| own.write(icc::PMR, 0));
    plant(mask, Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu: CPU0 });
    let mask = |setup: &Setup| setup.on(CPU0, |own| own.write(icc::PMR, 0xa0));
    plant(mask, Obstacle::PriorityMasked { priority: 0xa0, mask: 0xa0, cpu: CPU0 });
    let group = |setup: &Setup| {
        setup.on(CPU0, |own| own.write(icc::IGRPEN1, Igrpen::new().with_enable(false)));
    };
    let disabled = Obstacle::InterfaceGroupDisabled { group: explain::Group::One, cpu: CPU0 };
    plant(group, disabled);
    let forgotten_end = |setup: &Setup| {
        assert_eq!(setup.function().signal(1), Signalled::Sent(Delivery::Pending));
        setup.on(CPU0, |own| own.read(icc::IAR1));
    };
    let running = 0xa0;
    plant(forgotten_end, Obstacle::PriorityNotHigher { priority: 0xa0, running, cpu: CPU0 });
}

#[test]
fn masked_exceptions_are_named() {
    let setup = Setup::new();
    let masked =
        setup.on(CPU0, |own| setup.chip.explain(setup.handle.irq(), CPU0, &Masked(own)).unwrap());
    assert_eq!(masked.obstacle(), Some(Obstacle::ExceptionsMasked { cpu: CPU0 }));
}

#[test]
fn the_interface_of_another_cpu_is_explained_there() {
    let setup = Setup::new();
    setup.on(CPU0, |own| own.write(icc::PMR, 0));
    let elsewhere = setup.explain_on(CPU1, setup.handle.irq());
    assert_eq!(elsewhere.obstacle(), None);
    assert!(elsewhere.facts().all(|fact| fact.stage() != explain::Stage::Interface));
    let here = setup.on(CPU0, |own| setup.chip.explain_cpu_interface(elsewhere, CPU0, own));
    let masked = Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu: CPU0 };
    assert_eq!(here.obstacle(), Some(masked));
    setup.handle.disable();
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::DisabledByDriver), "it comes first");
}

#[test]
fn the_state_of_a_line_is_named() {
    let setup = Setup::new();
    let line = setup.line(Trigger::Level);
    let interrupt = HwIrq::new(SPI);
    let explain = || setup.explain_on(CPU0, line.irq());
    assert_eq!(explain().obstacle(), Some(Obstacle::NotPending { interrupt }));
    setup.machine.set_line(Line::Spi(SPI), Level::High);
    let facts = [
        Fact::Input(interrupt),
        Fact::Enabled(0xa0),
        Fact::Pending(interrupt),
        Fact::Target(CPU0, TargetState::Awake),
        Fact::Signaled(CPU0),
        Fact::Irq(line.irq().get()),
        Fact::Runs(0),
    ];
    assert!(explain().facts().eq(facts));
    assert_eq!(explain().obstacle(), None);
    setup.on(CPU0, |own| own.read(icc::IAR1));
    assert_eq!(explain().obstacle(), Some(Obstacle::Active { interrupt, cpu: None }));
    line.disable();
    assert_eq!(explain().obstacle(), Some(Obstacle::DisabledByDriver));
}

#[test]
fn a_line_that_others_change_is_named() {
    let setup = Setup::new();
    let line = setup.line(Trigger::Edge);
    setup.machine.set_line(Line::Spi(SPI), Level::High);
    let explain = || setup.explain_on(CPU0, line.irq()).obstacle();
    assert_eq!(explain(), None);
    let gic = setup.chip.gic().v3().unwrap();
    let (interrupt, intid) = (HwIrq::new(SPI), IntId::new(SPI));
    let spi = gic.interrupt(intid).unwrap();
    gic.distributor().set_route(intid, Route::To(Affinity::new(0, 0, 0, 9))).unwrap();
    assert_eq!(explain(), Some(Obstacle::NoTarget { affinity: 9 }));
    gic.distributor().set_route(intid, Route::To(Affinity::new(0, 0, 0, 1))).unwrap();
    setup.on(CPU1, |own| gic.cpu_off(CPU1, own)).unwrap();
    assert_eq!(explain(), Some(Obstacle::Offline { cpu: CPU1 }));
    let set_group = |group| {
        spi.set_group(&*setup.machine.kernel, SecurityView::Single, group).unwrap();
    };
    set_group(Group::Zero);
    let wrong = Obstacle::WrongGroup { interrupt, group: explain::Group::Zero };
    assert_eq!(explain(), Some(wrong));
    set_group(Group::One);
    gic.mask(interrupt);
    assert_eq!(explain(), Some(Obstacle::Disabled { interrupt }));
    let missing = HwIrq::new(1019);
    let absent = Obstacle::NoSuchInterrupt { interrupt: missing };
    assert_eq!(gic.explain(missing).obstacle(), Some(absent));
}

#[test]
fn a_cpu_that_was_never_turned_on_is_named() {
    let machine = Machine::new();
    let chip = machine.bring_up().unwrap();
    machine.execute(CPU0, |own| chip.cpu_on(CPU0, own, |_| unreachable!())).unwrap();
    for (hwirq, trigger) in [(1, Trigger::Edge), (27, Trigger::Level)] {
        let hwirq = HwIrq::new(hwirq);
        let private = chip.interrupts().request_per_cpu(hwirq, trigger, "private", |_| {}).unwrap();
        let explained = machine.execute(CPU1, |own| {
            private.enable_here();
            machine.kernel.irq_restore(IrqState::new(0));
            chip.explain(private.irq(), CPU1, own).unwrap()
        });
        assert_eq!(explained.obstacle(), Some(Obstacle::Offline { cpu: CPU1 }), "{hwirq}");
    }
    let sgi = gic_arch::SgiId::new(1).unwrap();
    let sent = machine.execute(CPU0, |own| chip.send_ipi(sgi, &[CPU0, CPU1], own));
    assert!(matches!(sent, Err(GicError::CpuOff(CPU1))), "{sent:?}");
}

#[test]
fn private_interrupts_that_do_not_exist_are_refused() {
    let setup = Setup::new();
    let request = |hwirq| {
        let interrupts = setup.chip.interrupts();
        interrupts.request_per_cpu(HwIrq::new(hwirq), Trigger::Level, "private", |_| {})
    };
    for hwirq in [0, 15, 16, 31] {
        assert!(request(hwirq).is_ok(), "{hwirq}");
    }
    // SPIs, special INTIDs, an extended PPI and an extended SPI that are not implemented, an LPI.
    for hwirq in [32, 1019, 1020, 1023, 1056, 1119, 4096, 5119, 8193, u32::MAX] {
        let refused = RequestError::from(MsiError::UnknownVector(HwIrq::new(hwirq)));
        assert_eq!(request(hwirq).map(drop), Err(refused));
    }
}

#[test]
fn a_pending_input_without_a_driver_is_shown() {
    let setup = Setup::new();
    let line = setup.line(Trigger::Level);
    let facts = || setup.explain_on(CPU0, line.irq());
    let shown = |fact| facts().facts().any(|known| known == fact);
    for (raised, expected) in [(SPI + 1, true), (SPI - 8, true), (SPI, false)] {
        setup.machine.set_line(Line::Spi(raised), Level::High);
        assert_eq!(shown(Fact::OtherPending(HwIrq::new(raised))), expected, "{raised}");
        let names_numbers = facts().fix().is_some_and(|fix| fix.contains("INTID 32 + n"));
        assert_eq!(names_numbers, expected, "{raised}");
        setup.machine.set_line(Line::Spi(raised), Level::Low);
    }
}

#[test]
fn a_binary_point_that_hides_the_priority_is_shown() {
    for (binary_point, is_shown) in [(6, true), (5, false)] {
        let setup = Setup::new();
        setup.function().signal(1);
        setup.on(CPU0, |own| {
            own.write_raw(icc::BPR1.encoding(), binary_point);
            own.read(icc::IAR1)
        });
        let explained = setup.explain();
        let point = u8::try_from(binary_point).unwrap();
        let (priority, group_priority) = (0xa0, 0x80);
        let grouping = Fact::GroupPriority { priority, group_priority, binary_point: point };
        assert_eq!(explained.facts().any(|fact| fact == grouping), is_shown);
        assert!(matches!(explained.obstacle(), Some(Obstacle::PriorityNotHigher { .. })));
        let names_point = explained.fix().is_some_and(|fix| fix.contains("lower the binary point"));
        assert_eq!(names_point, is_shown);
    }
}

#[test]
fn a_private_interrupt_is_explained_on_its_cpu() {
    let setup = Setup::new();
    let hwirq = HwIrq::new(27);
    let interrupts = setup.chip.interrupts();
    let timer = interrupts.request_per_cpu(hwirq, Trigger::Level, "timer", |_| {}).unwrap();
    let explain = |cpu| setup.explain_on(cpu, timer.irq()).obstacle();
    setup.machine.execute(CPU1, |_| timer.enable_here());
    assert_eq!(explain(CPU0), Some(Obstacle::DisabledByDriver));
    assert_eq!(explain(CPU1), Some(Obstacle::NotPending { interrupt: hwirq }));
    setup.machine.set_line(Line::Ppi { cpu: CPU1, intid: 27 }, Level::High);
    assert_eq!(explain(CPU1), None);
    setup.on(CPU1, |own| own.write(icc::PMR, 0));
    let masked = Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu: CPU1 };
    assert_eq!(explain(CPU1), Some(masked));
}

#[test]
fn debug_fits_a_screen() {
    let setup = Setup::new();
    let text = format!("{:#?}", setup.chip);
    for part in [
        "view: Single,",
        "cpus: 2 of 2 on,",
        "enabled: true,",
        "collections: 2 of 2 mapped,",
        "DeviceID 0x18, EventID 1: LPI 8193 at CPU 0,",
        "faults: 0,",
        "cpus: 2 of 2 online,",
        "interrupts: 2,",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().count() < 40, "{text}");
}
