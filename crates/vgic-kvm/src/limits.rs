//! Checks for machines and states that KVM can't represent.

use crate::abi::Errno;
use alloc::collections::TryReserveError;
use gic_arch::gicd::{self, Irouter};
use gic_arch::gicr;
use gic_arch::gits::{Creadr, PageSize};
use gic_arch::{Affinity, IntId, IntIdClass};
use vgic::its::{Coherence, ItsConfig, PageSizes, RedistributorNaming};
use vgic::saved_state::{
    InterruptState, ItsState, NotRestorable, Problem, RestoreError, SavedState,
};
use vgic::{ConfigError, OutOfMemory, SecurityView, VgicConfig};

/// Error for a machine or a state that KVM can't represent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutsideKvm {
    /// The number of priority bits is not 5.
    #[error("the machine has {0} priority bits, but KVM's have 5")]
    PriorityBits(u8),
    /// The machine has extended SPIs or PPIs.
    #[error("the machine has extended SPIs or PPIs, but KVM's have none")]
    ExtendedRange,
    /// The machine presents the Non-secure view of two security states.
    #[error("the machine has two security states, but KVM's have one")]
    TwoSecurityStates,
    /// The machine's INTIDs have more than 16 bits.
    #[error("the machine has INTIDs of {0} bits, but KVM's have at most 16")]
    IntIdBits(u8),
    /// The machine has direct LPIs.
    #[error("the machine has direct LPIs, but KVM's have none")]
    DirectLpi,
    /// The machine's table accesses are not coherent with the guest's caches.
    #[error("the machine's table accesses are not coherent, but KVM's are")]
    NotCoherent,
    /// A CPU's affinity has a nonzero Aff3, which KVM's routes can't represent.
    #[error("the CPU {0} has an Aff3, but KVM's have none")]
    Affinity(Affinity),
    /// An ITS differs from the ITS that KVM emulates.
    #[error("its@{its:x}: its {what} differs from KVM's")]
    Its {
        /// The ITS's address.
        its: u64,
        /// Property that differs.
        what: &'static str,
    },
    /// Group 0 is enabled without Group 1, but KVM has a single enable.
    #[error("the distributor forwards only Group 0, but KVM's forwards both groups or none")]
    GroupZeroAlone,
    /// An SPI has 1-of-N routing, so that any participating CPU may take it.
    #[error("interrupt {} is routed to any CPU, but KVM's are routed to one", .0.get())]
    OneOfN(IntId),
    /// A CPU declines 1-of-N interrupts.
    #[error("CPU {0} declines interrupts of a group, but KVM's cannot")]
    Declines(Affinity),
    /// A PPI is edge-triggered. Impossible with [`VgicConfig::level_ppis`].
    #[error("interrupt {} of CPU {cpu} is edge-triggered, but KVM's PPIs are not", .intid.get())]
    EdgePpi {
        /// Affinity of the PPI's CPU.
        cpu: Affinity,
        /// The PPI's INTID.
        intid: IntId,
    },
    /// A level-sensitive SPI is pending because of a message.
    #[error("interrupt {} is held pending by a message, which KVM cannot represent", .0.get())]
    MessageLevel(IntId),
    /// Redistributors use different LPI configuration tables.
    #[error("CPU {0} uses a different LPI configuration table, but KVM has one for all CPUs")]
    ConfigurationTables(Affinity),
    /// The command queue of an ITS is stalled because of a command error.
    #[error("its@{0:x}: its queue is stalled, but KVM's skip faulty commands")]
    Stalled(u64),
    /// The configuration is invalid for any machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state is invalid for the machine.
    #[error(transparent)]
    State(#[from] RestoreError),
}

impl From<NotRestorable> for OutsideKvm {
    fn from(error: NotRestorable) -> Self {
        match error {
            NotRestorable::Config(error) => Self::Config(error),
            NotRestorable::State(error) => Self::State(error),
        }
    }
}

impl From<TryReserveError> for OutsideKvm {
    fn from(error: TryReserveError) -> Self {
        Self::State(OutOfMemory::from(error).into())
    }
}

/// Returns the error number that KVM uses for tables that don't describe a valid state.
pub(super) const fn errno(outside: OutsideKvm) -> Errno {
    match outside {
        OutsideKvm::State(RestoreError {
            problem: Problem::NoRoom | Problem::OutOfMemory, ..
        })
        | OutsideKvm::Config(ConfigError::OutOfMemory(_)) => Errno::NoMemory,
        _ => Errno::Invalid,
    }
}

const PRIORITY_BITS: u8 = 5;
const ID_BITS: u8 = 16;

/// Checks whether KVM can represent machines with this configuration. A VMM can ask this question
/// at any time, in particular before it stops a machine to migrate it.
///
/// A guest's choices are part of the state, which only
/// [`KvmView::new`](crate::KvmView::new) checks: for example, a guest may route an SPI to any CPU
/// if [`VgicConfig::one_of_n`] is set.
///
/// # Errors
/// [`OutsideKvm`] names the first property that KVM's machines can't have.
pub fn check_machine(config: &VgicConfig) -> Result<(), OutsideKvm> {
    if config.priority_bits != PRIORITY_BITS {
        return Err(OutsideKvm::PriorityBits(config.priority_bits));
    }
    if config.extended_spis > 0 || config.extended_ppis > 0 {
        return Err(OutsideKvm::ExtendedRange);
    }
    if config.security != SecurityView::Single {
        return Err(OutsideKvm::TwoSecurityStates);
    }
    if let Some(bits) = config.lpi_id_bits.filter(|bits| *bits > ID_BITS) {
        return Err(OutsideKvm::IntIdBits(bits));
    }
    if config.direct_lpi {
        return Err(OutsideKvm::DirectLpi);
    }
    if config.coherence != Coherence::Coherent {
        return Err(OutsideKvm::NotCoherent);
    }
    let aff3 = config.cpus.iter().find(|cpu| cpu.affinity.levels()[0] != 0);
    match aff3 {
        Some(cpu) => Err(OutsideKvm::Affinity(cpu.affinity)),
        None => config.its.iter().try_for_each(check_its_machine),
    }
}

fn check_its_machine(its: &ItsConfig) -> Result<(), OutsideKvm> {
    let differences = [
        (its.device_id_bits > ID_BITS, "number of DeviceID bits"),
        (its.event_id_bits > ID_BITS, "number of EventID bits"),
        (
            its.redistributor_naming != RedistributorNaming::ProcessorNumber,
            "naming of redistributors",
        ),
        (its.held_collections > 0, "number of held collections"),
        (its.collection_table.is_none(), "number of collection tables"),
        (its.page_sizes != PageSizes::Only(PageSize::Size64K), "choice of page sizes"),
        (its.coherence != Coherence::Coherent, "table coherence"),
        (its.iidr.revision() != 0, "table format (GITS_IIDR.Revision)"),
    ];
    match differences.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(OutsideKvm::Its { its: its.base, what }),
        None => Ok(()),
    }
}

pub(super) fn check_state(state: &SavedState) -> Result<(), OutsideKvm> {
    let control = gicd::Ctlr::from(state.distributor.ctlr);
    if control.enable_grp0() && !control.enable_grp1() {
        return Err(OutsideKvm::GroupZeroAlone);
    }
    state.distributor.interrupts.iter().try_for_each(check_shared)?;
    check_cpus(state)?;
    state.its.iter().try_for_each(check_its)
}

fn check_shared(interrupt: &InterruptState) -> Result<(), OutsideKvm> {
    if Irouter::from(interrupt.route).any_participating() {
        return Err(OutsideKvm::OneOfN(interrupt.intid));
    }
    if interrupt.message { Err(OutsideKvm::MessageLevel(interrupt.intid)) } else { Ok(()) }
}

fn check_cpus(state: &SavedState) -> Result<(), OutsideKvm> {
    let mut table = None;
    for cpu in &state.cpus {
        let control = gicr::Ctlr::from(cpu.redistributor.ctlr);
        if control.dpg0() || control.dpg1_ns() || control.dpg1_s() {
            return Err(OutsideKvm::Declines(cpu.affinity));
        }
        let propbaser = cpu.redistributor.propbaser;
        if control.enable_lpis() && *table.get_or_insert(propbaser) != propbaser {
            return Err(OutsideKvm::ConfigurationTables(cpu.affinity));
        }
        let edge = |interrupt: &&InterruptState| {
            interrupt.intid.class() == IntIdClass::Ppi && interrupt.edge
        };
        if let Some(interrupt) = cpu.redistributor.interrupts.iter().find(edge) {
            return Err(OutsideKvm::EdgePpi { cpu: cpu.affinity, intid: interrupt.intid });
        }
    }
    Ok(())
}

fn check_its(its: &ItsState) -> Result<(), OutsideKvm> {
    let is_stalled = Creadr::from_bits(its.creadr).stalled();
    if is_stalled { Err(OutsideKvm::Stalled(its.base)) } else { Ok(()) }
}
