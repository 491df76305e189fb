//! Tests for work that visits all mappings. Each access must do a bounded piece of the work, and
//! commands must not be consumed or reported as done too early. Accesses that enable LPIs or an ITS
//! do all the work, but must not delay other threads.

use super::rig::*;
use crate::AccessWidth::{Double, Word};
use crate::frames::its::ItsConfig;
use crate::lpi::LpiConfig;
use crate::monitor::GuestMemory;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use gic_arch::Priority;
use gic_arch::gits::{self, Ctlr};
use gic_arch::its::Command;
use gic_arch::lpi::Config;
use msi_types::Delivery;

/// Number of events on the device. The device has fewer LPIs than events, so two events share each
/// LPI.
const EVENTS: u32 = 1 << 16;
const DEVICE: u32 = 1;
/// Units of work per access, of 16 entries each.
const WORK: u32 = 64;
/// Maximum work of one access: the budget, plus the last chunk and command that began within it.
/// Moving an LPI counts as three entries: the visit and two changes.
const MOST: u64 = WORK as u64 * 16 + 3 * 64 + 64;

const fn lpi_of(event: u32) -> u32 {
    8192 + event / 2
}

/// Creates a machine with two vCPUs and all events mapped to the first. Each access does only a
/// little work.
fn crowded() -> Rig {
    let size = LpiConfig { entries: 1 << 18, work_per_access: WORK, ..LpiConfig::new(2) };
    let rig = Rig::sized(size, ItsConfig::new(BASE).with_work_per_access(WORK));
    let config = Config::new().with_enable(true).with_priority(Priority::new(0xa0)).into_bits();
    let table: Vec<u8> = (0..EVENTS / 2).map(|_| config).collect();
    rig.ram.write(CONFIG, &table).unwrap();
    rig.enable_lpis(0);
    rig.enable_lpis(1);
    rig.provide_tables();
    rig.set_enabled(true);
    rig.run([mapc(0, 0), mapc(1, 1), mapd(DEVICE, 16)]);
    for batch in (0..EVENTS).collect::<Vec<_>>().chunks(1024) {
        rig.run(batch.iter().map(|event| mapti(DEVICE, *event, lpi_of(*event), 0)));
    }
    assert_eq!(rig.its.command_faults().count, 0);
    rig
}

fn work(rig: &Rig) -> u64 {
    rig.lpis.with_kicks_deferred(|control| control.work())
}

/// Polls until `done` returns `true`, and counts the polls. Checks that no poll exceeds the budget.
fn polls(rig: &Rig, mut done: impl FnMut() -> bool) -> u32 {
    for polls in 0..100_000 {
        let before = work(rig);
        if done() {
            return polls;
        }
        let step = work(rig) - before;
        assert!(step <= MOST, "one access did the work of {step} entries");
    }
    panic!("the work is never done");
}

/// Executes a command piece by piece, and returns the number of polls.
fn execute(rig: &Rig, command: Command) -> u32 {
    let before = work(rig);
    rig.queue_raw([command.encode()]);
    assert!(work(rig) - before <= MOST, "the write did work of {} entries", work(rig) - before);
    polls(rig, || rig.creadr().offset() == rig.cwriter().offset())
}

#[test]
fn a_long_command_spans_several_accesses() {
    let rig = crowded();
    for event in 0..EVENTS {
        assert_eq!(rig.send(DEVICE, event), Delivery::Pending);
    }
    let pieces = u32::try_from(u64::from(EVENTS) / MOST).unwrap() - 1;

    for command in
        [invall(0), mapc(0, 1), mapc(0, 0), movall(0, 1), unmapc(0), mapc(0, 0), mapd(DEVICE, 15)]
    {
        let polls = execute(&rig, command);
        assert!(polls >= pieces, "{command:?} was done after {polls} polls");
    }

    let moved = drain(&mut rig.vcpu(1)).len();
    assert_eq!(moved, EVENTS as usize / 2, "MOVALL must move all LPIs before MAPD can drop them");
    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    assert_eq!(rig.send(DEVICE, 0), Delivery::Blocked, "the device was mapped again");
}

#[test]
fn int_during_an_unfinished_mapc_reaches_the_new_vcpu() {
    let rig = crowded();
    let last = EVENTS - 1;
    rig.queue_raw([mapc(0, 1).encode(), int(DEVICE, last).encode(), sync(1).encode()]);
    assert!(rig.creadr().offset() != rig.cwriter().offset(), "MAPC must need several accesses");

    polls(&rig, || rig.creadr().offset() == rig.cwriter().offset());

    assert_eq!((rig.pending(0), rig.pending(1)), (Vec::new(), Vec::from([lpi_of(last)])));
}

/// Writes `GITS_CTLR.Enabled`, and polls until the write has taken effect: when enabling, by
/// repeating the write. Calls `between` before each access. Returns the number of accesses.
fn switch(rig: &Rig, enable: bool, mut between: impl FnMut(u32)) -> u32 {
    let write = || rig.its.begin_write(gits::CTLR.offset(), Word, u64::from(enable));
    let before = work(rig);
    write();
    assert!(work(rig) - before <= MOST, "the write did work of {} entries", work(rig) - before);
    let mut access = 0;
    polls(rig, || {
        between(access);
        access += 1;
        if enable {
            write();
            !rig.its.is_enabling()
        } else {
            rig.its.read(gits::CTLR.offset(), Word) >> 31 == 1
        }
    })
}

#[test]
fn enabling_and_disabling_an_its_take_bounded_steps() {
    let rig = crowded();
    let least = u32::try_from(u64::from(EVENTS) * 2 / MOST).unwrap() - 1;
    for is_pending in [false, true] {
        for enable in [false, true] {
            let accesses = switch(&rig, enable, |_| ());
            assert!(accesses >= least, "{enable}: {accesses} accesses, {is_pending}");
        }
        (0..EVENTS).for_each(|event| assert_eq!(rig.send(DEVICE, event), Delivery::Pending));
    }
}

#[test]
fn messages_during_an_its_switch_are_delivered_or_blocked() {
    let rig = crowded();
    let mut vcpu = rig.vcpu(0);
    for enable in [false, true] {
        let (mut accepted, mut blocked) = (BTreeSet::new(), 0);
        switch(&rig, enable, |access| {
            let first = access * 514 % EVENTS;
            for event in [first, EVENTS - 2 - first] {
                match rig.send(DEVICE, event) {
                    Delivery::Pending => _ = accepted.insert(lpi_of(event)),
                    _ => blocked += 1,
                }
            }
        });
        assert!(!accepted.is_empty() && blocked > 0, "{enable}: {blocked} blocked");
        assert_eq!(drain(&mut vcpu).into_iter().collect::<BTreeSet<_>>(), accepted, "{enable}");
    }
}

#[test]
fn a_quiescent_its_blocks_every_message() {
    let rig = crowded();
    let ctlr = || Ctlr::from_bits(u32::try_from(rig.its.read(gits::CTLR.offset(), Word)).unwrap());
    rig.set_enabled(false);
    assert!(!ctlr().quiescent());

    polls(&rig, || ctlr().quiescent());

    assert!((0..EVENTS).step_by(97).all(|event| rig.send(DEVICE, event) == Delivery::Blocked));
}

#[test]
fn a_reenabled_its_accepts_every_message() {
    let rig = crowded();
    // The last number suffices for quiescence.
    for pieces in [0, 1, 30, 1000] {
        rig.set_enabled(false);
        for _ in 0..pieces {
            rig.its.try_poll(true);
        }

        rig.set_enabled(true);

        assert!((0..EVENTS).all(|event| rig.send(DEVICE, event) == Delivery::Pending), "{pieces}");
    }
}

#[test]
fn restoring_a_removed_device_table_does_not_remap_devices() {
    let rig = crowded();
    rig.set_enabled(false);

    let table = rig.its.read(gits::BASER.offset_of(0), Double);
    rig.its.write(gits::BASER.offset_of(0), Double, 0);
    rig.its.write(gits::BASER.offset_of(0), Double, table);
    rig.set_enabled(true);

    assert_eq!(rig.send(DEVICE, EVENTS - 1), Delivery::Blocked);
    execute(&rig, mapd(DEVICE, 16));
    assert!((0..EVENTS).all(|event| rig.send(DEVICE, event) == Delivery::Blocked));
    execute(&rig, mapti(DEVICE, 0, 8192, 0));
    assert_eq!(rig.send(DEVICE, 0), Delivery::Pending);
}

/// Enables LPIs as a write to `GICR_CTLR` does: the write starts the work, and polls continue it.
mod redistributor {
    use super::*;

    fn begin_disabling(rig: &Rig) {
        rig.lpis.with_kicks_deferred(|control| control.disable_lpis(0));
    }

    fn begin_enabling(rig: &Rig) {
        let (propbaser, pendbaser) = (Rig::propbaser(), Rig::pendbaser(0));
        rig.lpis
            .with_kicks_deferred(|control| control.enable_lpis(0, propbaser, pendbaser))
            .unwrap();
    }

    fn is_disabling(rig: &Rig) -> bool {
        rig.lpis.with_kicks_deferred(|control| control.is_disabling(0))
    }

    fn poll(rig: &Rig) {
        rig.lpis.advance_registers(0);
    }

    fn table(rig: &Rig) -> Vec<u8> {
        let mut bytes = alloc::vec![0; 0x2000];
        rig.ram.read(PENDING, &mut bytes).unwrap();
        bytes.split_off(1024)
    }

    #[test]
    fn disabling_lpis_completes_after_writing_every_pending_bit() {
        let rig = crowded();
        (0..EVENTS).for_each(|event| assert_eq!(rig.send(DEVICE, event), Delivery::Pending));
        begin_disabling(&rig);

        let polls = polls(&rig, || {
            poll(&rig);
            !is_disabling(&rig)
        });

        assert!(polls > 50, "disabling LPIs must need many accesses");
        assert_eq!(table(&rig)[..EVENTS as usize / 16], [0xff; EVENTS as usize / 16]);
        assert_eq!(rig.send(DEVICE, EVENTS - 1), Delivery::Blocked);
        assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    }

    #[test]
    fn disabling_lpis_during_an_enable_preserves_the_pending_table() {
        let rig = crowded();
        begin_disabling(&rig);
        rig.finish_sweeps();
        let said: Vec<u8> = (0u32..0x1c00).map(|at| at.wrapping_mul(37).to_le_bytes()[0]).collect();
        rig.ram.write(PENDING + 1024, &said).unwrap();
        for pieces in [0, 1, 40, 80] {
            begin_enabling(&rig);
            (0..pieces).for_each(|_| poll(&rig));

            begin_disabling(&rig);
            rig.finish_sweeps();

            assert!(table(&rig) == said, "after {pieces} pieces");
        }
    }

    #[test]
    fn an_invalidation_is_busy_until_every_lpi_was_reloaded() {
        let rig = crowded();
        let last = lpi_of(EVENTS - 1);
        rig.configure(last, false, 0);

        rig.lpis.invalidate_all(cpu(0));
        let busy = || rig.lpis.with_kicks_deferred(|control| control.is_invalidating(0));
        assert!(busy());
        polls(&rig, || {
            poll(&rig);
            !busy()
        });

        rig.send(DEVICE, EVENTS - 1);
        assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS, "the LPI is now disabled");
    }
}
