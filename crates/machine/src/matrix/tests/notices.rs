//! What would make a cell broken, and what may not.

use super::super::trial::{Setback, Trial, attempt};
use super::*;
use proptest::prelude::*;

#[test]
fn a_guest_that_claims_to_be_bare_metal_loses_what_devices_store() {
    let plan = Plan {
        parent: Parent::Its,
        layer: Layer::None,
        spread: Spread::Together,
        world: irq_domain::World::BareMetal,
        reality: World::Guest,
    };
    let board = Board::new(plan).unwrap();
    for endpoint in [Endpoint::ImsRing, Endpoint::ImsQueue, Endpoint::Platform] {
        let outcome = attempt(&board, endpoint);
        assert!(matches!(&outcome, Outcome::Broken(reason) if reason.contains("NoDoorbell")), "{outcome:?}");
    }
    assert_eq!(attempt(&board, Endpoint::PciMsix), Outcome::Works);
}

#[test]
fn a_machine_that_cannot_be_is_no_refusal() {
    let cell = Cell {
        endpoint: Endpoint::PciMsi,
        parent: Parent::Its,
        layer: Layer::Remapping,
        world: World::BareMetal,
    };
    let outcome = try_cell(cell);
    assert!(matches!(&outcome, Outcome::Broken(reason) if reason.contains("no remapping unit for its")));
}

#[test]
fn vectors_that_are_in_use_are_not_given_back() {
    for parent in Parent::ALL {
        let board = board(*parent, Layer::None, World::BareMetal);
        board.check_quiet().unwrap();
        let trial = Trial::begin(&board, Endpoint::PciMsix).unwrap();
        assert!(board.check_quiet().unwrap_err().contains("not given back"), "{parent}");
        trial.end().unwrap();
        board.settle();
        board.check_quiet().unwrap();
    }
}

proptest! {
    #[test]
    fn whichever_write_the_device_refuses_nothing_of_the_attempt_remains(
        parent in prop::sample::select(Parent::ALL),
        mapped in prop::bool::ANY,
        write in 0u32..14,
    ) {
        let layer = if mapped { Layer::DoorbellMapping } else { Layer::None };
        let board = board(parent, layer, World::BareMetal);
        board.devices().queue().refuse_after(write);
        let setback = Trial::begin(&board, Endpoint::ImsQueue).map(|_| ()).unwrap_err();
        prop_assert!(matches!(setback, Setback::Broken(reason) if reason.contains("refused the command")));
        board.settle();
        prop_assert_eq!(board.check_quiet(), Ok(()));
        prop_assert_eq!(board.devices().queue().messages(), 0);
    }

    #[test]
    fn a_move_that_the_device_refuses_leaves_every_vector_at_work(
        parent in prop::sample::select(Parent::ALL),
        mapped in prop::bool::ANY,
        write in 0u32..28,
    ) {
        let layer = if mapped { Layer::DoorbellMapping } else { Layer::None };
        let board = board(parent, layer, World::BareMetal);
        let trial = Trial::begin(&board, Endpoint::ImsQueue).unwrap();
        board.devices().queue().refuse_after(write);
        // Where the message names no CPU, the device is not asked.
        let names_cpu = matches!(parent, Parent::DirectLpi | Parent::X86Vector);
        prop_assert_eq!(trial.travel().is_err(), names_cpu);
        board.devices().queue().refuse_after(u32::MAX);
        prop_assert!(trial.deliver().is_ok());
        prop_assert!(trial.end().is_ok());
        board.settle();
        prop_assert_eq!(board.check_quiet(), Ok(()));
    }
}
