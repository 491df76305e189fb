//! The configurations in which the machines are compared. They differ in the number of security
//! states and in the activity of the CPUs.

use super::address_map::ITS;
use super::family::Family;
use gic_arch::IntId;
use vgic::its::{ItsConfig, PageSizes, TableLevels};
use vgic::{SecurityView, VgicConfig};

/// A configuration of both machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// One security state; the CPUs are stopped.
    Stopped,
    /// One security state; the CPUs acknowledge interrupts on request.
    Running,
    /// The Non-secure view of two security states; the CPUs acknowledge interrupts on request.
    NonSecure,
}

/// The INTIDs that belong to the Secure state: SGIs and SPIs in Group 0, and PPIs and SPIs in
/// Secure Group 1.
pub(super) const SECURE: [u32; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 28, 29, 30, 31, 40, 41, 42, 43];

/// Number of priority bits in the CPU interface of QEMU's Cortex-A57.
const PRIORITY_BITS: u8 = 5;

impl World {
    /// All worlds.
    pub const ALL: [Self; 3] = [Self::Stopped, Self::Running, Self::NonSecure];

    /// Returns the families of cases that are compared in this world.
    pub const fn families(self) -> &'static [Family] {
        match self {
            Self::Stopped => &[Family::Wired, Family::LpiRegisters, Family::Commands],
            Self::Running => &[Family::Delivery],
            Self::NonSecure => &[Family::Wired, Family::Delivery],
        }
    }

    /// Describes the world in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "CPUs at rest",
            Self::Running => "CPUs that take interrupts",
            Self::NonSecure => "the Non-secure view of two security states",
        }
    }

    /// Returns the model's configuration: the GIC of QEMU's `virt` machine. Priorities are limited
    /// to the bits that QEMU's CPU interfaces implement; QEMU's distributor stores all bits.
    pub(super) fn model(self, cpus: u16) -> VgicConfig {
        // As in QEMU, the ITS has executed the whole queue by the time the write to `GITS_CWRITER`
        // completes.
        let its = ItsConfig::new(ITS)
            .with_page_sizes(PageSizes::Any)
            .with_collection_table(Some(TableLevels::FlatOrTwo))
            .with_work_per_access(u32::MAX);
        let config = VgicConfig::new(cpus).with_lpi_id_bits(Some(16)).with_its(vec![its]);
        match self {
            Self::Stopped => config.with_priority_bits(8),
            Self::Running => config.with_priority_bits(PRIORITY_BITS),
            Self::NonSecure => config
                .with_priority_bits(PRIORITY_BITS)
                .with_security(SecurityView::NonSecure)
                .with_secure_interrupts(SECURE.map(IntId::new).to_vec()),
        }
    }
}
