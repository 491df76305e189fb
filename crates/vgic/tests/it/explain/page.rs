//! Comparison of the explanations that `docs/no-interrupt.md` shows for monitors with those that
//! the model prints for planted faults.

use super::guest::{CPU, DEVICE, EVENT, Guest, PENDING, config, mapc, mapd, mapti, propbaser};
use doorbell_test_support::guest::{Field, ITS, Machine};
use doorbell_test_support::{check_guide, check_guide_quotes};
use gic_arch::gicr::{self, Pendbaser};
use gic_arch::its::Command;
use gic_arch::{IntId, icc};
use msi_types::explain::{ExplainInput, Obstacle};
use msi_types::{Cpu, DeviceId, Level, Line, MsiMessage, SetLine};
use vgic::{V2mConfig, VgicConfig};

const SPI: u32 = 40;

#[test]
fn the_guide_shows_explanations_as_they_are_printed() {
    let mut printed = Vec::new();
    of_commands(&mut printed);
    of_tables(&mut printed);
    of_lines(&mut printed);
    of_vcpus(&mut printed);
    check_guide("monitor", &printed);
}

#[test]
fn the_guide_quotes_obstacles_as_they_are_printed() {
    let obstacles = [
        Obstacle::NotMapped { iova: 0 },
        Obstacle::NoTarget { affinity: 0 },
        Obstacle::DisabledAsSpurious,
    ];
    check_guide_quotes(&obstacles.map(|obstacle| obstacle.to_string().replace("0x0", "0x…")));
}

/// Returns a guest that has enabled LPIs and the ITS, and has executed these commands.
fn after(commands: impl IntoIterator<Item = Command>) -> Guest {
    let guest = Guest::new(config());
    guest.enable_lpis();
    guest.machine.start_its();
    guest.machine.queue(commands);
    guest.send();
    guest
}

fn of_commands(printed: &mut Vec<String>) {
    let mut print = |guest: Guest| printed.push(guest.explain().to_string());
    print(after([mapc(0, 0), mapti(0, 8192, 0), mapd(1)]));
    print(after([mapd(1), mapti(0, 8192, 0)]));
    let working = after([mapc(0, 0), mapd(1), mapti(0, 8192, 0)]);
    let elsewhere = working.machine.gic.explain(0, DeviceId::new(0x18), EVENT);
    printed.push(elsewhere.to_string());
    let message = MsiMessage { address: ITS + 0x1_0040, data: 0 };
    printed.push(working.machine.gic.explain_message(None, message).to_string());
}

fn of_tables(printed: &mut Vec<String>) {
    let guest = Guest::new(config());
    guest.set_enable_lpis();
    guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
    guest.machine.start_its();
    guest.machine.run([mapc(0, 0), mapd(1), mapti(0, 8192, 0)]);
    printed.push(guest.explain().to_string());

    let guest = Guest::working();
    guest.configure(0xa0);
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    printed.push(guest.explain().to_string());
    guest.configure(0xa1);
    printed.push(guest.explain().to_string());

    let guest = Guest::new(config());
    for cpu in 0..2 {
        guest.machine.write_gicr(cpu, gicr::PROPBASER, propbaser());
        guest.machine.write_gicr(cpu, gicr::PENDBASER, Pendbaser::new().with_address(PENDING));
        guest.machine.write_gicr(cpu, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    }
    guest.machine.start_its();
    guest.machine.run([mapc(0, 1), mapd(1), mapti(0, 8192, 0)]);
    printed.push(guest.explain().to_string());
}

fn of_lines(printed: &mut Vec<String>) {
    let mut machine = Machine::running(VgicConfig::new(2));
    machine.enable_spi(SPI);
    machine.raise(SPI);
    let print = |machine: &Machine, cpu| {
        machine.gic.explain_interrupt(Cpu::new(cpu), IntId::new(SPI)).to_string()
    };
    printed.push(print(&machine, 1));
    let taken = machine.acknowledge(0);
    machine.end(0, taken);
    printed.push(print(&machine, 0));
    machine.msr(0, icc::CTLR.encoding(), icc::Ctlr::new().with_eoi_mode(true).into_bits());
    let taken = machine.acknowledge(0);
    machine.end(0, taken);
    printed.push(print(&machine, 0));
    machine.msr(0, icc::DIR.encoding(), taken);
    machine.gic.set_line(Line::Spi(SPI), Level::Low);
    machine.make_edge(SPI);
    machine.raise(SPI);
    let taken = machine.acknowledge(0);
    machine.end(0, taken);
    machine.msr(0, icc::DIR.encoding(), taken);
    printed.push(print(&machine, 0));
    machine.set_field(0, Field::Group, SPI, 0);
    printed.push(print(&machine, 0));

    let frame = V2mConfig::new(0x0802_0000, 80, 64);
    let machine = Machine::running(VgicConfig::new(1).with_v2m(vec![frame]));
    machine.enable_spi(80);
    let message = MsiMessage { address: 0x0802_0040, data: 80 };
    printed.push(machine.gic.explain_message(None, message).to_string());
}

fn of_vcpus(printed: &mut Vec<String>) {
    let mut guest = Guest::working();
    let _ = guest.machine.vcpus[0].prepare_to_sleep();
    guest.send();
    printed.push(guest.explain().to_string());
    guest.machine.vcpus[0].returned();
    let mut vcpu = guest.machine.list_register_vcpu();
    let _inside = vcpu.enter();
    printed.push(guest.explain().to_string());

    let guest = Guest::working();
    guest.send();
    let asleep = gicr::Waker::new().with_processor_sleep(true);
    guest.machine.write_gicr(CPU.index(), gicr::WAKER, asleep);
    printed.push(guest.explain().to_string());
}
