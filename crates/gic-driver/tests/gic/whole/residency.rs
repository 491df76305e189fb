//! Tests for redistributors on which a hypervisor left a vPE resident.

use super::*;
use crate::fake::FakeVlpiFrame;
use gic_arch::gicr::STRIDE_V4;
use gic_arch::gicr::vlpi::{Vpendbaser, Vpropbaser};

const TABLE: u64 = 0x1235_0000;

/// Returns a machine whose redistributors support virtual LPIs and each have a resident vPE.
fn machine(change: impl Fn(&mut FakeRedistributor)) -> Board {
    let redistributors = (0..CPUS).map(|cpu| {
        let mut frame = FakeRedistributor::new(cpu, cpu + 1 == CPUS);
        frame.base = REDISTRIBUTOR + u64::from(cpu) * STRIDE_V4;
        frame.typer = frame.typer.with_vlpis(true);
        frame.vlpi.vpendbaser = Vpendbaser::new().with_address(TABLE).with_valid(true);
        frame.vlpi.vpropbaser = Vpropbaser::new().with_id_bits_minus_one(13);
        change(&mut frame);
        frame
    });
    Board::with(FakeDistributor::new(Security::Single), redistributors.collect())
}

fn region(bytes: u64) -> RedistributorRegion {
    RedistributorRegion::new(PhysicalRegion { base: REDISTRIBUTOR, bytes })
}

fn found(fake: &Board, config: GicConfig) -> Gic<Board> {
    Gic::new(Arc::new(fake.clone()), config).unwrap()
}

fn with_room() -> GicConfig {
    config().with_redistributors(vec![region(u64::from(CPUS) * STRIDE_V4)])
}

fn at_all(fake: &Board, check: impl Fn(&mut FakeVlpiFrame)) {
    (0..usize::from(CPUS))
        .for_each(|cpu| fake.at_redistributor(cpu, |frame| check(&mut frame.vlpi)));
}

#[test]
fn no_vpe_is_resident_after_discovery() {
    let fake = machine(|_| ());
    // The kernel uses only one CPU, but redistributors of other CPUs may also write to memory.
    let _gic = found(&fake, with_room().with_cpus(vec![Affinity::new(0, 0, 0, 0)]));
    let left = Vpendbaser::new().with_address(TABLE);
    at_all(&fake, |frame| assert_eq!(frame.vpendbaser, left));
}

#[test]
fn discovery_waits_for_an_earlier_change_of_residency() {
    let fake = machine(|frame| {
        frame.typer = frame.typer.with_dirty(true);
        frame.vlpi.lag = 5;
    });
    let _gic = found(&fake, with_room());
    at_all(&fake, |frame| assert!(!frame.vpendbaser.valid() && frame.lag == 0));
}

#[test]
fn table_of_vpes_is_invalid_after_discovery() {
    let fake = machine(|frame| {
        frame.typer = frame.typer.with_rvpeid(true);
        frame.vlpi.vpropbaser = Vpropbaser::new().with_valid(true);
    });
    let _gic = found(&fake, with_room());
    at_all(&fake, |frame| {
        assert!(!frame.vpendbaser.valid() && !frame.vpropbaser.valid());
        assert!(frame.vpendbaser.pending_last(), "a doorbell is requested");
    });
}

#[test]
fn cpu_on_evicts_a_vpe() {
    let fake = machine(|_| ());
    let gic = found(&fake, with_room());
    at_all(&fake, |frame| frame.vpendbaser = frame.vpendbaser.with_valid(true));
    gic.cpu_on(cpu(1), &FakeRegisters::default()).unwrap();
    fake.at_redistributor(1, |frame| assert!(!frame.vlpi.vpendbaser.valid()));
}

#[test]
fn a_vpe_that_cannot_be_evicted_fails_only_its_cpu() {
    let fake = machine(|_| ());
    fake.at_redistributor(1, |frame| {
        frame.typer = frame.typer.with_dirty(true);
        frame.vlpi.stuck = true;
    });
    let gic = found(&fake, with_room());
    let block = Block::Redistributor(REDISTRIBUTOR + STRIDE_V4);
    let refused = GicError::TimedOut { block, what: "GICR_VPENDBASER.Dirty = 0" };
    assert_eq!(gic.cpu_on(cpu(1), &FakeRegisters::default()), Err(refused));
    assert!(gic.cpu_on(cpu(0), &FakeRegisters::default()).is_ok());
}

#[test]
fn vlpi_frames_outside_the_region_are_not_accessed() {
    let fake = machine(|_| ());
    let bytes = STRIDE_V3;
    let gic = found(&fake, config().with_redistributors(vec![region(bytes)]));
    assert!(gic.cpu_on(cpu(0), &FakeRegisters::default()).is_ok());
    fake.at_redistributor(0, |frame| assert!(frame.vlpi.vpendbaser.valid()));
}
