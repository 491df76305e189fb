//! Obstacles in redistributors' LPI tables and in LPI configurations.

use super::guest::{
    CONFIGURATION, CPU, DEVICE, EVENT, Guest, LPI, PENDING, config, facts, mapc, mapd, mapti,
    propbaser,
};
use doorbell_test_support::guest::ITS;
use gic_arch::gicr::{self, Pendbaser, Propbaser};
use gic_arch::its::Command;
use gic_arch::{IntId, icc};
use msi_types::explain::{Explanation, Fact, Obstacle, TableRegister};
use msi_types::{EventId, HwIrq};
use vgic::FaultReason;
use vgic::its::{ErrorPolicy, ItsConfig};

/// Returns a guest that maps its event after `tables` has programmed the LPI tables of vCPU 0.
fn with_tables(tables: impl FnOnce(&Guest)) -> Guest {
    let guest = Guest::new(config());
    tables(&guest);
    guest.machine.start_its();
    guest.machine.run([mapc(0, 0), mapd(1), mapti(0, 8192, 0)]);
    guest.send();
    guest
}

#[test]
fn a_configuration_table_written_after_the_enable_is_named() {
    let guest = with_tables(|guest| {
        guest.set_enable_lpis();
        guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
    });
    let register = TableRegister::Propbaser(CPU);
    let ignored = propbaser().into_bits();
    let expected = Obstacle::WriteIgnored { register, value: 0, ignored };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn a_configuration_table_outside_of_memory_is_named() {
    let outside = propbaser().with_address(0x1000);
    let guest = with_tables(|guest| {
        guest.machine.write_gicr(0, gicr::PROPBASER, outside);
        guest.set_enable_lpis();
    });
    let propbaser = outside.into_bits();
    let expected = Obstacle::NoConfigurationTable { cpu: CPU, propbaser };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn an_lpi_beyond_the_configuration_table_is_named() {
    let small = Propbaser::new().with_id_bits_minus_one(12).with_address(CONFIGURATION);
    let guest = with_tables(|guest| {
        guest.machine.write_gicr(0, gicr::PROPBASER, small);
        guest.set_enable_lpis();
    });
    assert_eq!(guest.obstacle(), Some(Obstacle::BeyondTable { interrupt: LPI, bits: 13 }));
}

/// Returns a guest whose `tables` has programmed the pending table of vCPU 0. The configuration
/// table is valid, and the guest has acknowledged its LPI, so that no LPI is pending.
fn with_pending_table(tables: impl FnOnce(&Guest)) -> Guest {
    let mut guest = with_tables(|guest| {
        guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
        tables(guest);
    });
    guest.machine.acknowledge(0);
    guest
}

#[test]
fn a_missing_pending_table_is_named() {
    let guest = with_pending_table(Guest::set_enable_lpis);
    assert_eq!(guest.obstacle(), Some(Obstacle::NoPendingTable { cpu: CPU, pendbaser: 0 }));
}

#[test]
fn a_pending_table_written_after_the_enable_is_named() {
    let late = Pendbaser::new().with_address(PENDING);
    let guest = with_pending_table(|guest| {
        guest.set_enable_lpis();
        guest.machine.write_gicr(0, gicr::PENDBASER, late);
    });
    let (register, ignored) = (TableRegister::Pendbaser(CPU), late.into_bits());
    let expected = Obstacle::WriteIgnored { register, value: 0, ignored };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn a_missing_pending_table_does_not_block_a_pending_lpi() {
    let guest = with_tables(|guest| {
        guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
        guest.set_enable_lpis();
    });
    assert_eq!(guest.obstacle(), None);
}

#[test]
fn a_forgotten_invalidation_is_named() {
    let guest = Guest::new(config());
    guest.configure(0xa0);
    guest.enable_lpis();
    guest.machine.start_its();
    guest.machine.run([mapc(0, 0), mapd(1), mapti(0, 8192, 0)]);
    // Bit 1 of a configuration byte has no effect.
    guest.configure(0xa3);
    guest.send();
    let expected = Obstacle::StaleConfiguration { interrupt: LPI, memory: 0xa1, cached: 0xa0 };
    assert_eq!(guest.obstacle(), Some(expected));
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    assert_eq!(guest.obstacle(), None);
}

#[test]
fn a_forgotten_invalidation_of_the_priority_is_named() {
    let mut guest = Guest::working();
    guest.machine.msr(0, icc::PMR.encoding(), 0x80);
    guest.configure(0x41);
    guest.send();
    let expected = Obstacle::StaleConfiguration { interrupt: LPI, memory: 0x41, cached: 0xa1 };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn an_invalidation_behind_a_stalled_queue_is_named() {
    let its = ItsConfig::new(ITS).with_error_policy(ErrorPolicy::Stall);
    let guest = Guest::working_with(config().with_its(vec![its]));
    guest.configure(0xa0);
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    guest.configure(0xa1);
    guest.machine.queue([mapti(2, 8193, 0), Command::Inv { device: DEVICE, event: EVENT }]);
    assert_eq!(guest.obstacle(), Some(Obstacle::CommandsQueued { read: 0x81, write: 0xc0 }));
}

#[test]
fn an_lpi_explained_at_another_cpu_names_its_target() {
    let guest = Guest::working();
    guest.send();
    assert_eq!(guest.obstacle_of(0, LPI.get()), None);
    let (cpu, target) = (msi_types::Cpu::new(1), CPU);
    let expected = Obstacle::OtherTarget { interrupt: LPI, cpu, target };
    assert_eq!(guest.obstacle_of(1, LPI.get()), Some(expected));
}

#[test]
fn an_lpi_without_an_event_is_named() {
    let guest = Guest::working();
    let interrupt = HwIrq::new(8193);
    assert_eq!(guest.obstacle_of(0, 8193), Some(Obstacle::NoEvent { interrupt }));
}

#[test]
fn an_lpi_that_the_machine_lacks_is_named() {
    let guest = Guest::working();
    let interrupt = HwIrq::new(1 << 14);
    assert_eq!(guest.obstacle_of(0, 1 << 14), Some(Obstacle::NoSuchInterrupt { interrupt }));
}

#[test]
fn a_shared_lpi_is_explained_by_its_pending_event() {
    let guest = Guest::working();
    guest.machine.run([mapti(1, 8192, 0)]);
    for event in [0, 1] {
        assert!(guest.machine.gic.explain_interrupt(CPU, IntId::new(8192)).is_idle());
        let _ = guest.machine.send(DEVICE.get(), event);
        assert_eq!(guest.obstacle_of(0, 8192), None, "event {event}");
        guest.machine.run([Command::Clear { device: DEVICE, event: EventId::new(event) }]);
    }
}

/// Returns the kinds and addresses of the faults so far.
fn faults(guest: &Guest) -> Vec<(FaultReason, u64)> {
    let mut faults = Vec::new();
    guest.machine.gic.events().drain(|fault| faults.push((fault.reason, fault.address)));
    faults
}

#[test]
fn enabling_lpis_without_a_configuration_table_is_recorded_at_once() {
    let guest = Guest::new(config());
    guest.machine.write_gicr(0, gicr::PENDBASER, Pendbaser::new().with_address(PENDING));
    faults(&guest);
    guest.set_enable_lpis();
    let register = guest.machine.frame(0) + u64::from(gicr::PROPBASER.offset());
    assert_eq!(faults(&guest), [(FaultReason::NoConfigurationTable, register)]);
    guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
    assert_eq!(faults(&guest), [(FaultReason::LpiTablesInUse, register)]);
}

#[test]
fn missing_and_too_small_configuration_tables_record_different_faults() {
    let small = Propbaser::new().with_id_bits_minus_one(12).with_address(CONFIGURATION);
    let cases = [
        (Propbaser::new(), FaultReason::NoConfigurationTable),
        (small, FaultReason::LpiOutOfRange),
    ];
    for (propbaser, reason) in cases {
        let guest = with_tables(|guest| {
            guest.machine.write_gicr(0, gicr::PROPBASER, propbaser);
            guest.set_enable_lpis();
            faults(guest);
        });
        assert_eq!(faults(&guest), [(reason, ItsConfig::new(ITS).doorbell())]);
    }
}

#[test]
fn events_that_share_an_lpi_are_shown() {
    for sharers in 0..4u32 {
        let guest = Guest::working();
        guest.machine.run([mapd(4), mapti(0, 8192, 0), mapti(9, 8193, 0)]);
        guest.machine.run((1..=sharers).map(|event| mapti(event, 8192, 0)));
        let shared = |explanation: Explanation| {
            facts(&explanation).into_iter().find_map(|fact| match fact {
                Fact::SharedInterrupt { interrupt, other, events } => {
                    assert_eq!(interrupt, LPI);
                    Some((other.map(|(device, _)| device), events))
                }
                _ => None,
            })
        };
        let gic = &guest.machine.gic;
        let expected = (sharers > 0).then_some((Some(DEVICE), sharers));
        assert_eq!(shared(guest.explain()), expected, "of the event");
        assert_eq!(shared(gic.explain(0, DEVICE, EventId::new(9))), None, "of another LPI");
        let by_intid = shared(gic.explain_interrupt(CPU, IntId::new(8192)));
        assert_eq!(by_intid, (sharers > 0).then_some((None, sharers)), "of the INTID");
    }
}
