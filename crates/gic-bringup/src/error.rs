//! Errors of bring-up, CPU hotplug, suspend and resume.

use crate::suspended::Suspended;
use alloc::collections::TryReserveError;
use gic_arch::{Affinity, Lpi};
#[cfg(feature = "v2m")]
use gic_driver::V2mError;
#[cfg(feature = "direct-lpi")]
use gic_driver::direct_lpi::DirectLpiError;
use gic_driver::its::ProbeError;
#[cfg(feature = "mbi")]
use gic_driver::mbi::MbiError;
use gic_driver::{GicError, ItsError, LpiError};
use gic_firmware::{ControllerIndex, NoRoute};
use irq_domain::UnknownCpu;
use msi_types::{Cpu, MsiError};

/// Reason why no [`Irqchip`](crate::Irqchip) was created. The machine cannot take interrupts
/// without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BringUpError {
    /// Firmware describes no GIC, or disables it.
    #[error("firmware describes no enabled GIC")]
    NoGic,
    /// Firmware states no CPU interface for a GICv2.
    #[error("firmware states no CPU interface (GICC) for its GICv2")]
    NoCpuInterface,
    /// Firmware describes a GICv2, whose driver belongs to the disabled feature `gicv2`.
    #[error("firmware describes a GICv2, but this build does not include its driver")]
    NotBuilt,
    /// Firmware enables no CPU, or [`max_cpus`](crate::Options::max_cpus) is 0.
    #[error("firmware enables no CPU, or `max_cpus` is 0")]
    NoCpus,
    /// Firmware does not enable the calling CPU, so its redistributor is unknown.
    #[error("firmware enables no CPU with the boot CPU's affinity, {0}")]
    UnknownBootCpu(Affinity),
    /// The driver of the GIC failed.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// Memory for data about the machine could not be allocated.
    #[error("no memory for the description of the interrupt controllers")]
    NoMemory,
}

impl From<TryReserveError> for BringUpError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

/// Reason why an MSI controller is not in use. The other controllers are not affected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The caller's [options](crate::Options::drives) exclude it.
    #[error("the caller's options exclude it")]
    LeftOut,
    /// It belongs to a secondary GIC. Only the MSI controllers of the root GIC are used.
    #[error("it belongs to a secondary GIC, and only controllers of the root GIC are used")]
    SecondaryGic,
    /// Firmware does not state the address of its registers.
    #[error("firmware does not state the address of its registers")]
    NoRegisters,
    /// It works only with a GICv3.
    #[error("it needs a GICv3, and this machine has a GICv2")]
    NeedsGicV3,
    /// No driver exists for its kind.
    #[error("no driver exists for its kind")]
    Foreign,
    /// The feature for this kind of controller is disabled.
    #[error("this build does not include the driver for this kind of controller")]
    NotBuilt,
    /// LPIs cannot be used.
    #[error(transparent)]
    Lpis(#[from] LpiError),
    /// The driver of the ITS failed.
    #[error(transparent)]
    Its(#[from] ProbeError),
    /// The driver of direct LPIs failed.
    #[cfg(feature = "direct-lpi")]
    #[error(transparent)]
    DirectLpi(#[from] DirectLpiError),
    /// The driver of message-based SPIs failed.
    #[cfg(feature = "mbi")]
    #[error(transparent)]
    Mbi(#[from] MbiError),
    /// The driver of GICv2m frames failed.
    #[cfg(feature = "v2m")]
    #[error(transparent)]
    V2m(#[from] V2mError),
    /// Memory for its description could not be allocated.
    #[error("no memory for its description")]
    NoMemory,
}

impl From<TryReserveError> for ControllerError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

/// Reason why a device has no parent for its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoParent {
    /// Firmware does not route the device's messages to an MSI controller.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Firmware routes the device's messages to a controller that is not in use.
    #[error("the MSI controller that firmware names is not in use: {1}")]
    NotInUse(ControllerIndex, ControllerError),
    /// Memory for the description of the device's bus could not be allocated.
    #[error("no memory for the description of the device's bus")]
    NoMemory,
}

impl From<TryReserveError> for NoParent {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

/// Reason why an interrupt's priority was not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriorityError {
    /// The interrupt does not exist in this GIC.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// The ITS that sends the LPI failed.
    #[error(transparent)]
    Its(#[from] ItsError),
    /// The driver of direct LPIs failed.
    #[error(transparent)]
    DirectLpi(MsiError),
    /// No MSI controller sends the LPI.
    #[error("no MSI controller sends {0}")]
    NotMapped(Lpi),
}

/// Reason why a CPU could not be turned on or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// The calling CPU is not the CPU to be turned on.
    #[error("CPU {expected} is to be turned on, but CPU {found} is executing")]
    OtherCpu {
        /// The affinity of the CPU to be turned on.
        expected: Affinity,
        /// The affinity of the calling CPU.
        found: Affinity,
    },
    /// The driver of the GIC failed.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// An ITS does not reach the CPU, or cannot move its events to another CPU.
    #[error(transparent)]
    Its(#[from] ItsError),
    /// The driver of direct LPIs failed.
    #[error(transparent)]
    DirectLpi(MsiError),
    /// The interrupt core was created for fewer CPUs.
    #[error(transparent)]
    Unknown(#[from] UnknownCpu),
    /// This many interrupts could not be moved to other CPUs. The CPU stays on.
    #[error("{0} interrupts could not be moved away, and the CPU stays on")]
    Stranded(usize),
}

/// The step of a suspend or resume that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The driver of the GIC failed.
    #[error(transparent)]
    Gic(GicError),
    /// An ITS failed. The index is its position in the description.
    #[error("{1}")]
    Its(ControllerIndex, ItsError),
    /// The driver of direct LPIs failed.
    #[error(transparent)]
    DirectLpi(MsiError),
}

impl StepError {
    const fn name(self) -> &'static str {
        match self {
            Self::Gic(_) => "the GIC",
            Self::Its(..) => "an ITS",
            Self::DirectLpi(_) => "direct LPIs",
        }
    }
}

/// Reason why the interrupt controllers were not suspended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuspendError {
    /// Another CPU still takes interrupts. Nothing was changed.
    #[error("CPU {0} is still on, and nothing was suspended")]
    CpuIsOn(Cpu),
    /// The CPU is not on, or memory for the saved state could not be allocated. Nothing was
    /// changed.
    #[error("{0}; nothing was suspended")]
    Refused(GicError),
    /// A step failed. Every controller that was already stopped has been restarted.
    #[error("{0}; all controllers have been restarted")]
    Undone(StepError),
    /// A step failed, and some controllers that were already stopped could not be restarted.
    #[error("{step} did not stop, and the suspend could not be undone: {left}")]
    NotUndone {
        /// Name of the controller that failed to stop.
        step: &'static str,
        /// The controllers that do not work.
        left: ResumeError,
    },
}

impl SuspendError {
    /// Returns the error for a suspend that failed with `cause` and whose earlier steps were undone
    /// with the result `undone`.
    pub(crate) fn after_undo(cause: StepError, undone: Result<(), ResumeError>) -> Self {
        match undone {
            Ok(()) => Self::Undone(cause),
            Err(left) => Self::NotUndone { step: cause.name(), left },
        }
    }
}

/// Reason why some interrupt controllers were not resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The GIC could not be restored, so no other controller was tried.
    #[error("{error}; no interrupt controller was resumed")]
    Gic {
        /// Reason for the failure.
        error: GicError,
        /// The saved state, to retry with.
        suspended: Suspended,
    },
    /// The GIC was restored, and so were all controllers other than those counted here.
    /// [`Its::resume`](gic_driver::Its::resume) and
    /// [`DirectLpi::cpu_on`](gic_driver::DirectLpi::cpu_on) may be retried.
    #[error("{first}; {failed} MSI controllers were not resumed, all others were")]
    Controllers {
        /// The first failure.
        first: StepError,
        /// Number of controllers that failed.
        failed: usize,
    },
}
