//! Errors from bring-up, CPU hotplug, suspend and resume, and the saved state of a machine's
//! interrupt controllers.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use gic_arch::{Affinity, Lpi};
#[cfg(feature = "bridge-msi")]
use gic_driver::BridgeMsiError;
#[cfg(feature = "direct-lpi")]
use gic_driver::direct_lpi::DirectLpiError;
use gic_driver::gicv2::SuspendedV2;
use gic_driver::its::ProbeError;
use gic_driver::{GicError, ItsError, LpiError, SpiError, gic};
use gic_firmware::{ControllerIndex, NoRoute};
use irq_domain::{RequestError, UnknownCpu};
use msi_types::{Cpu, MsiError};

/// Reason why bring-up created no [`Irqchip`](crate::Irqchip). Without an irqchip, the machine
/// can't take interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BringUpError {
    /// Firmware describes no GIC, or disables it.
    #[error("firmware describes no enabled GIC")]
    NoGic,
    /// Firmware describes a GICv2 without a CPU interface.
    #[error("firmware states no CPU interface (GICC) for its GICv2")]
    NoCpuInterface,
    /// Firmware describes a GICv2, but the feature `gicv2` is disabled.
    #[error("firmware describes a GICv2, but this build does not include its driver")]
    NotBuilt,
    /// Firmware enables no CPU, or [`max_cpus`](crate::Options::with_max_cpus) is 0.
    #[error("firmware enables no CPU, or `max_cpus` is 0")]
    NoCpus,
    /// Firmware does not enable the calling CPU, so its redistributor is unknown.
    #[error("firmware enables no CPU with the boot CPU's affinity, {0}")]
    UnknownBootCpu(Affinity),
    /// The GIC driver failed.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// There was not enough memory to describe the machine.
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
    /// The caller's [options](crate::Options::with_drives) exclude the controller.
    #[error("the caller's options exclude it")]
    LeftOut,
    /// The controller belongs to a secondary GIC. Only the MSI controllers of the root GIC are
    /// used.
    #[error("it belongs to a secondary GIC, and only controllers of the root GIC are used")]
    SecondaryGic,
    /// Firmware does not specify the address of the controller's registers.
    #[error("firmware does not state the address of its registers")]
    NoRegisters,
    /// The controller requires a GICv3, but the root controller is a GICv2.
    #[error("it needs a GICv3, and this machine has a GICv2")]
    NeedsGicV3,
    /// No driver supports this kind of controller.
    #[error("no driver exists for its kind")]
    Foreign,
    /// The feature that includes the controller's driver is disabled.
    #[error("this build does not include the driver for this kind of controller")]
    NotBuilt,
    /// LPIs cannot be used.
    #[error(transparent)]
    Lpis(#[from] LpiError),
    /// The ITS driver failed.
    #[error(transparent)]
    Its(#[from] ProbeError),
    /// The direct-LPI driver failed.
    #[cfg(feature = "direct-lpi")]
    #[error(transparent)]
    DirectLpi(#[from] DirectLpiError),
    /// The driver for SPIs that messages signal failed (message-based SPIs, GICv2m, MIP).
    #[error(transparent)]
    Spis(#[from] SpiError),
    /// Firmware does not state what the driver needs: a bridge's lines at the root GIC, or a MIP's
    /// SPIs and message.
    #[error("firmware does not state its interrupts at the root GIC")]
    NoInterrupts,
    /// No address below 4 GiB is free for the messages of a host bridge's functions.
    #[error("no address below 4 GiB is free for its messages")]
    NoDoorbell,
    /// The driver for controllers inside host bridges failed.
    #[cfg(feature = "bridge-msi")]
    #[error(transparent)]
    BridgeMsi(#[from] BridgeMsiError),
    /// A line of a controller inside a host bridge cannot be requested.
    #[error("its line cannot be requested: {0}")]
    Line(#[from] RequestError),
    /// There was not enough memory to describe the controller.
    #[error("no memory for its description")]
    NoMemory,
}

impl From<TryReserveError> for ControllerError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

/// Reason why a device has no MSI parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoParent {
    /// Firmware does not route the device's messages to an MSI controller.
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    /// Firmware routes the device's messages to an unused controller.
    #[error("the MSI controller that firmware names is not in use: {1}")]
    NotInUse(ControllerIndex, ControllerError),
    /// There was not enough memory to describe the device's bus.
    #[error("no memory for the description of the device's bus")]
    NoMemory,
}

impl From<TryReserveError> for NoParent {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

/// A driver of an interrupt controller that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The GIC driver failed.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// An ITS failed.
    #[error(transparent)]
    Its(#[from] ItsError),
    /// The direct-LPI driver failed.
    #[error(transparent)]
    DirectLpi(MsiError),
    /// No MSI controller sends the LPI.
    #[error("no MSI controller sends {0}")]
    NotMapped(Lpi),
}

impl DriverError {
    const fn name(self) -> &'static str {
        match self {
            Self::Gic(_) => "the GIC",
            Self::Its(_) => "an ITS",
            Self::DirectLpi(_) | Self::NotMapped(_) => "direct LPIs",
        }
    }
}

/// Reason why a CPU could not be turned on or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// The call was made on a CPU other than the one to be turned on.
    #[error("CPU {expected} is to be turned on, but CPU {found} is executing")]
    OtherCpu {
        /// Affinity of the CPU to be turned on.
        expected: Affinity,
        /// Affinity of the calling CPU.
        found: Affinity,
    },
    /// A driver failed: that of the GIC, that of direct LPIs, or that of an ITS, which can't reach
    /// the CPU or can't move the CPU's events elsewhere.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The interrupt core was created for fewer CPUs.
    #[error(transparent)]
    Unknown(#[from] UnknownCpu),
    /// Some interrupts could not be moved to other CPUs; the value is their number. The CPU stays
    /// on.
    #[error("{0} interrupts could not be moved away, and the CPU stays on")]
    Stranded(usize),
}

/// Reason why the interrupt controllers were not suspended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuspendError {
    /// Another CPU still takes interrupts. Nothing was changed.
    #[error("CPU {0} is still on, and nothing was suspended")]
    CpuIsOn(Cpu),
    /// The CPU is not on, or there was no memory for the saved state. Nothing was changed.
    #[error("{0}; nothing was suspended")]
    Refused(GicError),
    /// A step failed. Every controller that was already stopped has been restarted.
    #[error("{0}; all controllers have been restarted")]
    Undone(DriverError),
    /// A step failed, and some controllers that were already stopped could not be restarted.
    #[error("{step} did not stop, and the suspend could not be undone: {left}")]
    NotUndone {
        /// Name of the controller that failed to stop.
        step: &'static str,
        /// Controllers that no longer work.
        left: ResumeError,
    },
}

impl SuspendError {
    /// Returns the error for a suspend that failed with `cause`. `undone` is the result of undoing
    /// the earlier steps of the suspend.
    pub(crate) fn after_undo(cause: DriverError, undone: Result<(), ResumeError>) -> Self {
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
        /// Saved state for another attempt.
        suspended: Suspended,
    },
    /// The GIC was restored, but `failed` other controllers were not.
    /// [`Its::resume`](gic_driver::Its::resume) and
    /// [`DirectLpi::cpu_on`](gic_driver::DirectLpi::cpu_on) may be retried.
    #[error("{first}; {failed} MSI controllers were not resumed, all others were")]
    Controllers {
        /// The first failure.
        first: DriverError,
        /// Number of controllers that failed.
        failed: usize,
    },
}

/// State saved from stopped interrupt controllers, consumed by
/// [`Irqchip::resume`](crate::Irqchip::resume).
#[must_use = "no interrupt is signaled before `Irqchip::resume`"]
pub struct Suspended {
    pub(crate) cpu: Cpu,
    pub(crate) stopped: Stopped,
    pub(crate) gic: SavedGic,
}

pub(crate) enum SavedGic {
    V3(gic::Suspended),
    V2(Box<[Option<SuspendedV2>; 1]>),
}

/// Controllers that the current suspend has already stopped.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stopped {
    /// Number of stopped ITSes, counted in the order of
    /// [`Irqchip::controllers`](crate::Irqchip::controllers).
    pub(crate) itses: usize,
    pub(crate) direct_lpi: bool,
}

msi_types::debug_by!(Suspended as "Suspended", |it| {cpu: it.cpu});
