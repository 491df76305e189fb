//! Tests with damaged saved states. A restore must either refuse the state and reset the machine,
//! or, if the state is a possible one for the machine, restore exactly that state.

use super::board::{Board, CPUS, config};
use super::round_trip::busy;
use doorbell_test_support::damage::{Damage, damaged, damages};
use doorbell_test_support::guest::{mapd, mapti};
use gic_arch::lpi::Config;
use gic_arch::{IntId, gicd, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use proptest::prelude::*;
use vgic::SecurityView;
use vgic::saved_state::{InterruptState, NotRestorable, SavedState};

/// Creates a machine with another guest that has different interrupts in progress.
fn other_work() -> Board {
    let mut board = Board::running();
    board.run([mapd(77, 5, 0x4010_0000), mapti(77, 3, 8230, 1)]);
    board.send(77, 3);
    board.raise(44);
    board.enable_spi(44);
    assert_eq!(board.acknowledge(1), 8230);
    board
}

/// Creates a machine whose guest sees the Non-secure side of its GIC, with interrupts in progress.
pub(crate) fn non_secure() -> Board {
    let mut board = Board::new(
        config()
            .with_security(SecurityView::NonSecure)
            .with_secure_interrupts(vec![IntId::new(33), IntId::new(15)])
            .with_its(Vec::new())
            .with_lpi_id_bits(None)
            .with_redistributor_invalidation(false)
            .with_priority_bits(6),
    );
    board.enable_spi(40);
    board.enable_spi(41);
    board.enable_private(1, 27);
    board.msr(1, icc::PMR.encoding(), 0xf0);
    board.msr(1, icc::IGRPEN1.encoding(), 1);
    board.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));
    for line in [Line::Spi(33), Line::Spi(40), Line::Ppi { cpu: Cpu::new(1), intid: 27 }] {
        board.gic.set_line(line, Level::High);
    }
    assert_eq!(board.acknowledge(1), 27);
    board
}

/// Reduces a state to its canonical form.
fn essence(saved: &SavedState) -> SavedState {
    let mut saved = saved.clone();
    let canonical = |byte: Option<u8>| {
        byte.map(|byte| {
            let config = Config::from_bits(byte);
            Config::new()
                .with_enable(config.enable())
                .with_priority(config.priority().truncated(5))
                .into_bits()
        })
    };
    essential(&mut saved.distributor.interrupts);
    for cpu in &mut saved.cpus {
        essential(&mut cpu.redistributor.interrupts);
        for lpi in &mut cpu.redistributor.lpis {
            lpi.configuration = canonical(lpi.configuration);
        }
    }
    for event in
        saved.its.iter_mut().flat_map(|its| &mut its.devices).flat_map(|device| &mut device.events)
    {
        event.configuration = canonical(event.configuration);
    }
    saved
}

/// Removes interrupts in their reset state, which a saved state may omit. Also clears the chosen
/// CPUs of 1-of-N interrupts, because a restore chooses again if a CPU does not participate.
fn essential(interrupts: &mut Vec<InterruptState>) {
    for interrupt in &mut *interrupts {
        interrupt.chosen = None;
    }
    interrupts.retain(|interrupt| {
        let InterruptState {
            group1,
            enabled,
            priority,
            edge,
            latch,
            line,
            message,
            active,
            route,
            ..
        } = *interrupt;
        let sgi = interrupt.intid.get() < 16;
        let initial = matches!((group1, priority), (false, 0) | (true, 0x80));
        !initial || enabled || edge != sgi || latch || line || message || active || route != 0
    });
}

/// Fills in optional values that are missing from `open` with the machine's values.
fn fill_in(open: &mut SavedState, found: &SavedState) {
    let events = |state: &mut SavedState| -> Vec<_> {
        let devices = state.its.iter().flat_map(|its| &its.devices);
        devices
            .flat_map(|device| &device.events)
            .map(|event| (event.stays_at, event.configuration))
            .collect()
    };
    let known = events(&mut found.clone());
    let open_events =
        open.its.iter_mut().flat_map(|its| &mut its.devices).flat_map(|device| &mut device.events);
    for (event, (stays_at, configuration)) in open_events.zip(known) {
        event.stays_at = event.stays_at.or(stays_at);
        event.configuration = event.configuration.or(configuration);
    }
    for (cpu, found) in open.cpus.iter_mut().zip(&found.cpus) {
        for (lpi, found) in cpu.redistributor.lpis.iter_mut().zip(&found.redistributor.lpis) {
            lpi.configuration = lpi.configuration.or(found.configuration);
        }
    }
}

/// Merges the pending state of LPIs: if an LPI is pending at a redistributor without an event, and
/// one of its events targets that redistributor, makes that event pending instead. A restore does
/// the same, because an LPI has only one pending bit per redistributor.
fn join_lpis(saved: &mut SavedState) {
    for its in &mut saved.its {
        for event in its.devices.iter_mut().flat_map(|device| &mut device.events) {
            let mapped = its.collections.iter().find(|one| one.collection == event.collection);
            let target = mapped.map(|collection| collection.target).or(event.stays_at);
            let cpu = saved.cpus.iter_mut().find(|cpu| Some(cpu.affinity) == target);
            let Some(lpis) = cpu.map(|cpu| &mut cpu.redistributor.lpis) else { continue };
            if let Some(at) = lpis.iter().position(|lpi| lpi.intid == event.intid) {
                lpis.remove(at);
                event.pending = true;
            }
        }
    }
}

/// Lets the guest and its devices continue, which must not panic.
fn go_on(board: &mut Board) {
    for cpu in 0..usize::from(CPUS) {
        for _ in 0..20 {
            let intid = board.acknowledge(cpu);
            board.end(cpu, intid);
        }
    }
    for (device, event) in [(5, 0), (5, 7), (0x1234, 40)] {
        if board.gic.its(0).is_some() {
            board.send(device, event);
        }
    }
    _ = board.gic.poll();
}

/// Damages a saved state of `source`, and restores `board` from it.
fn refused_or_restored(
    source: &mut Board,
    board: &mut Board,
    all: &[Damage],
) -> Result<(), TestCaseError> {
    let Some(mut received) = damaged(&source.save(), all) else { return Ok(()) };
    let possible = board.gic.config().check_restorable(&received);
    let outcome = board.try_restore(&received);
    prop_assert_eq!(possible, outcome.map_err(NotRestorable::from));
    let after = board.save();
    if outcome.is_err() {
        prop_assert_eq!(after, board.unused());
    } else {
        join_lpis(&mut received);
        fill_in(&mut received, &after);
        prop_assert_eq!(essence(&after), essence(&received));
    }
    go_on(board);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_state_is_refused_or_restored(damages in damages()) {
        refused_or_restored(&mut busy(), &mut other_work(), &damages)?;
    }

    #[test]
    fn a_damaged_non_secure_state_is_refused_or_restored(damages in damages()) {
        let mut other = non_secure();
        other.acknowledge(1);
        other.raise(41);
        refused_or_restored(&mut non_secure(), &mut other, &damages)?;
    }
}
