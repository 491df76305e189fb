//! What the guest is told in `GITS_STATUSR` and `GITS_UMSIR`.

use super::rig::*;
use crate::AccessWidth::{Double, Word};
use crate::its::{ErrorReporting, ItsConfig};
use gic_arch::gits::{self, Statusr, Typer, Umsir};

fn reporting() -> Rig {
    Rig::running_with(1, ItsConfig { error_reporting: ErrorReporting::Registers, ..ItsConfig::new(BASE) })
}

fn status(rig: &Rig) -> Statusr {
    Statusr::from_bits(u32::try_from(rig.its.read(gits::STATUSR.offset(), Word)).unwrap())
}

fn clear(rig: &Rig, bits: Statusr) {
    rig.its.write(gits::STATUSR.offset(), Word, bits.into_bits().into());
}

fn message(rig: &Rig) -> (u32, u32) {
    let umsir = Umsir::from_bits(rig.its.read(gits::UMSIR.offset(), Double));
    (umsir.device_id(), umsir.event_id())
}

#[test]
fn each_way_of_being_unmapped_is_reported_with_its_syndrome_and_message() {
    let cases = [(0x1_0000, 0, 2), (7, 0, 3), (1, 2, 4), (1, 1, 5), (1, 0, 7)];
    for (device, event, syndrome) in cases {
        let rig = reporting();
        rig.run([mapd(1, 1), mapti(1, 0, 8200, 3)]);

        rig.send(device, event);

        let expected = Statusr::new().with_umsi(true).with_syndrome(syndrome);
        assert_eq!((status(&rig), message(&rig)), (expected, (device, event)));
    }
}

#[test]
fn the_reason_follows_what_commands_map_and_unmap() {
    for bits in [3, 11] {
        let rig = reporting();
        let expect = |command, syndrome| {
            rig.run([command]);
            rig.send(1, 5);
            assert_eq!(status(&rig).syndrome(), syndrome, "{command:?}, {bits} event bits");
            clear(&rig, Statusr::new().with_umsi(true));
        };
        expect(mapd(1, bits), 5);
        expect(mapti(1, 4, 8200, 0), 5);
        expect(mapti(1, 5, 8201, 3), 7);
        expect(mapc(3, 0), 0);
        expect(unmapc(3), 7);
        expect(discard(1, 5), 5);
        expect(mapd(1, 2), 4);
        expect(unmapd(1), 3);
    }
}

#[test]
fn of_several_unmapped_messages_the_first_is_kept_until_it_is_cleared() {
    let rig = reporting();
    rig.send(7, 1);
    rig.send(8, 2);
    assert!(status(&rig).umsi() && status(&rig).overflow());
    assert_eq!(message(&rig), (7, 1));

    clear(&rig, Statusr::new().with_umsi(true).with_overflow(true));
    assert_eq!(status(&rig), Statusr::new());
    rig.send(9, 3);

    assert!(status(&rig).umsi() && !status(&rig).overflow());
    assert_eq!(message(&rig), (9, 3));
}

#[test]
fn a_message_that_is_dropped_although_it_is_mapped_is_not_reported() {
    let rig = reporting();
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);

    rig.send(1, 0);
    rig.set_enabled(false);
    rig.send(1, 0);
    rig.disable_lpis(0);
    rig.send(1, 0);

    assert_eq!(status(&rig), Statusr::new());
}

#[test]
fn wrong_accesses_set_their_bits_and_ones_clear_them() {
    let rig = reporting();
    let reserved = 0x0200;
    rig.its.read(reserved, Word);
    assert_eq!(status(&rig), Statusr::new().with_rrd(true));
    rig.its.write(reserved, Word, 0);
    rig.its.write(gits::TYPER.offset(), Double, 0);
    rig.its.read(gits::TRANSLATER.offset(), Word);
    let all = Statusr::new().with_rrd(true).with_wrd(true).with_rwod(true).with_wrod(true);
    assert_eq!(status(&rig), all);

    clear(&rig, Statusr::new().with_wrd(true));

    assert_eq!(status(&rig), all.with_wrd(false));
}

#[test]
fn an_its_that_reports_nothing_reads_zero_and_does_not_offer_it() {
    let rig = Rig::running(1);
    rig.send(7, 1);
    rig.its.read(0x0200, Word);

    assert_eq!((status(&rig), message(&rig)), (Statusr::new(), (0, 0)));
    let typer = |rig: &Rig| Typer::from_bits(rig.its.read(gits::TYPER.offset(), Double));
    assert!(!typer(&rig).umsi() && typer(&reporting()).umsi());
}
