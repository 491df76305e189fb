//! Tests for controllers that do not snoop the CPU caches.

use crate::{assert_delivered, deliver_with, harbour, migration};
use doorbell_machine::{BuildOptions, Fault, RunOptions, Snooping, build, simulate};
use gic_firmware::{Coherence, ControllerKind, Description, Fact};

fn denied_to_itses(mut board: Description) -> Description {
    for its in
        board.controllers.iter_mut().filter(|controller| controller.kind == ControllerKind::Its)
    {
        its.coherence = Fact::stated(Coherence::NonCoherent);
    }
    board
}

fn denied_to_all(board: Description) -> Description {
    let mut board = denied_to_itses(board);
    board.gic.as_mut().unwrap().coherence = Fact::stated(Coherence::NonCoherent);
    board
}

#[test]
fn drivers_respect_non_coherence_of_firmware_and_registers() {
    let by_registers =
        BuildOptions { snooping: Snooping::DeniedByRegisters, ..BuildOptions::default() };
    for (board, options) in [
        (denied_to_all(harbour()), BuildOptions::default()),
        (denied_to_itses(harbour()), BuildOptions::default()),
        (harbour(), by_registers),
    ] {
        assert_delivered(&deliver_with(&board, &options, 60), 60);
    }
}

#[test]
fn drivers_that_skip_cache_maintenance_are_detected() {
    for migrates in [false, true] {
        let migration = migration(migrates, 1);
        let simulated = |fault| {
            let options = BuildOptions { fault, migration, ..BuildOptions::default() };
            let machine = build(&denied_to_all(harbour()), &options).unwrap();
            simulate(machine, &RunOptions { messages: 2, ..RunOptions::default() })
        };
        assert!(simulated(Fault::None).unwrap().totals.is_clean());
        // The ITS does not see the first command.
        let error = simulated(Fault::NeverPublishes).unwrap_err().to_string();
        assert!(error.ends_with("MAPC: timeout"), "{error}");
    }
}
