//! GIC discovery.

use super::errata::{self, GicErrata};
use super::{Gic, GicConfig, PerCpu};
use crate::distributor::{Distributor, DistributorConfig};
use crate::lpi::{LpiConfig, Lpis};
use crate::redistributor::{RedistributorRegion, walk_redistributors};
use crate::{Block, GicError, GicPlatform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use doorbell_fallible::try_collect;
use doorbell_lock::{IrqLock, TaskLock};
use gic_arch::{Affinity, gicd};

impl<P: GicPlatform> Gic<P> {
    /// Discovers a GIC and brings its distributor to a known state. Interrupts are not enabled at
    /// any CPU yet: each CPU must be [turned on](Self::cpu_on) separately. Must be called once, on
    /// the boot CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// A CPU without a redistributor, a redistributor region that can't be walked to the end, and
    /// unusable LPIs are not errors here: [`cpu_on`](Self::cpu_on),
    /// [`bad_regions`](Self::bad_regions) and [`lpis`](Self::lpis) report them.
    ///
    /// # Errors
    /// Any [`GicError`] except those for SGIs and CPU interfaces. The error of a region is returned
    /// only if no configured CPU has a redistributor.
    pub fn new(platform: Arc<P>, config: GicConfig) -> Result<Self, GicError> {
        let GicConfig {
            distributor,
            distributor_bytes,
            redistributors,
            cpus,
            priorities,
            lpi_id_bits,
            table_access,
            machine,
        } = config;
        let boot = platform.cpu();
        let route = *cpus.get(boot.index()).ok_or(GicError::UnknownCpu(boot))?;
        check_frame(distributor, distributor_bytes)?;
        let mut distributor = Distributor::map(&*platform, distributor)?;
        let mut errata = GicErrata::of_distributor(&distributor, &machine)?;
        errata.apply_to_distributor(&*platform, &mut distributor, &redistributors)?;
        let route = errata.affinity(route);
        distributor.init(&*platform, DistributorConfig::new(priorities.wired, route))?;
        let affinities = cpus.into_iter().map(|cpu| errata.affinity(cpu));
        let block = Block::Distributor(distributor.address());
        let (mut cpus, bad_regions) =
            open_redistributors(&*platform, block, &redistributors, affinities)?;
        for redistributor in cpus.iter_mut().filter_map(|cpu| cpu.redistributor.as_mut()) {
            errata.apply_to_redistributor(redistributor, &machine)?;
        }
        let present = cpus.iter().filter_map(|cpu| cpu.redistributor.as_ref());
        let choice =
            LpiConfig::new(priorities.lpi).with_id_bits(lpi_id_bits).with_access(table_access);
        let choice =
            present.clone().fold(choice, |choice, each| errata::corrected(choice, each, &machine));
        let lpis = match Lpis::new(platform.clone(), &distributor, present, choice) {
            Ok(lpis) => Ok(lpis),
            Err(GicError::Lpi(refused)) => Err(refused),
            Err(error) => return Err(error),
        };
        let (claims, moves) = Default::default();
        Ok(Self {
            platform,
            distributor,
            cpus,
            bad_regions,
            priorities,
            lpis,
            errata,
            claims,
            moves,
            without_extended: AtomicBool::new(false),
            message_ranges: IrqLock::default(),
            vpe_moves: TaskLock::new(0),
            vpe_numbers: TaskLock::new(Vec::new()),
        })
    }
}

/// Checks that firmware's frame size is not too small for a GICv3 distributor.
fn check_frame(base: u64, stated: Option<u64>) -> Result<(), GicError> {
    match stated {
        Some(bytes) if bytes < gicd::FRAME_SIZE => {
            Err(GicError::FrameTooSmall { block: Block::Distributor(base), bytes })
        }
        _ => Ok(()),
    }
}

/// Per-CPU state with redistributors, and errors for regions.
type Opened<M> = (Vec<PerCpu<M>>, Vec<GicError>);

/// Finds each CPU's redistributor, if it exists, and skips the redistributors of PEs that are not
/// configured. An error only ends the walk of the region in which it occurs: a region whose cluster
/// is fused off must not make the whole GIC unusable.
fn open_redistributors<P: GicPlatform>(
    platform: &P,
    block: Block,
    regions: &[RedistributorRegion],
    cpus: impl Iterator<Item = Affinity>,
) -> Result<Opened<P::Mmio>, GicError> {
    let per_cpu = |affinity| PerCpu { affinity, redistributor: None, on: AtomicBool::new(false) };
    let mut found = try_collect(cpus.map(per_cpu)).map_err(|_| GicError::NoMemory(block))?;
    let mut bad_regions = Vec::new();
    for region in regions {
        for redistributor in walk_redistributors(platform, *region) {
            let redistributor = match redistributor {
                Ok(redistributor) => redistributor,
                Err(error) => {
                    bad_regions.try_reserve(1).map_err(|_| GicError::NoMemory(block))?;
                    bad_regions.push(error);
                    break;
                }
            };
            // Evict vPEs before any table is allocated, even at redistributors of unused CPUs. If
            // an eviction fails, `cpu_on` reports the error.
            let _ = redistributor.evict_vpe(platform);
            let affinity = redistributor.affinity();
            let cpu = found
                .iter_mut()
                .find(|cpu| cpu.affinity == affinity && cpu.redistributor.is_none());
            if let Some(cpu) = cpu {
                cpu.redistributor = Some(redistributor);
            }
        }
    }
    match bad_regions.first() {
        Some(error) if found.iter().all(|cpu| cpu.redistributor.is_none()) => Err(*error),
        _ => Ok((found, bad_regions)),
    }
}
