//! Whole-GIC tests.

mod errata;
mod life;
mod residency;
mod suspending;
mod wired;

use crate::fake::{
    Board, DISTRIBUTOR, FakeDistributor, FakeRedistributor, FakeRegisters, REDISTRIBUTOR, Security,
};
use gic_arch::gicr::STRIDE_V3;
use gic_arch::{Affinity, IntId, Priority, SgiId, gicd, icc};
use gic_driver::cpu_interface::SplitEoi;
use gic_driver::gic::SuspendError;
use gic_driver::lpi::PendingLpis;
use gic_driver::{
    Block, Coherence, Gic, GicConfig, GicError, LpiError, MmioExt, PhysicalRegion,
    RedistributorRegion, Route, SecurityView, SpiRange,
};
use msi_types::explain::{Group, Obstacle};
use msi_types::{Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};
use std::num::NonZeroU16;
use std::sync::Arc;

const CPUS: u8 = 3;

fn config() -> GicConfig {
    let region = PhysicalRegion { base: REDISTRIBUTOR, bytes: u64::from(CPUS) * STRIDE_V3 };
    let affinities = (0..CPUS).map(|cpu| Affinity::new(0, 0, 0, cpu)).collect();
    GicConfig::new(DISTRIBUTOR, vec![RedistributorRegion::new(region)], affinities)
}

fn discovered(fake: &Board) -> Result<Gic<Board>, GicError> {
    Gic::new(Arc::new(fake.clone()), config())
}

/// Returns a GIC with all CPUs on.
fn running() -> (Board, Gic<Board>, Vec<FakeRegisters>) {
    let fake = Board::with_cpus(CPUS);
    let gic = discovered(&fake).unwrap();
    let registers: Vec<_> = gic.cpus().map(|_| FakeRegisters::default()).collect();
    for (cpu, registers) in gic.cpus().zip(&registers) {
        gic.cpu_on(cpu, registers).unwrap();
    }
    (fake, gic, registers)
}

fn cpu(number: u32) -> Cpu {
    Cpu::new(number)
}

fn hwirq(number: u32) -> HwIrq {
    HwIrq::new(number)
}

fn count(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}

/// Non-secure accesses read groups as zero, and see another layout of `GICD_CTLR`.
#[test]
fn a_pending_spi_is_explained_correctly_in_every_security_view() {
    for (security, view) in [
        (Security::Single, SecurityView::Single),
        (Security::Secure, SecurityView::Secure),
        (Security::NonSecure, SecurityView::NonSecure),
    ] {
        let redistributors = (0..CPUS).map(|cpu| FakeRedistributor::new(cpu, cpu + 1 == CPUS));
        let fake = Board::with(FakeDistributor::new(security), redistributors.collect());
        let gic = discovered(&fake).unwrap();
        assert_eq!(gic.distributor().view(), view);
        gic.cpu_on(cpu(0), &FakeRegisters::default()).unwrap();
        gic.claim(hwirq(40), count(1)).unwrap();
        gic.set_target(hwirq(40), cpu(0)).unwrap();
        gic.unmask(hwirq(40));
        gic.set_pending(hwirq(40), Pending::Set);
        assert_eq!(gic.explain(hwirq(40)).obstacle(), None, "{view:?}");
        gic.distributor().stop(&fake).unwrap();
        let ctlr = gic.distributor().mmio().read(gicd::CTLR).into();
        let withheld = Obstacle::GroupDisabled { group: Group::One, ctlr };
        assert_eq!(gic.explain(hwirq(40)).obstacle(), Some(withheld), "{view:?}");
    }
}
