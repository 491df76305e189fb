//! Tests for LPI tables and configurations, without a driver that sends LPIs.
//!
//! Tests for LPIs that firmware or a previous kernel left enabled.
//!
//! Limits on the number of LPIs, and refusals.

mod out_of_memory;

use crate::fake::{
    Board, BoardFrame, DISTRIBUTOR, FakeDistributor, FakeRedistributor, REDISTRIBUTOR, Security,
    View,
};
use gic_arch::gicr::{Pendbaser, STRIDE_V3};
use gic_arch::{Lpi, Priority, Shareability};
use gic_driver::lpi::{AdoptionRefused, Collected, LpiConfig, PendingLpis};
use gic_driver::{
    Alignment, Block, BlockError, Coherence, Distributor, GicError, LpiError, LpiRange, Lpis,
    Redistributor,
};
use proptest::prelude::*;
use std::num::NonZeroU32;
use std::sync::Arc;

const CONFIG: LpiConfig = LpiConfig::new(Priority::new(0xa0));
/// Addresses of a previous kernel's tables.
const OLD_CONFIG: u64 = 0x4000_0000;
const OLD_PENDING: u64 = 0x4100_0000;
/// Size of each table of the previous kernel.
const OLD_BYTES: u64 = 0x1_0000;

/// Returns a machine with awake redistributors.
fn machine(cpus: u8) -> Board {
    let redistributors = (0..cpus).map(|cpu| FakeRedistributor::new(cpu, false).awake()).collect();
    Board::with(FakeDistributor::new(Security::Single), redistributors)
}

fn redistributor(fake: &Board, index: u8) -> Redistributor<BoardFrame> {
    let address = REDISTRIBUTOR + u64::from(index) * STRIDE_V3;
    Redistributor::new(fake.redistributor_frame(index.into()), address).unwrap()
}

fn redistributors(fake: &Board) -> Vec<Redistributor<BoardFrame>> {
    let cpus = fake.world().redistributors.len();
    (0..u8::try_from(cpus).unwrap()).map(|index| redistributor(fake, index)).collect()
}

fn set_up(fake: &Board, config: LpiConfig) -> Result<Lpis<Board>, GicError> {
    let distributor = Distributor::new(fake, fake.distributor_frame(), DISTRIBUTOR).unwrap();
    let redistributors = redistributors(fake);
    Lpis::new(Arc::new(fake.clone()), &distributor, redistributors.iter(), config)
}

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn one(lpis: &Lpis<Board>) -> Lpi {
    lpis.allocate(count(1), Alignment::ONE).unwrap().first()
}

/// Returns an LPI's configuration as read by a non-coherent redistributor.
fn seen(fake: &Board, lpi: Lpi) -> u8 {
    let base = fake.at_redistributor(0, |frame| frame.propbaser.address());
    fake.in_memory(|memory| memory.device_read(View::Dram, base + u64::from(lpi.index()), 1)[0])
}

fn block(index: u8) -> Block {
    Block::Redistributor(REDISTRIBUTOR + u64::from(index) * STRIDE_V3)
}

/// Leaves LPIs enabled at redistributor `index`, as a previous kernel would.
fn leave_enabled(fake: &Board, index: u8, ces: bool) {
    let table = OLD_PENDING + u64::from(index) * 0x1_0000;
    fake.in_memory(|memory| [OLD_CONFIG, table].map(|base| memory.leave(base, OLD_BYTES)));
    fake.at_redistributor(index.into(), |frame| {
        frame.leave_enabled(OLD_CONFIG, table, std::iter::empty());
        frame.propbaser =
            frame.propbaser.with_id_bits_minus_one(14).with_shareability(Shareability::Inner);
        (frame.can_disable, frame.disables) = (ces, ces);
    });
}

fn reserve(fake: &Board, bases: &[u64]) {
    fake.in_memory(|memory| bases.iter().for_each(|base| memory.reserve(*base, OLD_BYTES)));
}

mod configuration {
    use super::*;

    #[test]
    fn a_new_lpi_is_disabled_at_the_default_priority() {
        let fake = machine(1);
        let lpis = set_up(&fake, CONFIG).unwrap();
        // The configuration byte has priority 0xa0, the RES1 bit set and the LPI disabled.
        assert_eq!(u8::from(lpis.config(one(&lpis)).unwrap()), 0xa2);
    }

    #[test]
    fn freed_lpi_is_disabled_for_non_coherent_reads() {
        let fake = machine(1);
        fake.at_redistributor(0, |frame| frame.coherent = false);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        let range = lpis.allocate(count(2), Alignment::ONE).unwrap();
        let lpi = range.get(1).unwrap();
        lpis.enable(lpi).unwrap();
        assert_eq!(seen(&fake, lpi), 0xa3);
        lpis.free(range).unwrap();
        assert_eq!(seen(&fake, lpi), 0xa2);
    }

    proptest! {
        #[test]
        fn change_publishes_its_own_lpi_alone(
            changes in prop::collection::vec((0u32..16, 0u8..4, any::<u8>()), 1..40),
            coherent in any::<bool>(),
        ) {
            let fake = machine(1);
            fake.at_redistributor(0, |frame| frame.coherent = coherent);
            let lpis = set_up(&fake, CONFIG).unwrap();
            lpis.attach(&redistributor(&fake, 0)).unwrap();
            let range = lpis.allocate(count(16), Alignment::ONE).unwrap();
            let mut model = [(false, 0xa0u8); 16];
            for (index, change, priority) in changes {
                let lpi = range.get(index).unwrap();
                let own = &mut model[index as usize];
                match change {
                    0 => {
                        lpis.enable(lpi).unwrap();
                        own.0 = true;
                    }
                    1 => {
                        lpis.disable(lpi).unwrap();
                        own.0 = false;
                    }
                    _ => {
                        lpis.set_priority(lpi, Priority::new(priority)).unwrap();
                        own.1 = priority & 0xfc;
                    }
                }
                for (lpi, (enabled, priority)) in range.iter().zip(model) {
                    let byte = priority | 2 | u8::from(enabled);
                    prop_assert_eq!(u8::from(lpis.config(lpi).unwrap()), byte);
                    if !coherent {
                        prop_assert_eq!(seen(&fake, lpi), byte);
                    }
                }
            }
        }
    }

    #[test]
    fn an_lpi_beyond_the_tables_is_refused() {
        let lpis = set_up(&machine(1), CONFIG).unwrap();
        for lpi in [65536, u32::MAX].map(|number| Lpi::try_from(number).unwrap()) {
            assert_eq!(lpis.enable(lpi), Err(LpiError::NoSuchLpi(lpi)));
            assert_eq!(lpis.config(lpi), Err(LpiError::NoSuchLpi(lpi)));
            let range = LpiRange::from_parts(lpi, count(1));
            assert!(matches!(
                lpis.free(range),
                Err(LpiError::Blocks(BlockError::OutOfRange { .. }))
            ));
        }
    }

    #[test]
    fn freed_lpis_can_be_allocated_again() {
        let lpis = set_up(&machine(1), CONFIG.with_id_bits(Some(14))).unwrap();
        let all = lpis.allocate(count(8192), Alignment::ONE).unwrap();
        assert!(lpis.allocate(count(1), Alignment::ONE).is_err());
        lpis.free(all).unwrap();
        assert_eq!(lpis.available(), 8192);
    }
}

mod coherence {
    use super::*;

    #[test]
    fn lpi_tables_count_as_non_coherent_before_attach() {
        assert_eq!(set_up(&machine(1), CONFIG).unwrap().coherence(), Coherence::NonCoherent);
    }

    #[test]
    fn attaching_a_non_coherent_redistributor_cleans_stores() {
        let fake = machine(2);
        fake.at_redistributor(1, |frame| frame.coherent = false);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        let lpi = one(&lpis);
        lpis.enable(lpi).unwrap();
        assert_eq!(seen(&fake, lpi), 0, "published only for coherent controllers");
        lpis.attach(&redistributor(&fake, 1)).unwrap();
        assert_eq!(seen(&fake, lpi), 0xa3);
    }
}

mod attaching {
    use super::*;

    #[test]
    fn pending_lpis_survive_disabling() {
        let fake = machine(1);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        let table = fake.at_redistributor(0, |frame| frame.pendbaser.address());
        assert_eq!(lpis.detach(&redistributor(&fake, 0)), Ok(PendingLpis::Kept));
        fake.at_redistributor(0, FakeRedistributor::lose_power);
        redistributor(&fake, 0).wake(&fake).unwrap();
        let attached = lpis.attach(&redistributor(&fake, 0)).unwrap();
        assert_eq!(attached.pending, PendingLpis::Kept);
        fake.at_redistributor(0, |frame| {
            assert_eq!((frame.pendbaser.address(), frame.pending_table_zero), (table, false));
        });
    }

    #[test]
    fn pending_lpis_without_disabling_are_lost() {
        let fake = machine(1);
        fake.at_redistributor(0, |frame| frame.can_disable = false);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        assert_eq!(lpis.detach(&redistributor(&fake, 0)), Ok(PendingLpis::Lost));
        fake.at_redistributor(0, FakeRedistributor::lose_power);
        redistributor(&fake, 0).wake(&fake).unwrap();
        assert_eq!(lpis.attach(&redistributor(&fake, 0)).unwrap().pending, PendingLpis::Lost);
    }

    #[test]
    fn power_loss_before_detach_loses_pending_lpis() {
        let fake = machine(1);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        fake.at_redistributor(0, FakeRedistributor::lose_power);
        assert_eq!(lpis.detach(&redistributor(&fake, 0)), Ok(PendingLpis::Lost));
        redistributor(&fake, 0).wake(&fake).unwrap();
        assert_eq!(lpis.attach(&redistributor(&fake, 0)).unwrap().pending, PendingLpis::Lost);
        assert!(fake.at_redistributor(0, |frame| frame.pending_table_zero));
    }

    #[test]
    fn a_saved_pending_table_survives_a_second_detach() {
        let fake = machine(1);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        for _ in 0..2 {
            assert_eq!(lpis.detach(&redistributor(&fake, 0)), Ok(PendingLpis::Kept));
            fake.at_redistributor(0, FakeRedistributor::lose_power);
        }
        redistributor(&fake, 0).wake(&fake).unwrap();
        assert_eq!(lpis.attach(&redistributor(&fake, 0)).unwrap().pending, PendingLpis::Kept);
        assert!(!fake.at_redistributor(0, |frame| frame.pending_table_zero));
    }

    #[test]
    fn an_unreadable_pending_table_is_not_loaded_again() {
        let fake = machine(1);
        fake.at_redistributor(0, |frame| frame.coherent = false);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        let table = fake.at_redistributor(0, |frame| frame.pendbaser.address());
        assert_eq!(lpis.detach(&redistributor(&fake, 0)), Ok(PendingLpis::Kept));
        fake.in_memory(|memory| memory.device_write(table + 8191, &[0x80]));
        let found = |lpi| panic!("{lpi} was read");
        assert_eq!(lpis.collect_pending(&redistributor(&fake, 0), found), Collected::Unknown);
        assert_eq!(lpis.attach(&redistributor(&fake, 0)).unwrap().pending, PendingLpis::Lost);
        assert!(fake.at_redistributor(0, |frame| frame.pending_table_zero));
        assert_eq!(fake.in_memory(|memory| memory.device_read(View::Dram, table + 8191, 1)[0]), 0);
    }

    #[test]
    fn a_pending_table_declared_empty_is_zeroed() {
        let fake = machine(1);
        fake.at_redistributor(0, |frame| frame.can_disable = false);
        let lpis = set_up(&fake, CONFIG).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        let table = fake.at_redistributor(0, |frame| frame.pendbaser.address());
        // Set a bit in the last byte of the pending table.
        fake.in_memory(|memory| memory.device_write(table + 8191, &[0x80]));
        fake.at_redistributor(0, FakeRedistributor::lose_power);
        redistributor(&fake, 0).wake(&fake).unwrap();
        lpis.attach(&redistributor(&fake, 0)).unwrap();
        assert!(fake.at_redistributor(0, |frame| frame.pending_table_zero));
        assert_eq!(fake.in_memory(|memory| memory.device_read(View::Dram, table + 8191, 1)[0]), 0);
    }

    #[test]
    fn foreign_tables_are_refused() {
        let fake = machine(2);
        let lpis = set_up(&fake, CONFIG).unwrap();
        leave_enabled(&fake, 0, false);
        let config = lpis.attach(&redistributor(&fake, 0)).unwrap_err();
        assert!(
            matches!(
                config,
                GicError::Lpi(LpiError::AlreadyEnabled {
                    reason: AdoptionRefused::OtherConfigTable { found: OLD_CONFIG, .. },
                    ..
                })
            ),
            "{config}"
        );
        lpis.attach(&redistributor(&fake, 1)).unwrap();
        fake.at_redistributor(1, |frame| {
            frame.pendbaser = Pendbaser::new().with_address(OLD_PENDING);
        });
        let pending = lpis.attach(&redistributor(&fake, 1)).unwrap_err();
        assert!(
            matches!(
                pending,
                GicError::Lpi(LpiError::AlreadyEnabled {
                    reason: AdoptionRefused::OtherPendingTable { found: OLD_PENDING, .. },
                    ..
                })
            ),
            "{pending}"
        );
    }

    #[test]
    fn detaching_an_unattached_redistributor_loses_no_lpis() {
        let fake = machine(1);
        let lpis = set_up(&fake, CONFIG).unwrap();
        assert_eq!(lpis.detach(&redistributor(&fake, 0)), Ok(PendingLpis::Kept));
    }
}

#[test]
fn lpis_that_can_be_disabled_get_new_tables() {
    let fake = machine(1);
    leave_enabled(&fake, 0, true);
    let lpis = set_up(&fake, CONFIG).unwrap();
    lpis.attach(&redistributor(&fake, 0)).unwrap();
    assert!(!lpis.were_adopted());
    assert_ne!(fake.at_redistributor(0, |frame| frame.propbaser.address()), OLD_CONFIG);
}

#[test]
fn the_smallest_adopted_table_limits_the_id_bits() {
    let fake = machine(2);
    leave_enabled(&fake, 0, false);
    leave_enabled(&fake, 1, false);
    fake.at_redistributor(1, |frame| frame.propbaser = frame.propbaser.with_id_bits_minus_one(13));
    reserve(&fake, &[OLD_CONFIG]);
    assert_eq!(set_up(&fake, CONFIG).unwrap().id_bits(), 14);
}

#[test]
fn unreserved_tables_are_refused() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    let reason = AdoptionRefused::ConfigNotReserved { address: OLD_CONFIG };
    let refused = LpiError::AlreadyEnabled { block: block(0), reason };
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), refused.into());
}

#[test]
fn disabling_is_tried_without_ces() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    fake.at_redistributor(0, |frame| frame.disables = true);
    let lpis = set_up(&fake, CONFIG).unwrap();
    assert!(!lpis.were_adopted() && lpis.attach(&redistributor(&fake, 0)).is_ok());
}

#[test]
fn differing_config_tables_are_refused() {
    let fake = machine(2);
    leave_enabled(&fake, 0, false);
    leave_enabled(&fake, 1, false);
    let other = OLD_CONFIG + 0x10_0000;
    fake.at_redistributor(1, |frame| frame.propbaser = frame.propbaser.with_address(other));
    reserve(&fake, &[OLD_CONFIG, other]);
    let reason = AdoptionRefused::OtherConfigTable { found: other, expected: OLD_CONFIG };
    let refused = LpiError::AlreadyEnabled { block: block(1), reason };
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), refused.into());
}

#[test]
fn unreserved_pending_table_is_refused() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    reserve(&fake, &[OLD_CONFIG]);
    let lpis = set_up(&fake, CONFIG).unwrap();
    let reason = AdoptionRefused::PendingNotReserved { address: OLD_PENDING };
    let refused = LpiError::AlreadyEnabled { block: block(0), reason };
    assert_eq!(lpis.attach(&redistributor(&fake, 0)), Err(refused.into()));
}

#[test]
fn tables_too_small_for_lpis_are_refused() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    fake.at_redistributor(0, |frame| frame.propbaser = frame.propbaser.with_id_bits_minus_one(12));
    reserve(&fake, &[OLD_CONFIG]);
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), LpiError::TooFewIdBits { bits: 13 }.into());
}

#[test]
fn fewer_than_fourteen_id_bits_are_refused() {
    let refused = set_up(&machine(1), CONFIG.with_id_bits(Some(13))).unwrap_err();
    assert_eq!(refused, LpiError::TooFewIdBits { bits: 13 }.into());
}

#[test]
fn a_distributor_without_lpis_is_refused() {
    let fake = machine(1);
    fake.at_distributor(|frame| frame.typer = frame.typer.with_lpis(false));
    let refused = LpiError::NotSupported(Block::Distributor(DISTRIBUTOR));
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), refused.into());
}

#[test]
fn a_redistributor_without_lpis_is_refused() {
    let fake = machine(1);
    fake.at_redistributor(0, |frame| frame.typer = frame.typer.with_plpis(false));
    let lpis = set_up(&fake, CONFIG).unwrap();
    let refused = LpiError::NotSupported(block(0));
    assert_eq!(lpis.attach(&redistributor(&fake, 0)), Err(refused.into()));
}

#[test]
fn lpis_are_refused_in_the_secure_view() {
    let fake = Board::with(FakeDistributor::new(Security::Secure), vec![]);
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), LpiError::SecureView.into());
}

#[test]
fn misplaced_memory_is_freed_and_refused() {
    let fake = machine(1);
    fake.in_memory(|memory| memory.misplaced = Some((0, 0x800)));
    let refused = set_up(&fake, CONFIG).unwrap_err();
    assert!(matches!(refused, GicError::Lpi(LpiError::Misplaced { address: 0x1_4000_0800, .. })));
    assert_eq!(fake.in_memory(|memory| memory.live_regions()), 0);
}

#[test]
fn memory_beyond_the_limit_is_freed_and_refused() {
    let fake = machine(1);
    let narrow = CONFIG.with_address_bits(32);
    fake.in_memory(|memory| memory.misplaced = Some((0, 1 << 32)));
    let refused = set_up(&fake, narrow).unwrap_err();
    assert!(matches!(refused, GicError::Lpi(LpiError::Misplaced { .. })));
    assert_eq!(fake.in_memory(|memory| memory.live_regions()), 0);
}

#[test]
fn unused_tables_are_freed() {
    let fake = machine(1);
    drop(set_up(&fake, CONFIG).unwrap());
    assert_eq!(fake.in_memory(|memory| memory.live_regions()), 0);
}

#[test]
fn tables_that_a_redistributor_uses_stay_allocated() {
    let fake = machine(2);
    let lpis = set_up(&fake, CONFIG).unwrap();
    lpis.attach(&redistributor(&fake, 0)).unwrap();
    drop(lpis);
    assert_eq!(
        fake.in_memory(|memory| memory.live_regions()),
        2,
        "all but the other CPU's table stay allocated"
    );
}
