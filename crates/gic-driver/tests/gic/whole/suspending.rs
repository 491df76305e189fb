//! Suspend and resume tests.

use super::*;
use gic_driver::{Mbi, MbiConfig};

/// Resets all state except the GIC's identification registers.
fn lose_power(fake: &Board) {
    fake.at_distributor(|frame| *frame = FakeDistributor::new(Security::Single));
    for index in 0..CPUS.into() {
        fake.at_redistributor(index, FakeRedistributor::lose_power);
    }
}

#[test]
fn resume_restores_routes_enables_and_lpis() {
    let (fake, gic, registers) = running();
    gic.claim(hwirq(40), count(1)).unwrap();
    gic.set_target(hwirq(40), cpu(2)).unwrap();
    gic.unmask(hwirq(40));
    gic.redistributor_frames(cpu(0)).unwrap().interrupt(IntId::new(27)).unwrap().enable();
    for off in [1, 2] {
        gic.cpu_off(cpu(off), &registers[off as usize]).unwrap();
        fake.at_redistributor(off as usize, |frame| frame.power.on = false);
    }

    let saved = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers[0]).unwrap();
    lose_power(&fake);
    let resumed = gic.resume(&saved, &registers[0]).unwrap();

    assert_eq!(resumed.lpis, PendingLpis::Kept);
    let to = Route::To(Affinity::new(0, 0, 0, 2));
    assert_eq!(gic.distributor().route(IntId::new(40)), Ok(to));
    assert!(gic.distributor().interrupt(IntId::new(40)).unwrap().is_enabled());
    fake.at_redistributor(0, |frame| {
        assert!(frame.bank.state(IntId::new(27)).enabled && frame.lpis_enabled());
    });
    assert!(gic.is_on(cpu(0)) && !gic.is_on(cpu(1)));
    gic.cpu_on(cpu(1), &registers[1]).unwrap();
}

#[test]
fn resume_without_power_loss_restores_enables() {
    let (fake, gic, registers) = running();
    gic.unmask(hwirq(40));
    let saved = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers[0]).unwrap();
    assert!(!fake.at_distributor(|frame| frame.control.enable_grp1()));
    gic.resume(&saved, &registers[0]).unwrap();
    assert!(fake.at_distributor(
        |frame| frame.control.enable_grp1() && frame.spis.state(IntId::new(40)).enabled
    ));
}

#[test]
fn resume_keeps_the_split_eoi_mode() {
    let fake = Board::with_cpus(1);
    let gic = discovered(&fake).unwrap();
    let registers = FakeRegisters::default();
    gic.cpu_on_with::<_, SplitEoi>(cpu(0), &registers).unwrap();
    let interface = gic.cpu_interface_with::<_, SplitEoi>(&registers);
    interface.set_mask(Priority::new(0xc0));
    let saved = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers).unwrap();
    registers.reset();
    gic.resume(&saved, &registers).unwrap();

    registers.raise(40);
    let active = interface.end(interface.acknowledge().unwrap());
    assert!(registers.deactivated().is_empty());
    interface.deactivate(active);
    assert_eq!(interface.mask(), Priority::new(0xc0));
}

#[test]
fn a_suspend_timeout_still_stops_the_other_parts() {
    let (fake, gic, registers) = running();
    gic.unmask(hwirq(40));
    fake.at_distributor(|frame| frame.stuck = true);
    let refused = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers[0]).unwrap_err();
    let SuspendError::Incomplete { error, saved } = refused else { panic!("{refused}") };
    let block = Block::Distributor(DISTRIBUTOR);
    assert_eq!(error, GicError::TimedOut { block, what: "RWP = 0" });
    assert_eq!(registers[0].get(icc::IGRPEN1.encoding()), 0);
    fake.at_redistributor(0, |frame| assert!(frame.power.sleep && !frame.lpis_enabled()));

    fake.at_distributor(|frame| frame.stuck = false);
    gic.resume(&saved, &registers[0]).unwrap();
    assert!(gic.is_on(cpu(0)));
    fake.at_distributor(|frame| assert!(frame.spis.state(IntId::new(40)).enabled));
}

#[test]
fn suspend_names_the_stuck_redistributor() {
    let (fake, gic, registers) = running();
    fake.at_redistributor(0, |frame| frame.stuck = true);
    let refused = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers[0]).unwrap_err();
    let SuspendError::Incomplete { error, .. } = refused else { panic!("{refused}") };
    assert!(matches!(error, GicError::TimedOut { block: Block::Redistributor(REDISTRIBUTOR), .. }));
    assert!(!fake.at_distributor(|frame| frame.control.enable_grp1()));
}

#[test]
fn unsaved_pending_lpis_are_reported_lost() {
    let fake = Board::with_cpus(CPUS);
    fake.at_redistributor(0, |frame| frame.can_disable = false);
    let gic = discovered(&fake).unwrap();
    let registers = FakeRegisters::default();
    gic.cpu_on(cpu(0), &registers).unwrap();
    let saved = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers).unwrap();
    lose_power(&fake);
    assert_eq!(gic.resume(&saved, &registers).unwrap().lpis, PendingLpis::Lost);
}

#[test]
fn resume_does_not_restore_levels_that_wired_lines_provide() {
    let (fake, gic, registers) = running();
    let message = SpiRange { first: hwirq(64), count: count(1) };
    let gic = Arc::new(gic);
    let _mbi = Mbi::new(&gic, MbiConfig::new(vec![message])).unwrap();
    gic.set_trigger(hwirq(41), Trigger::Edge).unwrap();
    for spi in [40, 41, 63, 64, 65] {
        gic.set_pending(hwirq(spi), Pending::Set);
    }
    let timer = gic.redistributor_frames(cpu(0)).unwrap().interrupt(IntId::new(27)).unwrap();
    timer.set_pending(Pending::Set);
    let saved = gic.suspend(gic.suspend_room().unwrap(), cpu(0), &registers[0]).unwrap();
    lose_power(&fake);
    gic.resume(&saved, &registers[0]).unwrap();

    let pending = [40, 41, 63, 64, 65].map(|spi| gic.is_pending(hwirq(spi)));
    assert_eq!(
        pending,
        [false, true, false, true, false],
        "an edge, and a level that a message asserted"
    );
    assert!(!timer.is_pending(), "the line provides its level");
}
