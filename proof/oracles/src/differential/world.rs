//! The configurations in which the machines are compared. They differ in the number of security
//! states and in the activity of the CPUs.

use super::address_map::CPUS;
use super::family::Family;
use crate::qtest::virt;
use gic_arch::IntId;
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

    /// Returns the model's configuration. Priorities are limited to the bits that QEMU's CPU
    /// interfaces implement; QEMU's distributor stores more bits.
    pub(super) fn model(self) -> VgicConfig {
        match self {
            Self::Stopped => virt(CPUS),
            Self::Running => virt(CPUS).with_priority_bits(PRIORITY_BITS),
            Self::NonSecure => Self::Running
                .model()
                .with_security(SecurityView::NonSecure)
                .with_secure_interrupts(SECURE.map(IntId::new).to_vec()),
        }
    }
}
