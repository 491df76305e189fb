//! Tests that defects result in a broken combination, and that harmless events do not.

use super::super::trial::{Trial, TrialError};
use super::*;
use proptest::prelude::*;
use vgic::saved_state::SavedState;

#[test]
fn a_guest_configured_as_bare_metal_loses_stored_messages() {
    let plan =
        BoardConfig { reality: World::Guest, ..plan(Parent::Its, Layer::None, World::BareMetal) };
    let board = Board::new(plan).unwrap();
    let stored = [Endpoint::Ath11k, Endpoint::ImsRing, Endpoint::ImsQueue, Endpoint::Platform];
    for endpoint in stored {
        assert_broken(&attempt(&board, endpoint), "NoDoorbell");
    }
    assert_eq!(attempt(&board, Endpoint::PciMsix), Outcome::Works);
}

#[test]
fn a_remapped_guest_configured_as_bare_metal_loses_stored_messages() {
    for parent in [Parent::Its, Parent::X86Vector] {
        let plan = plan(parent, Layer::None, World::BareMetal);
        let board = Board::new(BoardConfig { reality: World::GuestRemapped, ..plan }).unwrap();
        assert_broken(&attempt(&board, Endpoint::ImsQueue), "");
        assert_eq!(attempt(&board, Endpoint::Emulated), Outcome::Works);
    }
}

#[test]
fn a_cell_with_an_impossible_machine_is_broken_not_refused() {
    let (endpoint, world) = (Endpoint::PciMsi, World::BareMetal);
    let cell = Cell { endpoint, parent: Parent::Its, layer: Layer::Remapping, world };
    assert_broken(&try_cell(cell), "its has no remapping unit");
}

/// Returns the number of boards that break if their migrations drop the state that `forget`
/// removes.
fn broken(parent: Parent, forget: fn(&mut SavedState)) -> usize {
    let is_broken = |seed| {
        let migration = Migration::AtRandom { seed };
        let plan = plan(parent, Layer::None, World::BareMetal);
        let board = Board::new(BoardConfig { migration, ..plan }).unwrap();
        board.gic_cpus().unwrap().change_saved_states(move |mut saved| {
            forget(&mut saved);
            saved
        });
        matches!(attempt(&board, Endpoint::PciMsix), Outcome::Broken(_))
    };
    (0..8).filter(|seed| is_broken(*seed)).count()
}

#[test]
fn a_migration_that_drops_pending_state_breaks_the_cell() {
    let forget: fn(&mut SavedState) = |saved| {
        saved.distributor.interrupts.iter_mut().for_each(|spi| spi.latch = false);
        saved.cpus.iter_mut().for_each(|cpu| cpu.redistributor.lpis.clear());
        let devices = saved.its.iter_mut().flat_map(|its| &mut its.devices);
        devices.flat_map(|device| &mut device.events).for_each(|event| event.pending = false);
    };
    for parent in ARM {
        assert_eq!((broken(parent, |_| {}), broken(parent, forget)), (0, 8), "{parent}");
    }
}

#[test]
fn a_migration_that_drops_mappings_or_enables_breaks_the_cell() {
    let mapped: fn(&mut SavedState) = |saved| {
        let devices = saved.its.iter_mut().flat_map(|its| &mut its.devices);
        devices.for_each(|device| _ = device.events.pop());
    };
    assert_eq!(broken(Parent::Its, mapped), 8);
    let enabled: fn(&mut SavedState) = |saved| {
        saved.distributor.interrupts.iter_mut().for_each(|spi| spi.enabled = false);
    };
    for parent in [Parent::Mbi, Parent::V2m] {
        assert_eq!(broken(parent, enabled), 8, "{parent}");
    }
}

#[test]
fn the_quiet_check_reports_vectors_in_use() {
    for parent in Parent::ALL {
        let board = board(*parent, Layer::None, World::BareMetal);
        board.check_quiet().unwrap();
        let trial = Trial::begin(&board, Endpoint::PciMsix).unwrap();
        assert!(board.check_quiet().unwrap_err().contains("not released"), "{parent}");
        trial.end().unwrap();
        board.settle();
        board.check_quiet().unwrap();
    }
}

/// Returns the parents for devices that store their messages themselves. Excludes virtual buses.
fn with_own_stores() -> Vec<Parent> {
    let virtual_bus = |parent| matches!(parent, Parent::HypervSpi | Parent::HypervApic);
    Parent::ALL.iter().copied().filter(|parent| !virtual_bus(*parent)).collect()
}

proptest! {
    #[test]
    #[ignore = "slow: `cargo xtask test --long` runs it"]
    fn a_refused_message_store_write_leaves_no_state_behind(
        parent in prop::sample::select(with_own_stores()),
        mapped in prop::bool::ANY,
        write in 0u32..14,
    ) {
        let layer = if mapped { Layer::DoorbellMapping } else { Layer::None };
        let board = board(parent, layer, World::BareMetal);
        board.devices().queue().refuse_after(write);
        let setback = Trial::begin(&board, Endpoint::ImsQueue).map(|_| ()).unwrap_err();
        prop_assert!(
            matches!(setback, TrialError::Broken(reason) if reason.contains("refused the command"))
        );
        board.settle();
        prop_assert_eq!(board.check_quiet(), Ok(()));
        prop_assert_eq!(board.devices().queue().messages(), 0);
    }

    #[test]
    #[ignore = "slow: `cargo xtask test --long` runs it"]
    fn refused_move_keeps_vectors_working(
        parent in prop::sample::select(with_own_stores()),
        mapped in prop::bool::ANY,
        write in 0u32..28,
    ) {
        let layer = if mapped { Layer::DoorbellMapping } else { Layer::None };
        let board = board(parent, layer, World::BareMetal);
        let trial = Trial::begin(&board, Endpoint::ImsQueue).unwrap();
        board.devices().queue().refuse_after(write);
        // The move writes to the device's message store only if the message depends on the CPU.
        let names_cpu = matches!(parent, Parent::DirectLpi | Parent::X86Vector);
        prop_assert_eq!(trial.travel().is_err(), names_cpu);
        board.devices().queue().refuse_after(u32::MAX);
        prop_assert!(trial.deliver().is_ok());
        prop_assert!(trial.end().is_ok());
        board.settle();
        prop_assert_eq!(board.check_quiet(), Ok(()));
    }
}
