//! Errors while a machine's interrupt controllers are brought up.

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

/// Reason why there is no [`Irqchip`](crate::Irqchip): the machine has no interrupts then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BringUpError {
    /// Firmware describes no GIC, or disables it.
    #[error("firmware describes no GIC that is enabled")]
    NoGic,
    /// Firmware states no CPU interface for a GICv2.
    #[error("firmware states no CPU interface (GICC) for its GICv2")]
    NoCpuInterface,
    /// Firmware describes a GICv2, whose driver belongs to the disabled feature `gicv2`.
    #[error("firmware describes a GICv2, but this build does not include its driver")]
    NotBuilt,
    /// Firmware enables no CPU, or the options admit none.
    #[error("firmware enables no CPU, or the caller admits none")]
    NoCpus,
    /// Firmware does not enable the calling CPU, so its redistributor is unknown.
    #[error("firmware enables no CPU with the boot CPU's affinity, {0}")]
    UnknownBootCpu(Affinity),
    /// The GIC's driver.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// There is no memory for what is known of the machine.
    #[error("no memory for what firmware says of the interrupt controllers")]
    NoMemory,
}

impl From<TryReserveError> for BringUpError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

/// Reason why a controller of messages is not in use. The other controllers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControllerError {
    /// The caller's [options](crate::Options::drives) leave it out.
    #[error("it is left out by choice")]
    LeftOut,
    /// Only the root GIC is taken into use.
    #[error("it belongs to a secondary GIC, and only the root is taken into use")]
    SecondaryGic,
    /// Firmware states no registers for it.
    #[error("firmware states no registers for it")]
    NoRegisters,
    /// It works with a GICv3 alone.
    #[error("it needs a GICv3, and this machine has a GICv2")]
    NeedsGicV3,
    /// No driver is for its kind.
    #[error("it is of a kind without a driver")]
    Foreign,
    /// The feature for this kind of controller is disabled.
    #[error("this build does not include the driver for this kind of controller")]
    NotBuilt,
    /// LPIs cannot be used.
    #[error(transparent)]
    Lpis(#[from] LpiError),
    /// The ITS's driver.
    #[error(transparent)]
    Its(#[from] ProbeError),
    /// The driver of direct LPIs.
    #[cfg(feature = "direct-lpi")]
    #[error(transparent)]
    DirectLpi(#[from] DirectLpiError),
    /// The driver of message-based SPIs.
    #[cfg(feature = "mbi")]
    #[error(transparent)]
    Mbi(#[from] MbiError),
    /// The driver of GICv2m frames.
    #[cfg(feature = "v2m")]
    #[error(transparent)]
    V2m(#[from] V2mError),
    /// There is no memory for what firmware says of it.
    #[error("no memory for what firmware says of it")]
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
    /// Firmware sends its messages nowhere.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Firmware sends its messages to a controller that is not in use.
    #[error("the MSI controller that firmware names is not in use: {1}")]
    NotInUse(ControllerIndex, ControllerError),
    /// There is no memory for what firmware says of the device's bus.
    #[error("no memory for what firmware says of the device's bus")]
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
    /// The GIC has no such interrupt.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// The ITS that sends the LPI failed.
    #[error(transparent)]
    Its(#[from] ItsError),
    /// The driver of direct LPIs.
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
    /// The calling CPU is not the one to be turned on.
    #[error("CPU {expected} is to be turned on, but CPU {found} is executing")]
    OtherCpu {
        /// The affinity of the CPU to be turned on.
        expected: Affinity,
        /// The affinity of the calling CPU.
        found: Affinity,
    },
    /// The GIC's driver.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// An ITS does not reach the CPU, or not without it.
    #[error(transparent)]
    Its(#[from] ItsError),
    /// The driver of direct LPIs.
    #[error(transparent)]
    DirectLpi(MsiError),
    /// The interrupt core was made for fewer CPUs.
    #[error(transparent)]
    Unknown(#[from] UnknownCpu),
    /// So many interrupts could not be moved away: the CPU stays on.
    #[error("{0} interrupts could not be moved away, and the CPU stays on")]
    Stranded(usize),
}

/// The step of a suspend or resume that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The GIC's driver.
    #[error(transparent)]
    Gic(GicError),
    /// An ITS, by its place in the description.
    #[error("{1}")]
    Its(ControllerIndex, ItsError),
    /// The driver of direct LPIs.
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
    /// Another CPU takes interrupts. Nothing was changed.
    #[error("CPU {0} is still on, and nothing was suspended")]
    CpuIsOn(Cpu),
    /// The CPU is not on, or there is no memory for the saved state. Nothing was changed.
    #[error("{0}; nothing was suspended")]
    Refused(GicError),
    /// A step failed, and every controller that was stopped before works again.
    #[error("{0}; everything works as before")]
    Undone(StepError),
    /// A step failed, and not every controller that was stopped before could be restarted.
    #[error("{step} did not stop, and the suspend was not undone: {left}")]
    NotUndone {
        /// The controller or step that failed to stop.
        step: &'static str,
        /// Controllers that do not work.
        left: ResumeError,
    },
}

impl SuspendError {
    /// The error of a suspend whose earlier steps were undone with this result.
    pub(crate) fn after_undo(cause: StepError, undone: Result<(), ResumeError>) -> Self {
        match undone {
            Ok(()) => Self::Undone(cause),
            Err(left) => Self::NotUndone { step: cause.name(), left },
        }
    }
}

/// Reason why not every interrupt controller was resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The GIC was not restored, and nothing else was tried.
    #[error("{error}; no interrupt controller was resumed")]
    Gic {
        /// The failure.
        error: GicError,
        /// The state, for another attempt.
        suspended: Suspended,
    },
    /// The GIC and all other controllers work. [`Its::resume`](gic_driver::Its::resume) and
    /// [`DirectLpi::cpu_on`](gic_driver::DirectLpi::cpu_on) can be tried again.
    #[error("{first}; {failed} MSI controllers were not resumed, all others were")]
    Controllers {
        /// The first failure.
        first: StepError,
        /// Number of controllers that failed.
        failed: usize,
    },
}
