//! Tests the outcome of each combination, and the detection of defects by a trial.

mod layers;
mod notices;
mod quirks;
mod restore;

use super::cell::stacks;
use super::root::RedistributorLayout;
use super::trial::attempt;
use super::*;
use doorbell_machine::Migration;

/// Returns a platform that reports its environment correctly and whose controller migrates
/// continually, like all boards in these tests. The drivers must not observe a migration. (Other
/// tests try the combinations without migrations.)
fn plan(parent: Parent, layer: Layer, world: World) -> BoardConfig {
    BoardConfig {
        migration: Migration::AtRandom { seed: 1 },
        ..BoardConfig::new(parent, layer, world)
    }
}

fn board(parent: Parent, layer: Layer, world: World) -> Board {
    Board::new(plan(parent, layer, world)).unwrap()
}

const ARM: [Parent; 4] = [Parent::Its, Parent::DirectLpi, Parent::Mbi, Parent::V2m];

#[track_caller]
fn assert_refused(outcome: &Outcome, why: &str) {
    assert!(matches!(outcome, Outcome::Refused(reason) if reason.contains(why)), "{outcome:?}");
}

#[track_caller]
fn assert_broken(outcome: &Outcome, why: &str) {
    assert!(matches!(outcome, Outcome::Broken(reason) if reason.contains(why)), "{outcome:?}");
}

/// The reasons for refusals, each with its letter in [`EXPECTED`].
const REASONS: [(char, &str); 3] = [
    ('G', "the endpoint needs aligned groups of vectors, which tier x86-vector does not offer"),
    (
        'S',
        "the endpoint needs messages that reach the hardware as this kernel wrote them \
         (Surroundings::BareMetal or Hypervisor::Remaps), which tier hypervisor does not offer",
    ),
    (
        'D',
        "the endpoint needs messages that the device stores itself, which tier hyperv-vpci does \
         not offer",
    ),
];

/// The expected outcomes, which we derived by reasoning. Each line lists the endpoints in order;
/// `.` means that the endpoint works.
const EXPECTED: &str = "
    bare-metal      its         none              ........
    bare-metal      its         doorbell-mapping  ........
    bare-metal      direct-lpi  none              ........
    bare-metal      direct-lpi  doorbell-mapping  ........
    bare-metal      mbi         none              ........
    bare-metal      mbi         doorbell-mapping  ........
    bare-metal      v2m         none              ........
    bare-metal      v2m         doorbell-mapping  ........
    bare-metal      x86-vector  none              .G......
    bare-metal      x86-vector  doorbell-mapping  .G......
    bare-metal      x86-vector  remapping         ........
    guest           its         none              ...SSSS.
    guest           its         doorbell-mapping  ...SSSS.
    guest           direct-lpi  none              ...SSSS.
    guest           direct-lpi  doorbell-mapping  ...SSSS.
    guest           mbi         none              ...SSSS.
    guest           mbi         doorbell-mapping  ...SSSS.
    guest           v2m         none              ...SSSS.
    guest           v2m         doorbell-mapping  ...SSSS.
    guest           x86-vector  none              .G.SSSS.
    guest           x86-vector  doorbell-mapping  .G.SSSS.
    guest           x86-vector  remapping         ...SSSS.
    guest           hyperv-spi  none              ....DDDD
    guest           hyperv-x86  none              ....DDDD
    guest-remapped  its         none              ...SSSS.
    guest-remapped  its         doorbell-mapping  ...SSSS.
    guest-remapped  direct-lpi  none              ...SSSS.
    guest-remapped  direct-lpi  doorbell-mapping  ...SSSS.
    guest-remapped  mbi         none              ...SSSS.
    guest-remapped  mbi         doorbell-mapping  ...SSSS.
    guest-remapped  v2m         none              ...SSSS.
    guest-remapped  v2m         doorbell-mapping  ...SSSS.
    guest-remapped  x86-vector  none              .G.SSSS.
    guest-remapped  x86-vector  doorbell-mapping  .G.SSSS.
    guest-remapped  x86-vector  remapping         ........
";

fn expected(letter: char) -> Outcome {
    let reason = REASONS.iter().find(|(other, _)| *other == letter);
    reason.map_or(Outcome::Works, |(_, reason)| Outcome::Refused((*reason).to_owned()))
}

#[test]
fn every_cell_has_expected_outcome() {
    assert_expected(None, &try_all());
}

/// Asserts that the cells of one world have the expected outcome on boards whose controller
/// migrates. The worlds are separate tests, which run at the same time.
#[track_caller]
fn assert_expected_during_migration(world: World) {
    let moved = |cell: Cell| {
        let board = board(cell.parent, cell.layer, cell.world);
        let outcome = attempt(&board, cell.endpoint);
        let has_gic = !matches!(cell.parent, Parent::X86Vector | Parent::HypervApic);
        assert!(board.migrated() > 4 || !has_gic, "{cell}");
        (cell, outcome)
    };
    let cells = cells().filter(|cell| cell.world == world);
    assert_expected(Some(world), &cells.map(moved).collect::<Vec<_>>());
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn cells_on_bare_metal_survive_migration() {
    assert_expected_during_migration(World::BareMetal);
}

#[test]
fn cells_of_a_guest_survive_migration() {
    assert_expected_during_migration(World::Guest);
}

#[test]
fn cells_of_a_guest_with_remapping_survive_migration() {
    assert_expected_during_migration(World::GuestRemapped);
}

/// Compares the outcomes of all worlds, or of `only` one.
#[track_caller]
fn assert_expected(only: Option<World>, found: &[(Cell, Outcome)]) {
    let mut rows = EXPECTED.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut cells = found.iter();
    for (parent, layer, world) in stacks() {
        let row: Vec<_> = rows.next().unwrap().split_whitespace().collect();
        assert_eq!(row[..3], [world.name(), parent.name(), layer.name()]);
        if only.is_some_and(|only| only != world) {
            continue;
        }
        for letter in row[3].chars() {
            let (cell, outcome) = cells.next().unwrap();
            assert_eq!(*outcome, expected(letter), "{cell}");
        }
    }
    assert_eq!((rows.next(), cells.next()), (None, None));
}
