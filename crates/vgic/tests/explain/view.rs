//! The view of a running machine's state.

use super::guest::{CPU, DEVICE, EVENT, Guest, config, mapc, mapd, mapti};
use doorbell_test_support::guest::ITS;
use doorbell_test_support::guest::vtr;
use gic_arch::IntId;
use gic_arch::its::CollectionId;
use msi_types::explain::TargetState;
use msi_types::{Cpu, DeviceId, EventId, Level, Line, SetLine};
use vgic::Sleep;
use vgic::its::ItsConfig;
use vgic::state_view::StateView;

fn view(guest: &Guest) -> StateView {
    guest.machine.gic.view().unwrap()
}

#[test]
fn the_view_prints_one_line_per_interrupt() {
    let mut guest = Guest::working();
    guest.machine.gic.events().drain(|_| {});
    guest.send();
    guest.machine.enable_spi(40);
    guest.machine.gic.set_line(Line::Spi(40), Level::High);
    assert_eq!(guest.machine.acknowledge(0), 40);
    let faults = guest.machine.gic.events().total();
    let expected = format!(
        "GICD_CTLR 0x53, {faults} guest faults\n\
         CPU 0 at 0.0.0.0: awake, PMR 0xf8, running 0x0, IGRPEN0 0, IGRPEN1 1, \
         PROPBASER 0x4010000d, PENDBASER 0x40200000, 1 acknowledged, 0 kicks\n  \
         2 pending, 1 active, 0 listed\n\
         CPU 1 at 0.0.0.1: awake, PMR 0xf8, running 0xff, IGRPEN0 0, IGRPEN1 1, \
         PROPBASER 0x4010000d, PENDBASER 0x40210000, 0 acknowledged, 0 kicks\n  \
         0 pending, 0 active, 0 listed\n\
         SPI 40: CPU 0, Group 1, priority 0x0, level, high, enabled, pending, active\n\
         ITS at 0x8080000: enabled, CREADR 0x60, CWRITER 0x60, 3 commands, 0 refused\n  \
         collection 0: CPU 0\n  \
         DeviceID 0x10: 1 EventID bits\n    \
         EventID 0x0: collection 0, LPI 8192: CPU 0, priority 0xa0, enabled, pending\n"
    );
    assert_eq!(view(&guest).to_string(), expected);
}

#[test]
fn the_view_counts_acknowledgments_and_kicks() {
    let mut guest = Guest::working();
    for round in 1..=3 {
        assert_eq!(guest.machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);
        assert_eq!(view(&guest).cpus[0].state, TargetState::NeedsKick);
        guest.send();
        assert_eq!(view(&guest).cpus[0].state, TargetState::Kicked);
        guest.machine.vcpus[0].returned();
        let intid = guest.machine.acknowledge(0);
        assert_eq!(view(&guest).cpus[0].running_priority, 0xa0);
        guest.machine.end(0, intid);
        let cpu = &view(&guest).cpus[0];
        assert_eq!((cpu.acknowledged, cpu.kicks, cpu.running_priority), (round, round, 0xff));
    }
    assert_eq!(view(&guest).cpus[1].acknowledged, 0);
}

#[test]
fn the_view_counts_refused_commands_separately() {
    let guest = Guest::working();
    guest.machine.queue([mapti(7, 8192, 0), mapc(1, 1), mapc(2, 9)]);
    let its = &view(&guest).its[0];
    assert_eq!((its.commands, its.refused), (4, 2));
}

#[test]
fn a_listed_lpi_counts_as_pending_and_listed() {
    let mut guest = Guest::working();
    guest.send();
    let mut vcpu = guest.machine.vcpus.remove(0).with_list_registers(vtr(4, 5)).unwrap();
    let inside = vcpu.enter();
    let counts = view(&guest).counts(CPU);
    assert_eq!((counts.pending, counts.active, counts.listed), (1, 0, 1));
    let mut left = *inside.interface();
    left.list[0] = left.list[0].with_state(gic_arch::ich::ListRegisterState::Invalid);
    inside.exit(&left);
    let view = view(&guest);
    let counts = view.counts(CPU);
    assert_eq!((counts.pending, counts.active, counts.listed), (0, 0, 0));
    assert_eq!(view.cpus[0].acknowledged, 1);
}

#[test]
fn a_pending_direct_lpi_is_listed_at_its_cpu() {
    let guest = Guest::new(config().with_its(vec![]).with_direct_lpi(true));
    guest.enable_lpis();
    let setlpir = guest.machine.frame(1) + u64::from(gic_arch::gicr::SETLPIR.offset());
    guest.machine.write(setlpir, vgic::AccessWidth::Double, 8192);
    let view = view(&guest);
    let found: Vec<_> = view.cpus.iter().map(|cpu| cpu.lpis.len()).collect();
    assert_eq!(found, [0, 1]);
    let lpi = view.cpus[1].lpis[0];
    assert_eq!((lpi.intid, lpi.target, lpi.pending), (IntId::new(8192), Cpu::new(1), true));
}

#[test]
fn the_view_finds_events_across_a_20_bit_itt() {
    let its = ItsConfig::new(ITS).with_event_id_bits(20);
    let guest = Guest::new(config().with_its(vec![its]));
    guest.enable_lpis();
    guest.machine.start_its();
    let events = [0, 1, 31, 32, 2047, 2048, 0x1_0000, 0xf_fffe, 0xf_ffff];
    let map = events.map(|event| mapti(event, 8192 + event % 4096, 3));
    guest.machine.run([mapd(20)].into_iter().chain(map));
    let view = view(&guest);
    let [device] = &*view.its[0].devices else { panic!("one device is mapped") };
    assert_eq!((device.device, device.event_bits), (DEVICE, 20));
    let found: Vec<_> = device.events.iter().map(|event| event.event).collect();
    assert_eq!(found, events.map(EventId::new));
    assert!(device.events.iter().all(|event| event.collection == CollectionId::new(3)));
}

#[test]
fn the_view_finds_devices_across_the_device_table() {
    let guest = Guest::new(config());
    guest.machine.start_its();
    let devices = [0, 0x10, 0xff, 0x100, 0x1fff];
    guest.machine.run(devices.map(|device| gic_arch::its::Command::Mapd {
        device: DeviceId::new(device),
        itt: 0,
        event_bits_minus_one: 0,
        action: gic_arch::its::MapAction::Map,
    }));
    let view = view(&guest);
    let found: Vec<_> = view.its[0].devices.iter().map(|device| device.device).collect();
    assert_eq!(found, devices.map(DeviceId::new));
}

#[test]
fn debug_output_fits_on_one_screen() {
    let mut guest = Guest::working_with(
        vgic::VgicConfig::new(64).with_lpi_id_bits(Some(14)).with_its(vec![ItsConfig::new(ITS)]),
    );
    guest.machine.acknowledge(0);
    guest.send();
    let text = format!("{:#?}", guest.machine.gic);
    assert!(text.lines().count() <= 24, "{text}");
    for shown in ["ctlr: 0x3", "CPU 0 at", "PROPBASER 0x4010000d", "ITS at 0x8080000: enabled"] {
        assert!(text.contains(shown), "{shown}:\n{text}");
    }
    assert_eq!(guest.explain().obstacle(), None, "event {EVENT} is pending");
}
