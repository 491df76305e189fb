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
fn each_mistake_in_an_lpi_configuration_table_is_named() {
    let outside = propbaser().with_address(0x1000);
    let small = propbaser().with_id_bits_minus_one(12);
    let late = Obstacle::WriteIgnored {
        register: TableRegister::Propbaser(CPU),
        value: 0,
        ignored: propbaser().into_bits(),
    };
    let missing = Obstacle::NoConfigurationTable { cpu: CPU, propbaser: outside.into_bits() };
    let rows = [
        ("written after the enable", Propbaser::new(), propbaser(), late),
        ("outside of memory", outside, outside, missing),
        ("too small", small, small, Obstacle::BeyondTable { interrupt: LPI, bits: 13 }),
    ];
    for (name, before, after, expected) in rows {
        let guest = with_tables(|guest| {
            guest.machine.write_gicr(0, gicr::PROPBASER, before);
            guest.set_enable_lpis();
            guest.machine.write_gicr(0, gicr::PROPBASER, after);
        });
        assert_eq!(guest.obstacle(), Some(expected), "{name}");
    }
}

/// Programs the pending table only after the enable, or not at all. It is an obstacle once no LPI
/// is pending.
#[test]
fn a_missing_pending_table_blocks_no_pending_lpi() {
    let late = Pendbaser::new().with_address(PENDING);
    let register = TableRegister::Pendbaser(CPU);
    let ignored = Obstacle::WriteIgnored { register, value: 0, ignored: late.into_bits() };
    let missing = Obstacle::NoPendingTable { cpu: CPU, pendbaser: 0 };
    for (table, expected) in [(None, missing), (Some(late), ignored)] {
        let mut guest = with_tables(|guest| {
            guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
            guest.set_enable_lpis();
            if let Some(late) = table {
                guest.machine.write_gicr(0, gicr::PENDBASER, late);
            }
        });
        assert_eq!(guest.obstacle(), None, "{table:?}");
        guest.machine.acknowledge(0);
        assert_eq!(guest.obstacle(), Some(expected), "{table:?}");
    }
}

#[test]
fn a_forgotten_invalidation_is_named() {
    // Bit 1 of a configuration byte has no effect.
    for (mask, cached, written, memory) in [(0xff, 0xa0, 0xa3, 0xa1), (0x80, 0xa1, 0x41, 0x41)] {
        let mut guest = Guest::working();
        guest.machine.msr(0, icc::PMR.encoding(), mask);
        guest.configure(cached);
        let invalidate = Command::Inv { device: DEVICE, event: EVENT };
        guest.machine.run([invalidate]);
        guest.configure(written);
        guest.send();
        let expected = Obstacle::StaleConfiguration { interrupt: LPI, memory, cached };
        assert_eq!(guest.obstacle(), Some(expected));
        guest.machine.run([invalidate]);
        assert_eq!(guest.obstacle(), None, "{memory:#x}");
    }
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
fn lpis_without_an_event_or_outside_the_machine_are_named() {
    let [unmapped, beyond] = [8193, 1 << 14];
    let guest = Guest::working();
    let interrupt = HwIrq::new(unmapped);
    assert_eq!(guest.obstacle_of(0, unmapped), Some(Obstacle::NoEvent { interrupt }));
    let interrupt = HwIrq::new(beyond);
    assert_eq!(guest.obstacle_of(0, beyond), Some(Obstacle::NoSuchInterrupt { interrupt }));
}

#[test]
fn a_shared_lpi_is_explained_by_its_pending_event() {
    let guest = Guest::working();
    guest.machine.run([mapti(1, 8192, 0)]);
    let explain = || guest.machine.gic.explain_interrupt(CPU, IntId::new(8192));
    for event in [0, 1] {
        assert!(explain().is_idle());
        let _ = guest.machine.send(DEVICE.get(), event);
        assert!(facts(&explain()).contains(&Fact::Pending(LPI)), "event {event}");
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
        guest.machine.run([mapd(4), mapti(0, 8192, 0), mapti(1, 8193, 0)]);
        guest.machine.run((0..sharers).map(|sharer| mapti(2 + sharer, 8192, 0)));
        let shared = |explanation: Explanation| {
            facts(&explanation).into_iter().find_map(|fact| match fact {
                Fact::SharedInterrupt { interrupt, other, events } => {
                    assert_eq!(interrupt, LPI);
                    Some((other, events))
                }
                _ => None,
            })
        };
        let gic = &guest.machine.gic;
        let expected = (sharers > 0).then_some((Some((DEVICE, EventId::new(2))), sharers));
        assert_eq!(shared(guest.explain()), expected, "of the event");
        assert_eq!(shared(gic.explain(0, DEVICE, EventId::new(1))), None, "of another LPI");
        let by_intid = shared(gic.explain_interrupt(CPU, IntId::new(8192)));
        assert_eq!(by_intid, (sharers > 0).then_some((None, sharers)), "of the INTID");
    }
}
