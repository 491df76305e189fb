//! Redistributor tests: discovery, power, private interrupts and table registers.

use crate::fake::{Board, BoardFrame, FakeDistributor, FakeRedistributor, REDISTRIBUTOR, Security};
use gic_arch::{Affinity, Cacheability, IntId, Priority, gicr};
use gic_driver::redistributor::{LpiClearing, LpiTables, walk_redistributors};
use gic_driver::{
    Block, Coherence, GicError, Mmio, MmioExt, PhysicalRegion, PrivateConfig, Redistributor,
    RedistributorRegion, SecurityView, find_redistributor,
};
use msi_types::{Pending, Trigger};
use proptest::prelude::*;

fn machine(redistributors: Vec<FakeRedistributor>) -> Board {
    Board::with(FakeDistributor::new(Security::Single), redistributors)
}

fn one() -> (Board, Redistributor<BoardFrame>) {
    let fake = machine(vec![FakeRedistributor::new(0, true)]);
    let redistributor = Redistributor::new(fake.redistributor_frame(0), REDISTRIBUTOR).unwrap();
    (fake, redistributor)
}

fn awake() -> (Board, Redistributor<BoardFrame>) {
    let (fake, redistributor) = one();
    redistributor.wake(&fake).unwrap();
    (fake, redistributor)
}

fn region(offset: u64, bytes: u64, stride: Option<u64>) -> RedistributorRegion {
    RedistributorRegion::new(PhysicalRegion { base: REDISTRIBUTOR + offset, bytes })
        .with_stride(stride)
}

fn walked(fake: &Board, region: RedistributorRegion) -> Vec<Result<u8, GicError>> {
    walk_redistributors(fake, region)
        .map(|found| found.map(|found| found.affinity().aff0()))
        .collect()
}

/// Returns a redistributor at `offset` from the first one.
fn at(offset: u64, number: u8, last: bool) -> FakeRedistributor {
    let mut frame = FakeRedistributor::new(number, last);
    frame.base = REDISTRIBUTOR + offset;
    frame
}

mod discovery {
    use super::*;

    #[test]
    fn the_region_walk_ends_after_the_last_frame() {
        let fake = machine(vec![at(0, 0, false), at(0x2_0000, 1, true), at(0x4_0000, 2, true)]);
        assert_eq!(walked(&fake, region(0, 0xf6_0000, None)), [Ok(0), Ok(1)]);
    }

    #[test]
    fn virtual_lpis_double_the_stride() {
        let mut first = at(0, 0, false);
        first.typer = first.typer.with_vlpis(true);
        let fake = machine(vec![first, at(0x4_0000, 1, true)]);
        assert_eq!(walked(&fake, region(0, 0x8_0000, None)), [Ok(0), Ok(1)]);
    }

    #[test]
    fn firmware_stride_overrides_hardware() {
        let fake = machine(vec![at(0, 0, false), at(0x10_0000, 1, true)]);
        assert_eq!(walked(&fake, region(0, 0x20_0000, Some(0x10_0000))), [Ok(0), Ok(1)]);
    }

    #[test]
    fn too_small_stride_is_refused() {
        let fake = machine(vec![at(0, 0, false)]);
        for stride in [0, 0x1_0000, 0x2_8000] {
            let refused = GicError::BadStride { base: REDISTRIBUTOR, stride };
            assert_eq!(walked(&fake, region(0, 0x20_0000, Some(stride))), [Err(refused)]);
        }
    }

    #[test]
    fn overflowing_stride_ends_the_walk() {
        let fake = machine(vec![at(0, 0, false)]);
        assert_eq!(walked(&fake, region(0, 0x20_0000, Some(u64::MAX - 0xffff))), [Ok(0)]);
    }

    #[test]
    fn a_truncated_region_error_names_the_partial_frames_address() {
        let fake = machine(vec![at(0, 0, false), at(0x2_0000, 1, true)]);
        let truncated =
            GicError::RegionTruncated { base: REDISTRIBUTOR, at: REDISTRIBUTOR + 0x2_0000 };
        assert_eq!(walked(&fake, region(0, 0x3_0000, None)), [Ok(0), Err(truncated)]);
    }

    #[test]
    fn an_empty_region_holds_nothing() {
        assert_eq!(walked(&machine(vec![]), region(0, 0, None)), []);
    }

    #[test]
    fn the_error_names_a_redistributor_that_cannot_be_mapped() {
        let block = Block::Redistributor(REDISTRIBUTOR);
        assert_eq!(
            walked(&machine(vec![]), region(0, 0x2_0000, None)),
            [Err(GicError::NotMapped(block))]
        );
    }

    #[test]
    fn affinity_is_found_in_a_later_region() {
        let fake = machine(vec![at(0, 0, true), at(0x100_0000, 7, false), at(0x102_0000, 8, true)]);
        let regions = [region(0, 0x2_0000, None), region(0x100_0000, 0x4_0000, None)];
        let found = find_redistributor(&fake, &regions, Affinity::new(0, 0, 0, 8)).unwrap();
        assert_eq!((found.address(), found.processor_number()), (REDISTRIBUTOR + 0x102_0000, 108));
        let missing = find_redistributor(&fake, &regions, Affinity::new(0, 0, 0, 9)).unwrap_err();
        assert_eq!(missing, GicError::NoRedistributor(Affinity::new(0, 0, 0, 9)));
    }

    #[test]
    fn a_bad_region_does_not_end_the_search() {
        let mut absent = at(0, 0, true);
        absent.pidr2 = 0;
        let fake = machine(vec![absent, at(0x100_0000, 7, true)]);
        let regions = [region(0, 0x2_0000, None), region(0x100_0000, 0x2_0000, None)];
        assert!(find_redistributor(&fake, &regions, Affinity::new(0, 0, 0, 7)).is_ok());
        let missing = find_redistributor(&fake, &regions, Affinity::new(0, 0, 0, 0)).unwrap_err();
        assert!(matches!(missing, GicError::WrongRevision { .. }), "{missing}");
    }
}

mod power {
    use super::*;

    #[test]
    fn waking_waits_until_the_interfaces_are_awake() {
        let (fake, redistributor) = one();
        redistributor.wake(&fake).unwrap();
        // The fake panics if a redistributor is accessed before it is awake.
        redistributor.interrupt(IntId::new(27)).unwrap().enable();
    }

    #[test]
    fn sleeping_waits_until_the_interfaces_are_quiet() {
        let (fake, redistributor) = awake();
        redistributor.sleep(&fake).unwrap();
        assert!(fake.redistributor_frame(0).read(gicr::WAKER).children_asleep());
    }

    #[test]
    fn a_waker_hidden_by_security_does_not_block_wake_or_sleep() {
        let fake = machine(vec![FakeRedistributor::new(0, true).awake()]);
        fake.at_redistributor(0, |frame| frame.power.waker_hidden = true);
        let redistributor = Redistributor::new(fake.redistributor_frame(0), REDISTRIBUTOR).unwrap();
        assert_eq!((redistributor.wake(&fake), redistributor.sleep(&fake)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_failed_wake_error_names_the_stuck_bit() {
        let (fake, redistributor) = one();
        fake.at_redistributor(0, |frame| frame.stuck = true);
        let block = Block::Redistributor(REDISTRIBUTOR);
        let expected = GicError::TimedOut { block, what: "ChildrenAsleep = 0" };
        assert_eq!(redistributor.wake(&fake), Err(expected));
    }
}

mod interrupts {
    use super::*;

    fn config() -> PrivateConfig {
        PrivateConfig::new(Priority::new(0x90), SecurityView::Single)
    }

    #[test]
    fn init_enables_sgis_and_disables_all_other_private_interrupts() {
        let (fake, redistributor) = awake();
        fake.at_redistributor(0, |frame| {
            let state = frame.bank.state(IntId::new(1060));
            (state.enabled, state.pending, state.active) = (true, true, true);
            state.forwarded = true;
        });
        redistributor.init(&fake, config()).unwrap();
        fake.at_redistributor(0, |frame| {
            for (index, state) in frame.bank.states().iter().enumerate() {
                assert_eq!((state.enabled, state.forwarded), (index < 16, index < 16), "{index}");
                assert!(!state.pending && !state.active && state.group && state.priority == 0x90);
            }
        });
    }

    #[test]
    fn only_implemented_extended_ppis_exist() {
        let (_, redistributor) = awake();
        for (number, there) in
            [(0, true), (31, true), (32, false), (1056, true), (1087, true), (1088, false)]
        {
            assert_eq!(redistributor.interrupt(IntId::new(number)).is_ok(), there, "{number}");
        }
    }

    #[test]
    fn the_trigger_of_an_sgi_is_fixed() {
        let (fake, redistributor) = awake();
        let sgi = redistributor.interrupt(IntId::new(3)).unwrap();
        assert_eq!(
            sgi.set_trigger(&fake, Trigger::Edge),
            Err(GicError::FixedTrigger(IntId::new(3)))
        );
    }

    #[test]
    fn changing_a_pending_state_affects_no_other_interrupt() {
        let (fake, redistributor) = awake();
        for number in [16, 17, 1056] {
            redistributor.interrupt(IntId::new(number)).unwrap().set_pending(Pending::Set);
        }
        redistributor.interrupt(IntId::new(17)).unwrap().set_pending(Pending::Clear);
        let pending =
            |number| fake.at_redistributor(0, |frame| frame.bank.state(IntId::new(number)).pending);
        assert_eq!([16, 17, 1056].map(pending), [true, false, true]);
    }

    proptest! {
        #[test]
        fn restore_after_power_loss_recovers_the_saved_state(
            flags in prop::collection::vec(any::<[bool; 5]>(), 64),
            priorities in prop::collection::vec(any::<u8>(), 64),
        ) {
            let (fake, redistributor) = awake();
            fake.at_redistributor(0, |frame| {
                for (index, ([enabled, pending, active, edge, group], priority)) in
                    flags.iter().zip(&priorities).enumerate()
                {
                    let number = if index < 32 { index } else { index - 32 + 1056 };
                    let state = frame.bank.state(IntId::new(u32::try_from(number).unwrap()));
                    (state.enabled, state.forwarded, state.pending, state.active) =
                        (*enabled, *enabled, *pending, *active);
                    (state.edge, state.group, state.priority) =
                        (*edge && index >= 16, *group, priority & 0xf8);
                }
            });
            let before = fake.at_redistributor(0, |frame| frame.bank.states().to_vec());
            let saved = redistributor.save();
            fake.at_redistributor(0, FakeRedistributor::lose_power);
            redistributor.wake(&fake).unwrap();
            redistributor.restore(&fake, &saved).unwrap();
            prop_assert_eq!(fake.at_redistributor(0, |frame| frame.bank.states().to_vec()), before);
            prop_assert_eq!(redistributor.save(), saved);
        }
    }
}

mod lpi_tables {
    use super::*;

    fn tables() -> LpiTables {
        LpiTables::new(0x1_2345_6000, 0x2_3456_0000, 16)
    }

    /// Returns an awake redistributor and memory for its tables.
    fn awake() -> (Board, Redistributor<BoardFrame>) {
        let (fake, redistributor) = super::awake();
        fake.in_memory(|memory| {
            memory.leave(0x1_2345_6000, 0xe000);
            memory.leave(0x2_3456_0000, 0x2000);
            memory.device_write(0x2_3456_0000, &[0; 0x2000]);
        });
        (fake, redistributor)
    }

    #[test]
    fn shareable_tables_are_tried_first() {
        let (fake, redistributor) = awake();
        let got = redistributor.program_lpi_tables(&fake, &tables()).unwrap();
        assert_eq!((got.config, got.pending), (Coherence::Coherent, Coherence::Coherent));
        fake.at_redistributor(0, |frame| {
            // Expected value: address | RaWaWb << 7 | Inner Shareable << 10, and 16 − 1 in
            // `PROPBASER`. `PENDBASER` is written with PTZ, which reads as zero.
            assert_eq!(u64::from(frame.propbaser), 0x1_2345_6000 | 7 << 7 | 1 << 10 | 15);
            assert_eq!(u64::from(frame.pendbaser), 0x2_3456_0000 | 7 << 7 | 1 << 10);
            assert!(frame.pending_table_zero);
        });
    }

    #[test]
    fn non_shareable_tables_become_non_cacheable() {
        let (fake, redistributor) = awake();
        fake.at_redistributor(0, |frame| frame.coherent = false);
        let got = redistributor.program_lpi_tables(&fake, &tables()).unwrap();
        assert_eq!((got.config, got.pending), (Coherence::NonCoherent, Coherence::NonCoherent));
        fake.at_redistributor(0, |frame| {
            let (config, pending) = (frame.propbaser, frame.pendbaser);
            assert_eq!(config.inner_cache(), Cacheability::NonCacheable);
            assert_eq!((config.address(), config.id_bits()), (0x1_2345_6000, 16));
            assert_eq!(pending.inner_cache(), Cacheability::NonCacheable);
            assert!(frame.pending_table_zero);
        });
    }

    #[test]
    fn lpi_base_registers_can_be_written_once_lpis_are_disabled() {
        let (fake, redistributor) = awake();
        redistributor.program_lpi_tables(&fake, &tables()).unwrap();
        redistributor.start_lpis();
        assert!(redistributor.lpis_enabled());
        assert_eq!(redistributor.disable_lpis(&fake), Ok(LpiClearing::Cleared));
        // The fake panics if a write of `EnableLPIs` is still taking effect.
        redistributor.mmio().write(gicr::PROPBASER, gicr::Propbaser::new());
    }

    #[test]
    fn lpi_tables_are_programmed_after_rwp_clears() {
        let (fake, redistributor) = awake();
        redistributor.mmio().write32(0x1_0180, u32::MAX);
        redistributor.program_lpi_tables(&fake, &tables()).unwrap();
    }

    #[test]
    fn lpis_that_cannot_be_disabled_are_reported() {
        let (fake, redistributor) = awake();
        redistributor.program_lpi_tables(&fake, &tables()).unwrap();
        redistributor.start_lpis();
        fake.at_redistributor(0, |frame| frame.disables = false);
        assert_eq!(redistributor.disable_lpis(&fake), Ok(LpiClearing::Stuck));
    }
}
