mod errata;
mod life;
mod out_of_memory;
mod residency;
mod suspending;
mod wired;

use super::*;
use crate::PhysicalRegion;
use crate::cpu_interface::SplitEoi;
use crate::fake::{
    DISTRIBUTOR, Fake, FakeDistributor, FakeRedistributor, FakeRegisters, REDISTRIBUTORS, Security,
};
use crate::lpi::PendingLpis;
use crate::{Coherence, Route};
use alloc::vec;
use core::num::NonZeroU16;
use gic_arch::gicr::{Propbaser, STRIDE_V3};
use gic_arch::{IntId, SgiId, icc};
use msi_types::{HwIrq, MsiError, Pending, Trigger, WiredParent};

extern crate std;

const CPUS: u8 = 3;

fn config() -> GicConfig {
    let region = PhysicalRegion { base: REDISTRIBUTORS, bytes: u64::from(CPUS) * STRIDE_V3 };
    let affinities = (0..CPUS).map(|cpu| Affinity::new(0, 0, 0, cpu)).collect();
    GicConfig::new(DISTRIBUTOR, vec![RedistributorRegion::new(region)], affinities)
}

fn discovered(fake: &Fake) -> Result<Gic<Fake>, GicError> {
    Gic::new(Arc::new(fake.clone()), config())
}

/// A GIC with all CPUs on.
fn running() -> (Fake, Gic<Fake>, Vec<FakeRegisters>) {
    let fake = Fake::with_cpus(CPUS);
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
