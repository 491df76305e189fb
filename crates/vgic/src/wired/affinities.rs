//! Maps the affinities in SPI routes and SGI targets to vCPUs.

use super::interrupt::InterruptWord;
use crate::config::{VgicConfig, cpu};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use gic_arch::Affinity;
use gic_arch::gicd::Irouter;
use gic_arch::icc::Sgi;
use msi_types::Cpu;

/// Number of PEs in one range of Aff0 values, i.e. in one SGI target list.
///
const RANGE: u8 = 16;

/// Map from affinities to vCPUs, sorted by affinity.
pub(super) struct Affinities(Box<[(Affinity, Cpu)]>);

impl Affinities {
    pub(super) fn new(config: &VgicConfig) -> Result<Self, OutOfMemory> {
        let cpus = config.cpus.iter().enumerate();
        let mut all = try_boxed_slice(cpus.map(|(index, of)| (of.affinity, cpu(index))))?;
        all.sort_unstable();
        Ok(Self(all))
    }

    /// Returns the vCPU with this affinity.
    pub(super) fn cpu_at(&self, affinity: Affinity) -> Option<Cpu> {
        let found = self.0.binary_search_by_key(&affinity, |(affinity, _)| *affinity).ok()?;
        self.0.get(found).map(|(_, cpu)| *cpu)
    }

    /// Returns the index of a route's target vCPU, for [`InterruptWord::target_index`], or
    /// [`InterruptWord::NOWHERE`] if the route has no target or allows any PE.
    pub(super) fn resolve(&self, route: Irouter) -> u16 {
        if route.any_participating() {
            return InterruptWord::NOWHERE;
        }
        self.cpu_at(route.affinity()).map_or(InterruptWord::NOWHERE, InterruptWord::index_of)
    }

    /// Calls `each` for all targets in the target list of an SGI, which `ICC_SGI1R_EL1` or a
    /// related register sends.
    pub(super) fn each_target(&self, sgi: Sgi, mut each: impl FnMut(Cpu)) {
        let first = sgi.range_selector() * RANGE;
        let first = Affinity::new(sgi.aff3(), sgi.aff2(), sgi.aff1(), first);
        let behind = self.0.partition_point(|(affinity, _)| *affinity < first);
        for (affinity, target) in &self.0[behind..] {
            match affinity.packed() - first.packed() {
                at @ 0..16 if sgi.target_list() & 1 << at != 0 => each(*target),
                0..16 => {}
                16.. => break,
            }
        }
    }
}
