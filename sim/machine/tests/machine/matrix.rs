//! Tries every kind of endpoint on every parent, behind every layer, in every environment.
//!
//! For each combination, we build a machine with an endpoint of each kind on its bus. A trial
//! creates the endpoint's domain and allocates its vectors. The endpoint then sends messages
//! through the bus, and through the IOMMU or the remapping unit if the machine has one, while its
//! interrupts move between CPUs. The trial adds and frees vectors, releases all resources, and
//! repeats all of these steps on the same machine. The combination works if each message arrived
//! exactly once at the right CPU and all resources were released. If the drivers refuse the
//! combination, the outcome states their reason.

mod board;
mod cell;
mod device;
mod explain;
mod gic;
mod trial;
mod x86;

use board::TrialBoard;
use cell::{BoardConfig, Endpoint, Layer, Parent, World};
use doorbell_machine::Migration;
use msi_types::{
    DmaIsolated, InterruptIsolated, IsolatingMechanism, Isolation, NotDmaIsolated, NotIsolated,
};
use trial::{Outcome, attempt};

const GICS: &[Parent] = &[Parent::Its, Parent::DirectLpi, Parent::Mbi, Parent::V2m];
const X86: &[Parent] = &[Parent::X86Vector];
const VIRTUAL_BUS: &[Parent] = &[Parent::HypervSpi];
const UNREMAPPED: &[Layer] = &[Layer::None, Layer::DoorbellMapping];
const REMAPPED: &[Layer] = &[Layer::Remapping];
const METAL: &[World] = &[World::BareMetal];
const GUEST: &[World] = &[World::Guest];
const GUESTS: &[World] = &[World::Guest, World::GuestRemapped];
const REMAPPED_GUEST: &[World] = &[World::GuestRemapped];

/// Environments, parents and layers, with the outcome of each endpoint.
type Cells = (&'static [World], &'static [Parent], &'static [Layer], &'static str);

/// All combinations that exist, and their outcomes, which we derived by reasoning. A row lists the
/// endpoints in order; `.` means that the endpoint works, a letter is in [`REASONS`]. Remapping
/// exists only on x86, and a virtual bus only in a guest, which can't see the host's IOMMU.
const EXPECTED: &[Cells] = &[
    (METAL, GICS, UNREMAPPED, "......"),
    (METAL, X86, UNREMAPPED, ".G...."),
    (METAL, X86, REMAPPED, "......"),
    (GUESTS, GICS, UNREMAPPED, "...SS."),
    (GUESTS, X86, UNREMAPPED, ".G.SS."),
    (GUEST, X86, REMAPPED, "...SS."),
    (REMAPPED_GUEST, X86, REMAPPED, "......"),
    (GUEST, VIRTUAL_BUS, &[Layer::None], "....DD"),
];

/// The reasons for refusals.
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

fn expected(letter: char) -> Outcome {
    let reason = REASONS.iter().find(|(other, _)| *other == letter);
    reason.map_or(Outcome::Works, |(_, reason)| Outcome::Refused((*reason).to_owned()))
}

/// Asserts the outcomes of all cells of one environment. If the controllers migrate, they must do
/// so during each trial, and the drivers must not observe it.
#[track_caller]
fn assert_expected(world: World, migration: Migration) {
    for (worlds, parents, layers, outcomes) in EXPECTED {
        let stacks = parents.iter().flat_map(|parent| layers.iter().map(|layer| (*parent, *layer)));
        for (parent, layer) in stacks.filter(|_| worlds.contains(&world)) {
            for (endpoint, letter) in Endpoint::ALL.into_iter().zip(outcomes.chars()) {
                let config = BoardConfig::new(parent, layer, world, migration);
                let board = TrialBoard::new(config).unwrap();
                let outcome = attempt(&board, endpoint);
                assert_eq!(outcome, expected(letter), "{endpoint:?}, {config:?}");
                let has_moved = board.migrated() > 4;
                let can_move = migration != Migration::Never && parent != Parent::X86Vector;
                assert!(has_moved || !can_move, "{endpoint:?}, {config:?}");
            }
        }
    }
}

const MOVING: Migration = Migration::AtRandom { seed: 1 };

#[test]
fn cells_on_bare_metal_have_expected_outcomes() {
    assert_expected(World::BareMetal, Migration::Never);
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn cells_on_bare_metal_survive_migration() {
    assert_expected(World::BareMetal, MOVING);
}

#[test]
fn cells_of_a_guest_survive_migration() {
    assert_expected(World::Guest, MOVING);
}

#[test]
fn cells_of_a_guest_with_remapping_survive_migration() {
    assert_expected(World::GuestRemapped, MOVING);
}

#[test]
fn a_guest_configured_as_bare_metal_loses_stored_messages() {
    let plan = BoardConfig::new(Parent::Its, Layer::None, World::BareMetal, MOVING);
    let board = TrialBoard::new(BoardConfig { reality: World::Guest, ..plan }).unwrap();
    for endpoint in [Endpoint::Ath11k, Endpoint::Platform] {
        let outcome = attempt(&board, endpoint);
        let lost = matches!(&outcome, Outcome::Lost(reason) if reason.contains("NoDoorbell"));
        assert!(lost, "{outcome:?}");
    }
    assert_eq!(attempt(&board, Endpoint::PciMsix), Outcome::Works);
}

fn metal(parent: Parent, layer: Layer) -> TrialBoard {
    TrialBoard::new(BoardConfig::new(parent, layer, World::BareMetal, Migration::Never)).unwrap()
}

#[test]
fn a_device_that_is_not_isolated_gets_no_proof() {
    let device = Endpoint::PciMsix.requester();
    let (its, frame) = (metal(Parent::Its, Layer::None), metal(Parent::V2m, Layer::None));
    let isolated = Isolation::Isolated(IsolatingMechanism::Its);
    assert_eq!(its.parent.isolation(device), isolated);
    let unmapped = DmaIsolated::prove(&*its.parent, device).err();
    assert_eq!(unmapped, Some(NotDmaIsolated::NoIommu));
    let shared = InterruptIsolated::prove(&*frame.parent, device).err();
    assert!(matches!(shared, Some(NotIsolated::SharedDoorbell(_))), "{shared:?}");
}

#[test]
fn proofs_of_another_device_or_parent_are_refused() {
    let (device, other) = (Endpoint::PciMsix.requester(), Endpoint::PciMsi.requester());
    let boards =
        [metal(Parent::Its, Layer::DoorbellMapping), metal(Parent::Its, Layer::DoorbellMapping)];
    let [parent, decoy] = boards.each_ref().map(|board| &*board.parent);
    let interrupts = InterruptIsolated::prove(parent, device).unwrap();
    let dma = |parent, device| DmaIsolated::prove(parent, device).unwrap();
    assert!(interrupts.is_with(&dma(parent, device)));
    assert!(!interrupts.is_with(&dma(parent, other)));
    assert!(!interrupts.is_with(&dma(decoy, device)));
}
