//! A saved state as KVM's devices show it.

use crate::board::{Board, ITS, mapd, mapti, movall};
use crate::until_it_succeeds;
use doorbell_test_support::with_allocations;
use gic_arch::kvm::Errno;
use vgic::its::ItsConfig;
use vgic::saved_state::SavedState;
use vgic::saved_state::kvm::{KvmError, KvmRegister, KvmView, OutsideKvm};
use vgic::{ConfigError, OutOfMemory, VgicConfig};

const ITT: u64 = 0x4010_0000;

fn config() -> VgicConfig {
    VgicConfig { its: vec![ItsConfig::like_kvm(ITS)], ..VgicConfig::like_kvm(3, 96) }
}

fn running() -> Board {
    let mut board = Board::new(config());
    board.start();
    board.run([mapd(1, 3, ITT), mapd(0x300, 8, ITT + 0x100)]);
    board.run(
        (0..20)
            .map(|event| mapti(0x300, event * 9, 8192 + event, u16::try_from(event % 3).unwrap())),
    );
    board.send(0x300, 9);
    board.run([movall(1, 2)]);
    board
}

/// Calls `attempt` until its memory suffices. How often did it not?
fn until_it_has_memory<T>(mut attempt: impl FnMut(u32) -> Result<T, Errno>) -> (T, u32) {
    let mut done = None;
    let failures = until_it_succeeds(|allocations| match attempt(allocations) {
        Ok(result) => done.replace(result).is_none(),
        Err(errno) => {
            assert_eq!(errno, Errno::NoMemory);
            false
        }
    });
    (done.unwrap(), failures)
}

fn viewed<'a>(config: &'a VgicConfig, state: &SavedState, board: &'a Board) -> KvmView<'a> {
    KvmView::new(config, state.clone(), &*board.ram).unwrap()
}

fn saved(config: &VgicConfig, state: &SavedState, board: &Board) -> (Vec<KvmRegister>, u32) {
    until_it_has_memory(|allocations| {
        let mut view = viewed(config, state, board);
        with_allocations(allocations, || view.save()).map_err(|error: KvmError| error.errno)
    })
}

#[test]
fn a_view_without_heap_is_an_error() {
    let (config, mut board) = (config(), running());
    let state = board.save();
    let failures = until_it_succeeds(|allocations| {
        let state = state.clone();
        match with_allocations(allocations, || KvmView::new(&config, state, &*board.ram)) {
            Ok(_) => true,
            Err(OutsideKvm::Config(error)) => {
                assert_eq!(error, ConfigError::OutOfMemory(OutOfMemory));
                false
            }
            Err(error) => {
                assert!(matches!(error, OutsideKvm::State(_)), "{error}");
                false
            }
        }
    });
    assert!(failures >= 40, "{failures} allocations failed");
}

#[test]
fn kvms_save_without_heap_is_enomem() {
    let (config, mut board) = (config(), running());
    let state = board.save();
    let (registers, failures) = saved(&config, &state, &board);
    assert!(registers.len() > 100 && failures >= 5, "{failures} allocations failed");
}

#[test]
fn kvms_load_without_heap_is_enomem() {
    let (config, mut board) = (config(), running());
    let state = board.save();
    let (registers, _) = saved(&config, &state, &board);
    let fresh = Board::over(config.clone(), board.ram.clone()).save();
    let (loaded, failures) = until_it_has_memory(|allocations| {
        let mut view = viewed(&config, &fresh, &board);
        let loaded = with_allocations(allocations, || view.load(&registers));
        if loaded.is_err() {
            // Its pending bits are in memory again.
            saved(&config, &state, &board);
        }
        loaded.map_err(|error| error.errno)?;
        Ok(view.into_state())
    });
    assert!(failures >= 40, "{failures} allocations failed");
    assert_eq!(loaded.its[0].devices.len(), 2);
    let events = loaded.its.iter().flat_map(|its| &its.devices).flat_map(|device| &device.events);
    assert_eq!(events.filter(|event| event.pending).count(), 1);
}
