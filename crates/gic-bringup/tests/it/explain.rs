//! Driver faults, each planted in registers of the machine or of a PCI function, and the obstacle
//! that the explanation must report for each.

use crate::machine::{CPU0, CPU1, ITS, Machine};
use crate::setup::{DEVICE, DOORBELL, FUNCTION, Masked, SPI, Setup};
use doorbell_hardware::bus::AccessWidth;
use doorbell_hardware::pci::Signaled;
use gic_arch::icc::{self, Igrpen};
use gic_arch::{Affinity, IntId, gicd, gicr, gits};
use gic_bringup::MsiController;
use gic_driver::{GicError, Group, MmioExt, Route, SecurityView, SystemRegisters};
use irq_domain::RequestError;
use msi_types::explain::{self, Fact, Obstacle, TargetState};
use msi_types::pci::msix;
use msi_types::{
    Delivery, DeviceId, HwIrq, IrqState, Level, Line, LocalCpu, MsiError, MsiMessage, RequesterId,
    Trigger, WiredParent,
};

/// Plants a fault in a working machine, and checks the obstacle.
pub(crate) fn plant(fault: impl FnOnce(&Setup), expected: Obstacle) {
    let setup = Setup::new();
    assert_eq!(setup.explain().obstacle(), None);
    fault(&setup);
    assert_eq!(setup.explain().obstacle(), Some(expected));
}

#[test]
fn explain_finds_no_obstacle_for_a_working_vector() {
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
    assert_eq!(setup.function().signal(1), Signaled::Sent(Delivery::Pending));
    let pending = [Fact::Pending(interrupt), at, Fact::Signaled(CPU0)];
    assert!(setup.explain().facts().eq(sent.into_iter().chain(pending).chain(core)));
    assert_eq!(setup.explain().obstacle(), None);
    setup.machine.settle(&setup.chip);
    assert!(setup.explain().facts().any(|fact| fact == Fact::Runs(1)));
}

#[test]
fn explain_names_a_wrong_device_id() {
    let setup = Setup::as_requester(RequesterId::pci(0, 4, 0));
    let expected = DeviceId::new(0x20);
    let wrong = Obstacle::WrongDevice { expected, actual: DEVICE };
    assert_eq!(setup.explain().obstacle(), Some(wrong));
    assert_eq!(setup.found.requester().function, FUNCTION);
}

#[test]
fn explain_names_masked_or_disabled_msix_vectors() {
    let masked = |pending| Obstacle::VectorMasked { vector: 1, pending };
    plant(|setup| setup.write_entry(msix::ENTRY_CONTROL, 1), masked(false));
    let waits = |setup: &Setup| {
        setup.write_entry(msix::ENTRY_CONTROL, 1);
        assert_eq!(setup.function().signal(1), Signaled::Held);
    };
    plant(waits, masked(true));
    let function_mask = msix::Control::new().with_enable(true).with_function_mask(true);
    plant(|setup| setup.set_msix(function_mask), Obstacle::FunctionMasked);
    plant(|setup| setup.set_msix(msix::Control::new()), Obstacle::MessagesDisabled);
}

#[test]
fn explain_names_disabled_bus_mastering_and_absent_functions() {
    let command =
        |value| move |setup: &Setup| setup.function().config_write(4, AccessWidth::Half, value);
    plant(command(2), Obstacle::BusMasterDisabled);
    plant(command(4), Obstacle::MemoryDisabled);
    plant(|setup| setup.function().unplug(), Obstacle::Absent);
}

#[test]
fn explain_names_messages_disabled_by_a_function_reset() {
    plant(|setup| setup.function().reset(), Obstacle::MessagesDisabled);
}

#[test]
fn explain_names_a_wrong_message_address_or_data() {
    let expected = Setup::new().device.message(1).unwrap();
    let stored = MsiMessage { address: 0x808_0040, ..expected };
    let doorbell = |setup: &Setup| setup.write_entry(msix::ENTRY_ADDRESS_LOW, 0x808_0040);
    plant(doorbell, Obstacle::MessageDiffers { stored, expected });
    let stored = MsiMessage { data: 77, ..expected };
    let data = |setup: &Setup| setup.write_entry(msix::ENTRY_DATA, 77);
    plant(data, Obstacle::MessageDiffers { stored, expected });
}

#[test]
fn explain_names_a_disabled_its() {
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
fn explain_names_redistributor_states_that_block_an_lpi() {
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
fn explain_names_a_disabled_lpi() {
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
fn explain_names_a_group_disabled_at_the_distributor() {
    let setup = Setup::new();
    let mmio = setup.chip.gic().v3().unwrap().distributor().mmio();
    mmio.write(gicd::CTLR, gicd::Ctlr::new().with_are(true));
    let ctlr = mmio.read(gicd::CTLR).into();
    let disabled = Obstacle::GroupDisabled { group: explain::Group::One, ctlr };
    assert_eq!(setup.explain().obstacle(), Some(disabled));
}

#[test]
fn explain_names_cpu_interface_states_that_block_an_lpi() {
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
        assert_eq!(setup.function().signal(1), Signaled::Sent(Delivery::Pending));
        setup.on(CPU0, |own| own.read(icc::IAR1));
    };
    let running = 0xa0;
    plant(forgotten_end, Obstacle::PriorityNotHigher { priority: 0xa0, running, cpu: CPU0 });
}

#[test]
fn explain_names_masked_exceptions() {
    let setup = Setup::new();
    let masked =
        setup.on(CPU0, |own| setup.chip.explain(setup.handle.irq(), CPU0, &Masked(own)).unwrap());
    assert_eq!(masked.obstacle(), Some(Obstacle::ExceptionsMasked { cpu: CPU0 }));
}

#[test]
fn the_cpu_interface_is_explained_only_on_its_own_cpu() {
    let setup = Setup::new();
    setup.on(CPU0, |own| own.write(icc::PMR, 0));
    let elsewhere = setup.explain_on(CPU1, setup.handle.irq());
    assert_eq!(elsewhere.obstacle(), None);
    assert!(elsewhere.facts().all(|fact| fact.stage() != explain::Stage::Interface));
    let here = setup.on(CPU0, |own| setup.chip.explain_cpu_interface(elsewhere, CPU0, own));
    let masked = Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu: CPU0 };
    assert_eq!(here.obstacle(), Some(masked));
    setup.handle.disable();
    assert!(setup.explain().obstacles().eq([masked, Obstacle::DisabledByDriver]));
}

#[test]
fn explain_reports_the_facts_and_obstacles_of_a_wired_interrupt() {
    let setup = Setup::new();
    let line = setup.line(Trigger::Level);
    let interrupt = HwIrq::new(SPI);
    let explain = || setup.explain_on(CPU0, line.irq());
    assert!(explain().is_idle());
    setup.machine.set_line(Line::Spi(SPI), Level::High);
    let facts = [
        Fact::Input(interrupt),
        Fact::Enabled(0xa0),
        Fact::LevelSensitive,
        Fact::Pending(interrupt),
        Fact::Target(CPU0, TargetState::Awake),
        Fact::Signaled(CPU0),
        Fact::Irq(line.irq().get()),
        Fact::Runs(0),
    ];
    assert!(explain().facts().eq(facts));
    assert_eq!(explain().obstacle(), None);
    setup.on(CPU0, |own| own.read(icc::IAR1));
    let active = Obstacle::Active { interrupt, cpu: None };
    assert!(explain().obstacles().eq([active]));
    line.disable();
    assert!(explain().obstacles().eq([active, Obstacle::DisabledByDriver]));
}

#[test]
fn explain_names_spi_registers_changed_behind_the_driver() {
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
fn explain_compares_a_wired_trigger_with_the_requested_one() {
    let interrupt = HwIrq::new(SPI);
    for (requested, other, named) in [
        (Trigger::Level, 2, Obstacle::EdgeTriggered { interrupt }),
        (Trigger::Edge, 0, Obstacle::LevelSensitive { interrupt }),
    ] {
        let setup = Setup::new();
        let line = setup.line(requested);
        let explain = || setup.explain_on(CPU0, line.irq()).obstacle();
        assert_eq!(explain(), None);
        let at = gicd::ICFGR.locate(IntId::new(SPI)).unwrap();
        let register = 0x0800_0000 + u64::from(at.register().offset());
        setup.machine.bus().write(register, AccessWidth::Word, at.insert(0, other).into());
        assert_eq!(explain(), Some(named));
    }
}

#[test]
fn explain_names_a_cpu_that_was_never_turned_on() {
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
fn explain_shows_a_pending_spi_that_no_driver_requested() {
    let setup = Setup::new();
    let line = setup.line(Trigger::Level);
    let facts = || setup.explain_on(CPU0, line.irq());
    let shown = |fact| facts().facts().any(|known| known == fact);
    for (raised, expected) in [(SPI + 1, true), (SPI - 8, true), (SPI, false)] {
        setup.machine.set_line(Line::Spi(raised), Level::High);
        assert_eq!(shown(Fact::OtherPending(HwIrq::new(raised))), expected, "{raised}");
        let names_numbers = facts().to_string().contains("INTID 32 + n");
        assert_eq!(names_numbers, expected, "{raised}");
        setup.machine.set_line(Line::Spi(raised), Level::Low);
    }
}

#[test]
fn explain_shows_a_binary_point_that_hides_the_priority() {
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
        let names_point = explained
            .obstacle()
            .is_some_and(|one| explained.fix(one).contains("lower the binary point"));
        assert_eq!(names_point, is_shown);
    }
}

#[test]
fn explain_reports_a_private_interrupt_for_the_given_cpu() {
    let setup = Setup::new();
    let hwirq = HwIrq::new(27);
    let interrupts = setup.chip.interrupts();
    let timer = interrupts.request_per_cpu(hwirq, Trigger::Level, "timer", |_| {}).unwrap();
    let explain = |cpu| setup.explain_on(cpu, timer.irq()).obstacle();
    setup.machine.execute(CPU1, |_| timer.enable_here());
    assert_eq!(explain(CPU0), Some(Obstacle::DisabledByDriver));
    assert!(setup.explain_on(CPU1, timer.irq()).is_idle());
    setup.machine.set_line(Line::Ppi { cpu: CPU1, intid: 27 }, Level::High);
    assert_eq!(explain(CPU1), None);
    setup.on(CPU1, |own| own.write(icc::PMR, 0));
    let masked = Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu: CPU1 };
    assert_eq!(explain(CPU1), Some(masked));
}

#[test]
fn debug_output_fits_on_a_screen() {
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
