//! Tests for LPIs at redistributors: enabling them, their tables, and sleeping vCPUs.

use super::rig::*;
use crate::frames::its::ItsConfig;
use crate::lpi::LpiConfig;
use crate::monitor::GuestMemory;
use crate::monitor::events::FaultReason;
use gic_arch::gicr;
use msi_types::Delivery;

/// Reads one byte of a pending table.
fn pending_byte(rig: &Rig, vcpu: u16, lpi: u32) -> u8 {
    let mut byte = [0];
    rig.ram.read(PENDING + u64::from(vcpu) * 0x1_0000 + u64::from(lpi / 8), &mut byte).unwrap();
    byte[0]
}

#[test]
fn disabling_lpis_writes_only_lpi_bits_to_the_pending_table() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 2), mapti(1, 0, 8200, 0), mapti(1, 1, 8203, 0), mapti(1, 2, 8204, 0)]);
    rig.configure(8203, false, 0);
    rig.run([inv(1, 1)]);
    rig.send(1, 0);
    rig.send(1, 1);
    rig.ram.write(PENDING + 8204 / 8, &[0xff]).unwrap();
    rig.ram.write(PENDING + 0x3ff, &[0xee]).unwrap();

    rig.disable_lpis(0);

    assert_eq!(pending_byte(&rig, 0, 8200), 0b1001, "a disabled LPI can be pending");
    assert_eq!(pending_byte(&rig, 0, 8184), 0xee, "bits below LPI 8192 must not be written");
    assert_eq!(rig.pending(0), NO_LPIS);
    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
}

#[test]
fn enabling_lpis_loads_the_pending_table() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.disable_lpis(0);
    rig.ram.write(PENDING + 8200 / 8, &[0b11]).unwrap();

    rig.enable_lpis(0);

    assert_eq!(drain(&mut rig.vcpu(0)), [8200, 8201], "pending whether mapped or not");
}

#[test]
fn enabling_lpis_with_ptz_skips_the_pending_table() {
    let rig = Rig::running(1);
    rig.disable_lpis(0);
    rig.ram.write(PENDING + 8200 / 8, &[0xff]).unwrap();

    rig.enable_lpis_with(0, Rig::propbaser(), Rig::pendbaser(0).with_pending_table_zero(true));

    assert_eq!(rig.pending(0), NO_LPIS);
}

#[test]
fn a_full_pending_table_consumes_no_mapping_budget() {
    let size = LpiConfig { entries: 1 << 9, ..LpiConfig::new(1) };
    let rig = Rig::sized(size, ItsConfig::new(BASE));
    rig.ram.write(PENDING, &[0xff; 0x2000]).unwrap();
    rig.enable_lpis(0);
    rig.provide_tables();
    rig.set_enabled(true);

    rig.run([mapc(0, 0), mapd(1, 9)]);
    rig.run((0..512).map(|event| mapti(1, event, 8192 + event, 0)));

    assert_eq!(rig.its.command_faults().count, 0);
    assert_eq!(rig.pending(0).len(), 57_344, "every LPI");
}

#[test]
fn movall_moves_every_lpi_whatever_the_budget() {
    let size = LpiConfig { entries: 1 << 9, ..LpiConfig::new(2) };
    let rig = Rig::sized(size, ItsConfig::new(BASE));
    rig.ram.write(PENDING, &[0xff; 0x2000]).unwrap();
    rig.enable_lpis(0);
    rig.enable_lpis(1);
    rig.provide_tables();
    rig.set_enabled(true);

    rig.run([movall(0, 1)]);

    assert_eq!((rig.pending(0).len(), rig.pending(1).len()), (0, 57_344));
    assert_eq!(rig.events.total(), 0);
}

#[test]
fn tables_outside_memory_are_counted_and_harmless() {
    let rig = Rig::new(1, ItsConfig::new(BASE));
    let propbaser = gicr::Propbaser::new().with_id_bits_minus_one(15).with_address(0x9000_0000);
    let pendbaser = gicr::Pendbaser::new().with_address(0x9100_0000);
    rig.enable_lpis_with(0, propbaser, pendbaser);
    rig.provide_tables();
    rig.set_enabled(true);

    rig.run([mapc(0, 0), mapd(1, 1), mapti(1, 0, 8200, 0)]);
    assert_eq!(rig.send(1, 0), Delivery::Pending);
    assert_eq!(
        drain(&mut rig.vcpu(0)),
        NO_LPIS,
        "without a configuration byte the LPI is disabled"
    );
    rig.disable_lpis(0);

    // Expected faults: the configuration table and the pending table when LPIs are enabled, the
    // configuration byte at MAPTI, and the pending table again.
    assert_eq!(rig.events.count(FaultReason::LpiTable), 4);
}

#[test]
fn lpis_beyond_the_redistributors_tables_are_dropped() {
    let rig = Rig::running(1);
    rig.disable_lpis(0);
    let propbaser = Rig::propbaser().with_id_bits_minus_one(13);
    rig.enable_lpis_with(0, propbaser, Rig::pendbaser(0));

    rig.run([mapd(1, 1), mapti(1, 0, 0x3fff, 0), mapti(1, 1, 0x4000, 0)]);

    assert_eq!(rig.send(1, 0), Delivery::Pending);
    assert_eq!(rig.send(1, 1), Delivery::Blocked);
}

#[test]
fn lpis_moved_to_a_disabled_redistributor_stay_pending() {
    let rig = Rig::running(3);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 2)]);
    rig.send(1, 0);
    rig.send(1, 1);
    rig.disable_lpis(1);

    rig.run([movi(1, 0, 1), movall(2, 1)]);
    assert_eq!(drain(&mut rig.vcpu(1)), NO_LPIS);

    rig.enable_lpis_with(1, Rig::propbaser(), Rig::pendbaser(1).with_pending_table_zero(true));
    let mut found = drain(&mut rig.vcpu(1));
    found.sort_unstable();
    assert_eq!(found, [8200, 8201]);
}

#[test]
fn an_lpi_made_pending_again_after_movall_is_taken_once() {
    let rig = Rig::running(2);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0), mapti(1, 1, 8200, 1)]);
    rig.send(1, 0);
    rig.run([movall(0, 1), discard(1, 0)]);

    rig.send(1, 1);

    assert_eq!(drain(&mut rig.vcpu(1)), [8200]);
}

#[test]
fn a_reset_drops_pending_lpis_without_writing_memory() {
    let rig = Rig::running(2);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 1)]);
    rig.send(1, 0);
    rig.send(1, 1);

    rig.lpis.reset_lpis();

    for vcpu in [0, 1] {
        assert_eq!(pending_byte(&rig, vcpu, 8200 + u32::from(vcpu)), 0);
        rig.enable_lpis(vcpu);
        assert_eq!(rig.pending(vcpu), NO_LPIS);
    }
}

#[test]
fn a_disabled_lpi_does_not_kick_its_vcpu_until_enabled() {
    let rig = Rig::running(1);
    rig.configure(8200, false, 0xa0);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.wakeup.words()[0].leave();
    rig.send(1, 0);
    assert_eq!(rig.kicks(0), 0);

    rig.configure(8200, true, 0xa0);
    rig.run([inv(1, 0)]);

    assert_eq!(rig.kicks(0), 1);
}
