//! Errors of a machine's first run.

use crate::abi::Errno;
use crate::register::KvmDevice;
use gic_arch::Affinity;
use vgic::ConfigError;

/// A machine cannot run as it was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvmIncomplete {
    /// A vCPU has no redistributor: no region is there, or none has room.
    #[error("CPU {0} has no redistributor: the regions have no room for it (ENXIO)")]
    NoRedistributor(Affinity),
    /// The distributor has no address.
    #[error("the distributor has no address (ENXIO)")]
    NoDistributor,
    /// Redistributors overlap with the distributor or do not fit the address space.
    #[error(
        "redistributors overlap with the distributor or reach beyond the address space (EINVAL)"
    )]
    Overlap,
    /// `INIT` did not come.
    #[error("the GICv3 was not initialised (EBUSY)")]
    NotInitialised,
    /// An ITS has no address. KVM runs such a machine, whose ITS nothing reaches.
    #[error("{0:?} has no address (ENXIO)")]
    NoItsAddress(KvmDevice),
    /// The model cannot be so, though KVM may.
    #[error("{0} (EINVAL)")]
    Config(#[from] ConfigError),
}

impl KvmIncomplete {
    /// Error number of `KVM_RUN`.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NoRedistributor(_) | Self::NoDistributor | Self::NoItsAddress(_) => {
                Errno::NoRegister
            }
            Self::Overlap | Self::Config(_) => Errno::Invalid,
            Self::NotInitialised => Errno::Busy,
        }
    }
}
