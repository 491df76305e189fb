//! Test for restored machines with direct LPIs.

use super::board::{Board, CPUS, config};
use doorbell_test_support::heap_use;
use gic_arch::gicr;
use proptest::collection::vec;
use proptest::prelude::*;
use vgic::VgicConfig;

/// LPIs whose configuration the tests change. [`Board::start`] enables some of them.
const LPIS: [u32; 6] = [8200, 8201, 8300, 9000, 20_000, 65_535];

fn direct() -> VgicConfig {
    config()
        .with_direct_lpi(true)
        .with_its(Vec::new())
        .with_message_based_spis(false)
        .with_redistributor_invalidation(false)
}

/// Creates a machine whose guest has started its CPUs.
pub(crate) fn started() -> Board {
    let mut board = Board::new(direct());
    board.start_cpus();
    board
}

/// A step of a guest with direct LPIs. LPIs are given by their index in [`LPIS`].
#[derive(Clone, Copy, Debug)]
enum Step {
    Configure((usize, bool, u8)),
    Invalidate((usize, usize)),
    InvalidateAll(usize),
    Send((usize, usize)),
    Take(usize),
    Enable((usize, bool)),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (cpu, lpi) = (|| 0..usize::from(CPUS), || 0..LPIS.len());
    let step = prop_oneof![
        4 => (lpi(), any::<bool>(), any::<u8>()).prop_map(Step::Configure),
        4 => (cpu(), lpi()).prop_map(Step::Invalidate),
        1 => cpu().prop_map(Step::InvalidateAll),
        6 => (cpu(), lpi()).prop_map(Step::Send),
        2 => cpu().prop_map(Step::Take),
        1 => (cpu(), any::<bool>()).prop_map(Step::Enable),
    ];
    vec(step, 0..40)
}

/// Takes a step. Returns the interrupts that the guest handles, without the order of those with
/// equal priorities.
fn take(board: &mut Board, step: Step) -> Vec<u64> {
    let mut handled = Vec::new();
    match step {
        Step::Configure((lpi, enable, priority)) => board.configure(LPIS[lpi], enable, priority),
        Step::Invalidate((cpu, lpi)) => board.write_gicr(cpu, gicr::INVLPIR, LPIS[lpi].into()),
        Step::InvalidateAll(cpu) => board.write_gicr(cpu, gicr::INVALLR, 0),
        Step::Send((cpu, lpi)) => board.write_gicr(cpu, gicr::SETLPIR, LPIS[lpi].into()),
        Step::Take(cpu) => handled = board.handle_all(cpu),
        Step::Enable((cpu, on)) => {
            board.write_gicr(cpu, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(on));
        }
    }
    handled.sort_unstable();
    handled
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The restore reads no memory, because the guest's memory is copied only afterwards.
    #[test]
    fn a_restored_guest_behaves_the_same_and_uses_no_more_memory(
        all_enabled in any::<bool>(),
        before in steps(),
        after in steps(),
    ) {
        let [source, target] = [(); 2].map(|()| Board::new(direct()).ram.clone());
        let (mut stayed, first) = heap_use(|| {
            let mut board = Board::over(direct(), source);
            board.start_cpus();
            let all = (8192..65_536).zip((0..=u8::MAX).cycle());
            for (lpi, priority) in all.filter(|_| all_enabled) {
                board.configure(lpi, true, priority);
            }
            for step in &before {
                take(&mut board, *step);
            }
            // Completes invalidations in progress.
            drop(board.save());
            board
        });
        let saved = stayed.save();
        let (mut moved, second) = heap_use(|| {
            let mut moved = Board::over(direct(), target);
            moved.restore(&saved);
            moved
        });
        prop_assert_eq!(moved.save(), saved);
        prop_assert!(second.kept <= first.kept, "{:?} after {:?}", second, first);
        stayed.copy_memory_to(&moved);
        for step in after.into_iter().chain((0..3).map(Step::Take)) {
            prop_assert_eq!(take(&mut moved, step), take(&mut stayed, step), "{:?}", step);
        }
    }
}
