//! Faults of kernels and machines from public bug reports. Each test links to its report.

use crate::explain::plant;
use crate::machine::{CPU0, CPU1, ITS};
use crate::setup::{FUNCTION, Masked, SPI, Setup};
use doorbell_hardware::bus::AccessWidth;
use gic_arch::icc::{self, Igrpen};
use gic_arch::{gicd, gicr, gits};
use gic_bringup::MsiController;
use gic_driver::{MmioExt, SystemRegisters};
use msi_types::explain::{Group, Obstacle, Stage, TableRegister};
use msi_types::pci::msix;
use msi_types::{DeviceId, HwIrq, Level, Line, MsiMessage, RequesterId, Trigger};

const ENABLED: msix::Control = msix::Control::new().with_enable(true);

/// <https://github.com/endlessm/linux/pull/514>: on resume, the kernel wrote a Vector Control value
/// that left an NVMe device's MSI-X entry masked.
#[test]
fn explain_names_an_msix_entry_left_masked_by_resume() {
    let resume = |setup: &Setup| setup.write_entry(msix::ENTRY_CONTROL, 1);
    plant(resume, Obstacle::VectorMasked { vector: 1, pending: false });
}

/// <https://github.com/nutanix/libvfio-user/issues/641>: Function Mask stayed set after a reset.
#[test]
fn explain_names_a_function_mask_left_set_by_a_reset() {
    plant(|setup| setup.set_msix(ENABLED.with_function_mask(true)), Obstacle::FunctionMasked);
}

/// <https://github.com/aws/aws-fpga/issues/430>: MSI-X is enabled, but Bus Master Enable is 0.
#[test]
fn explain_names_disabled_bus_mastering() {
    let memory_alone = |setup: &Setup| setup.function().config_write(4, AccessWidth::Half, 2);
    plant(memory_alone, Obstacle::BusMasterDisabled);
}

/// <https://github.com/rust-osdev/pci_types/issues/31>: the upper half of a 64-bit message address
/// was not written.
#[test]
fn explain_names_a_stale_upper_half_of_the_message_address() {
    let expected = Setup::new().device.message(1).unwrap();
    let stored = MsiMessage { address: expected.address | 1 << 32, ..expected };
    let stale = |setup: &Setup| setup.write_entry(msix::ENTRY_ADDRESS_HIGH, 1);
    plant(stale, Obstacle::MessageDiffers { stored, expected });
}

/// <https://github.com/quo/ithc-linux/issues/2>: the function's messages carry the requester ID of
/// another function.
#[test]
fn explain_names_a_requester_id_of_another_function() {
    let setup = Setup::as_requester(RequesterId::pci(0, 16, 6));
    let id = |requester: RequesterId| DeviceId::new(requester.get());
    let expected = id(RequesterId::pci(0, 16, 6));
    let wrong = Obstacle::WrongDevice { expected, actual: id(FUNCTION) };
    assert_eq!(setup.explain().obstacle(), Some(wrong));
}

/// <https://github.com/ARM-software/tf-issues/issues/584>: firmware restores the ITS of a suspended
/// system but leaves it disabled, and nothing enables it.
#[test]
fn explain_names_an_its_that_firmware_left_disabled() {
    let setup = keep(Setup::new());
    setup.machine.its().write(gits::CTLR, gits::Ctlr::new());
    assert_eq!(setup.explain().obstacle(), Some(Obstacle::ItsDisabled { its: ITS }));
}

/// Leaks a setup whose ITS no longer works, because dropping its drivers would wait for the ITS.
fn keep(setup: Setup) -> &'static Setup {
    Box::leak(Box::new(setup))
}

/// A variant of the suspend above, in which firmware enables the ITS without restoring its tables
/// or queue.
#[test]
fn explain_names_an_its_that_lost_its_tables() {
    for (index, register) in [(0, TableRegister::Baser(0)), (1, TableRegister::Baser(1))] {
        let setup = keep(Setup::new());
        let its = setup.machine.its();
        its.write(gits::CTLR, gits::Ctlr::new());
        let at = gits::BASER.get(index).unwrap();
        its.write(at, gits::Baser::new());
        let value = its.read(at).into_bits();
        its.write(gits::CTLR, gits::Ctlr::new().with_enabled(true));
        let expected = Obstacle::InvalidTable { register, value };
        assert_eq!(setup.explain().obstacle(), Some(expected));
    }
    let setup = keep(Setup::new());
    let its = setup.machine.its();
    its.write(gits::CTLR, gits::Ctlr::new());
    its.write(gits::CBASER, gits::Cbaser::new());
    its.write(gits::CTLR, gits::Ctlr::new().with_enabled(true));
    let lost = Obstacle::InvalidTable { register: TableRegister::Cbaser, value: 0 };
    assert_eq!(setup.explain().obstacle(), Some(lost));
}

#[test]
fn explain_names_an_its_with_foreign_tables_or_queue() {
    let setup = Setup::new();
    let its = setup.machine.its();
    let (tables, queue) = (gits::BASER.get(0).unwrap(), its.read(gits::CBASER));
    let right = its.read(tables);
    let expected = right.address();
    let found = expected + 0x1_0000;
    let off = || its.write(gits::CTLR, gits::Ctlr::new());
    let on = || its.write(gits::CTLR, gits::Ctlr::new().with_enabled(true));
    off();
    its.write(tables, right.with_address(found));
    on();
    let other =
        |register, found, expected| Some(Obstacle::OtherTable { register, found, expected });
    let obstacle = setup.explain().obstacle();
    assert_eq!(obstacle, other(TableRegister::Baser(0), found, expected));
    off();
    its.write(tables, right);
    its.write(gits::CBASER, queue.with_address(found));
    on();
    let obstacle = setup.explain().obstacle();
    assert_eq!(obstacle, other(TableRegister::Cbaser, found, queue.address()));
    off();
    its.write(gits::CBASER, queue);
    on();
    assert_eq!(setup.explain().obstacle(), None);
}

/// <https://github.com/ARM-software/arm-trusted-firmware/pull/1815>: `ProcessorSleep` stays set
/// after a warm reset.
#[test]
fn explain_names_a_redistributor_that_sleeps_after_a_reset() {
    let sleep = |setup: &Setup| {
        let asleep = gicr::Waker::new().with_processor_sleep(true);
        setup.machine.redistributor(CPU0).write(gicr::WAKER, asleep);
    };
    plant(sleep, Obstacle::Asleep { cpu: CPU0 });
}

/// <https://github.com/cloud-hypervisor/cloud-hypervisor/pull/8638>, as the guest's driver sees it:
/// the monitor restored the table registers of CPU 1 to CPU 0.
#[test]
fn explain_names_table_registers_of_another_cpu() {
    let setup = Setup::new();
    let (own, other) = (setup.machine.redistributor(CPU0), setup.machine.redistributor(CPU1));
    let restore = |propbaser, pendbaser| {
        own.write(gicr::CTLR, gicr::Ctlr::new());
        own.write(gicr::PROPBASER, propbaser);
        own.write(gicr::PENDBASER, pendbaser);
        own.write(gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    };
    let (propbaser, pendbaser) = (own.read(gicr::PROPBASER), own.read(gicr::PENDBASER));
    let swapped = other.read(gicr::PENDBASER);
    restore(propbaser, swapped);
    let register = TableRegister::Pendbaser(CPU0);
    let (found, expected) = (swapped.address(), pendbaser.address());
    let wrong = Obstacle::OtherTable { register, found, expected };
    assert_eq!(setup.explain().obstacle(), Some(wrong));
    let (register, expected) = (TableRegister::Propbaser(CPU0), propbaser.address());
    let found = expected + 0x1_0000;
    restore(propbaser.with_address(found), pendbaser);
    let wrong = Obstacle::OtherTable { register, found, expected };
    assert_eq!(setup.explain().obstacle(), Some(wrong));
    restore(propbaser, pendbaser);
    assert_eq!(setup.explain().obstacle(), None);
}

/// <https://github.com/bao-project/bao-hypervisor/issues/371>: a UART's interrupt stays active,
/// because its end of interrupt was lost while it was disabled.
#[test]
fn explain_names_an_interrupt_that_stays_active() {
    let setup = Setup::new();
    let line = setup.line(Trigger::Level);
    setup.machine.set_line(Line::Spi(SPI), Level::High);
    setup.on(CPU0, |own| own.read(icc::IAR1));
    line.disable();
    line.enable();
    let active = Obstacle::Active { interrupt: HwIrq::new(SPI), cpu: None };
    assert_eq!(setup.explain_on(CPU0, line.irq()).obstacle(), Some(active));
}

/// A function that plants a fault, and the expected obstacle.
type Planted = (fn(&Setup), Obstacle);

/// Returns faults in the order in which they stop a message.
fn on_the_way() -> Vec<Planted> {
    let (cpu, interrupt) = (CPU0, Setup::new().handle.hwirq());
    let disabled = Obstacle::InterfaceGroupDisabled { group: Group::One, cpu };
    vec![
        (|setup| setup.set_msix(msix::Control::new()), Obstacle::MessagesDisabled),
        (|setup| setup.set_msix(ENABLED.with_function_mask(true)), Obstacle::FunctionMasked),
        (
            |setup| setup.write_entry(msix::ENTRY_CONTROL, 1),
            Obstacle::VectorMasked { vector: 1, pending: false },
        ),
        (
            |setup| setup.function().config_write(4, AccessWidth::Half, 2),
            Obstacle::BusMasterDisabled,
        ),
        (
            |setup| setup.machine.its().write(gits::CTLR, gits::Ctlr::new()),
            Obstacle::ItsDisabled { its: ITS },
        ),
        (
            |setup| setup.machine.redistributor(CPU0).write(gicr::CTLR, gicr::Ctlr::new()),
            Obstacle::LpisDisabled { cpu },
        ),
        (
            |setup| {
                let lpi = gic_arch::Lpi::try_from(setup.handle.hwirq().get()).unwrap();
                let (_, controller) = setup.chip.controllers().next().unwrap();
                let MsiController::Its(its) = controller else { panic!("{controller:?}") };
                its.mask(lpi).unwrap();
            },
            Obstacle::Disabled { interrupt },
        ),
        (
            |setup| {
                let asleep = gicr::Waker::new().with_processor_sleep(true);
                setup.machine.redistributor(CPU0).write(gicr::WAKER, asleep);
            },
            Obstacle::Asleep { cpu },
        ),
        (
            |setup| {
                let gic = setup.chip.gic().v3().unwrap();
                gic.distributor().mmio().write(gicd::CTLR, gicd::Ctlr::new().with_are(true));
            },
            Obstacle::GroupDisabled { group: Group::One, ctlr: 0x50 },
        ),
        (
            |setup| {
                let off = Igrpen::new().with_enable(false);
                setup.on(CPU0, |own| own.write(icc::IGRPEN1, off));
            },
            disabled,
        ),
        (
            |setup| setup.on(CPU0, |own| own.write(icc::PMR, 0)),
            Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu },
        ),
    ]
}

/// If a machine has several faults, the explanation names all in the order of the message's path.
/// While MSI-X is disabled, the function's table cannot be read, and a CPU's interface is not asked
/// about an interrupt that is disabled.
#[test]
fn explain_names_all_of_several_faults() {
    let setup = keep(Setup::new());
    let mut planted = vec![Obstacle::ExceptionsMasked { cpu: CPU0 }];
    for (plant, expected) in on_the_way().into_iter().rev() {
        plant(setup);
        planted.insert(0, expected);
        let explanation = setup
            .on(CPU0, |own| setup.chip.explain(setup.handle.irq(), CPU0, &Masked(own)).unwrap());
        let hides_table = planted.contains(&Obstacle::MessagesDisabled);
        let hides_interface = planted.iter().any(|it| matches!(it, Obstacle::Disabled { .. }));
        let is_shown = |obstacle: &Obstacle| match obstacle {
            Obstacle::FunctionMasked | Obstacle::VectorMasked { .. } => !hides_table,
            Obstacle::GroupDisabled { .. } => true,
            other => !(hides_interface && other.stage() == Stage::Interface),
        };
        let shown: Vec<_> = planted.iter().copied().filter(is_shown).collect();
        assert_eq!(explanation.obstacles().collect::<Vec<_>>(), shown);
    }
}
