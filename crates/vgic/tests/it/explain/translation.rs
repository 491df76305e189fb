//! Obstacles at an ITS: registers, commands and mappings.

use super::guest::{CPU, DEVICE, EVENT, Guest, LPI, config, facts, mapc, mapd, mapti};
use doorbell_test_support::guest::{ITS, QUEUE};
use gic_arch::gits::{self, Cbaser};
use gic_arch::its::{Command, MapAction};
use gic_arch::{IntId, Lpi};
use msi_types::explain::{Fact, Obstacle, TableRegister, TargetState, Unexamined};
use std::sync::Arc;
use vgic::AccessWidth::{Double, Word};
use vgic::its::{ErrorPolicy, ItsConfig};
use vgic::{DirectInjection, GuestMemory as _, InListRegister, Translate};

/// Returns a guest that has enabled LPIs and the ITS, and has executed these commands.
fn after(commands: impl IntoIterator<Item = Command>) -> Guest {
    let guest = Guest::new(config());
    guest.enable_lpis();
    guest.machine.start_its();
    guest.machine.queue(commands);
    guest
}

fn write_its(guest: &Guest, offset: u32, value: u64) {
    guest.machine.write(ITS + u64::from(offset), Double, value);
}

fn baser(index: u32) -> u32 {
    gits::BASER.get(index).unwrap().offset()
}

#[test]
fn a_working_event_has_no_obstacle() {
    let guest = Guest::working();
    guest.send();
    let explanation = guest.explain();
    assert_eq!(explanation.obstacle(), None);
    let expected = [
        Fact::Doorbell(ITS + 0x1_0040),
        Fact::Event { device: DEVICE, event: EVENT, interrupt: LPI },
        Fact::Enabled(0xa0),
        Fact::Pending(LPI),
        Fact::Target(CPU, TargetState::InMonitor),
        Fact::Signaled(CPU),
    ];
    assert_eq!(facts(&explanation), expected);
}

/// A saved state does not tell whether the queue has wrapped.
#[test]
fn commands_beyond_cwriter_may_be_old_after_a_restore() {
    let mut guest = Guest::working();
    for (address, word) in (QUEUE + 0x60..).step_by(8).zip(mapti(0, 8192, 0).encode()) {
        guest.machine.ram.write(address, &word.to_le_bytes()).unwrap();
    }
    let unannounced = |wrapped| {
        let (command, address, write) = ("MAPTI", QUEUE + 0x60, 0x60);
        Fact::Unannounced { command, address, write, wrapped }
    };
    assert!(facts(&guest.explain()).contains(&unannounced(false)));
    let saved = guest.machine.save();
    guest.machine.restore(&saved);
    assert!(facts(&guest.explain()).contains(&unannounced(true)));
}

/// Hardware that delivers the messages of the event of [`LPI`].
struct Hardware;

impl DirectInjection for Hardware {
    fn before(&self, _: Command) -> bool {
        false
    }

    fn after(&self, _: Option<Command>, _: &mut Translate<'_>) -> Result<u32, InListRegister> {
        Ok(0)
    }

    fn is_direct(&self, lpi: Lpi) -> bool {
        lpi.get() == LPI.get()
    }
}

#[test]
fn the_pending_state_of_a_direct_event_is_unknown() {
    let guest = Guest::working();
    let gic = &guest.machine.gic;
    assert!(gic.inject_directly(0, Arc::new(Hardware)).is_ok());
    let explained = gic.explain_interrupt(CPU, IntId::new(LPI.get()));
    assert!(explained.unexamined().any(|part| part == Unexamined::PendingState), "{explained}");
    assert_eq!((guest.obstacle(), explained.is_idle()), (None, false));

    guest.send();

    assert_eq!(guest.obstacle(), None);
}

#[test]
fn an_its_that_does_not_exist_is_named() {
    let explanation = Guest::working().machine.gic.explain(1, DEVICE, EVENT);
    assert_eq!(explanation.obstacle(), Some(Obstacle::NoIts { index: 1, count: 1 }));
}

#[test]
fn commands_in_the_wrong_order_are_named() {
    let guest = after([mapc(0, 0), mapti(0, 8192, 0), mapd(1)]);
    let explanation = guest.explain();
    let expected = Obstacle::UnmappedEvent { device: DEVICE, event: EVENT };
    assert_eq!(explanation.obstacle(), Some(expected));
    let refused = Fact::RefusedCommands {
        count: 1,
        address: QUEUE + 0x20,
        command: "MAPTI",
        reason: "device not mapped",
        operand: Some(DEVICE.get()),
        fix: Some("send MAPD for the device first, and then the command again"),
    };
    assert_eq!(facts(&explanation), [Fact::Doorbell(ITS + 0x1_0040), refused]);
    assert_eq!(
        explanation.fix(expected),
        "send MAPD for the device first, and then the command again"
    );
}

#[test]
fn a_stalled_queue_is_named() {
    let its = ItsConfig::new(ITS).with_error_policy(ErrorPolicy::Stall);
    let guest = Guest::new(config().with_its(vec![its]));
    guest.enable_lpis();
    guest.machine.start_its();
    guest.machine.queue([mapc(0, 0), mapti(0, 8192, 0), mapd(1)]);
    // Bit 0 of GITS_CREADR is Stalled.
    assert_eq!(guest.obstacle(), Some(Obstacle::CommandsQueued { read: 0x21, write: 0x60 }));
}

#[test]
fn a_table_or_queue_written_while_the_its_is_enabled_is_named() {
    let mapped = [mapd(1), mapti(0, 8192, 0)];
    for (offset, register, commands) in [
        (baser(0), TableRegister::Baser(0), &[][..]),
        (baser(1), TableRegister::Baser(1), &mapped),
        (gits::CBASER.offset(), TableRegister::Cbaser, &[]),
    ] {
        let guest = after(commands.iter().copied());
        let value = guest.machine.read(ITS + u64::from(offset), Double);
        let ignored = value ^ 1;
        write_its(&guest, offset, ignored);
        let expected = Obstacle::WriteIgnored { register, value, ignored };
        assert_eq!(guest.obstacle(), Some(expected), "{register}");
    }
}

#[test]
fn an_ignored_write_of_the_same_queue_is_not_reported() {
    let guest = after([]);
    let value = guest.machine.read(ITS + u64::from(gits::CBASER.offset()), Double);
    write_its(&guest, gits::CBASER.offset(), value);
    let expected = Obstacle::UnmappedDevice { device: DEVICE, mapped: 0 };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn an_ignored_cbaser_write_is_not_reported_after_a_later_write_succeeds() {
    let guest = after([]);
    let value = guest.machine.read(ITS + u64::from(gits::CBASER.offset()), Double);
    write_its(&guest, gits::CBASER.offset(), value ^ 1);
    guest.machine.write(ITS, Word, 0);
    let again = Cbaser::from_bits(value).with_address(QUEUE).into_bits();
    write_its(&guest, gits::CBASER.offset(), again);
    guest.machine.write(ITS, Word, 1);
    let expected = Obstacle::UnmappedDevice { device: DEVICE, mapped: 0 };
    assert_eq!(guest.obstacle(), Some(expected));
}

#[test]
fn a_command_that_removed_the_mapping_is_shown() {
    let unmapped = |command| match command {
        Command::Mapd { device, itt, event_bits_minus_one, .. } => {
            Command::Mapd { device, itt, event_bits_minus_one, action: MapAction::Unmap }
        }
        Command::Mapc { collection, target, .. } => {
            Command::Mapc { collection, target, action: MapAction::Unmap }
        }
        other => other,
    };
    let discard = Command::Discard { device: DEVICE, event: EVENT };
    for (last, expected) in [
        (vec![discard], Some("DISCARD")),
        (vec![mapd(4)], Some("MAPD")),
        (vec![unmapped(mapd(1))], Some("MAPD")),
        (vec![unmapped(mapc(0, 0))], Some("MAPC")),
        (vec![unmapped(mapc(0, 0)), discard, mapti(0, 8192, 0)], Some("MAPC")),
        (vec![unmapped(mapc(1, 0)), mapti(0, 8192, 1)], None),
        (vec![discard, mapti(0, 8192, 0), discard, mapc(1, 0)], Some("DISCARD")),
        (vec![discard, mapti(0, 8192, 0)], None),
        (vec![mapti(0, 8192, 7)], None),
    ] {
        let guest = after([mapc(0, 0), mapd(1), mapti(0, 8192, 0)].into_iter().chain(last));
        let removed = guest.explain().facts().find_map(|fact| match fact {
            Fact::Removed { command, .. } => Some(command),
            _ => None,
        });
        assert_eq!(removed, expected, "{}", guest.explain());
    }
}
