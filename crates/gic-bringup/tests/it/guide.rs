//! Comparison of the explanations that `docs/no-interrupt.md` shows for kernels with those that the
//! drivers print for planted faults.

use crate::machine::{CPU0, CPU1};
use crate::setup::{Masked, SPI, Setup};
use doorbell_hardware::bus::AccessWidth;
use doorbell_test_support::check_guide;
use gic_arch::icc::{self, Igrpen};
use gic_arch::{gicr, gits};
use gic_driver::{MmioExt, SystemRegisters};
use msi_types::pci::msix;
use msi_types::{Cpu, HwIrq, Level, Line, RequesterId, Trigger};

#[test]
fn the_guide_matches_the_printed_explanations() {
    let mut printed = Vec::new();
    of_function(&mut printed);
    of_its(&mut printed);
    of_redistributor(&mut printed);
    of_cpu(&mut printed);
    of_lines(&mut printed);
    check_guide("kernel", &printed);
}

fn of_function(printed: &mut Vec<String>) {
    let setup = Setup::new();
    let mut print = || printed.push(setup.explain().to_string());
    print();
    setup.set_msix(msix::Control::new());
    print();
    setup.set_msix(msix::Control::new().with_enable(true));
    setup.write_entry(msix::ENTRY_CONTROL, 1);
    setup.function().signal(1);
    print();
    setup.write_entry(msix::ENTRY_CONTROL, 0);
    setup.machine.settle(&setup.chip);
    setup.function().config_write(4, AccessWidth::Half, 2);
    print();
    setup.function().config_write(4, AccessWidth::Half, 6);
    let right = setup.device.message(1).unwrap();
    setup.write_entry(msix::ENTRY_DATA, 77);
    print();
    setup.write_entry(msix::ENTRY_DATA, right.data);
    setup.handle.disable();
    print();
    let other = Setup::as_requester(RequesterId::pci(0, 4, 0));
    printed.push(other.explain().to_string());
}

fn of_its(printed: &mut Vec<String>) {
    // Leak the setup, because dropping its drivers would wait for the broken ITS.
    let setup: &Setup = Box::leak(Box::new(Setup::new()));
    let its = setup.machine.its();
    its.write(gits::CTLR, gits::Ctlr::new());
    printed.push(setup.explain().to_string());
    its.write(gits::BASER.get(0).unwrap(), gits::Baser::new());
    its.write(gits::CTLR, gits::Ctlr::new().with_enabled(true));
    printed.push(setup.explain().to_string());
}

fn of_redistributor(printed: &mut Vec<String>) {
    let setup = Setup::new();
    let (own, other) = (setup.machine.redistributor(CPU0), setup.machine.redistributor(CPU1));
    own.write(gicr::CTLR, gicr::Ctlr::new());
    printed.push(setup.explain().to_string());
    own.write(gicr::PENDBASER, other.read(gicr::PENDBASER));
    own.write(gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    printed.push(setup.explain().to_string());
}

fn of_cpu(printed: &mut Vec<String>) {
    let setup = Setup::new();
    setup.function().signal(1);
    let masked =
        setup.on(CPU0, |own| setup.chip.explain(setup.handle.irq(), CPU0, &Masked(own)).unwrap());
    printed.push(masked.to_string());
    let taken = setup.on(CPU0, |own| own.read(icc::IAR1));
    setup.function().signal(1);
    printed.push(setup.explain().to_string());
    setup.on(CPU0, |own| own.write(icc::EOIR1, taken));
    setup.on(CPU0, |own| own.write(icc::PMR, 0));
    printed.push(setup.explain().to_string());
    let off = Igrpen::new().with_enable(false);
    setup.on(CPU0, |own| own.write(icc::IGRPEN1, off));
    printed.push(setup.explain().to_string());
    let gic = setup.chip.gic().v3().unwrap();
    setup.on(CPU0, |own| gic.cpu_off(CPU0, own)).unwrap();
    printed.push(setup.explain_on(CPU1, setup.handle.irq()).to_string());
}

fn of_lines(printed: &mut Vec<String>) {
    let setup = Setup::new();
    let line = setup.line(Trigger::Level);
    setup.machine.set_line(Line::Spi(SPI), Level::High);
    setup.on(CPU0, |own| own.read(icc::IAR1));
    printed.push(setup.explain_on(CPU0, line.irq()).to_string());
    let hwirq = HwIrq::new(27);
    let interrupts = setup.chip.interrupts();
    let timer = interrupts.request_per_cpu(hwirq, Trigger::Level, "timer", |_| {}).unwrap();
    let here: Cpu = CPU0;
    setup.machine.execute(CPU1, |_| timer.enable_here());
    printed.push(setup.explain_on(here, timer.irq()).to_string());
}
