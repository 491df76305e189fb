//! The configurations in which the machines are compared: security states, and activity of CPUs.

use super::address_map::CPUS;
use super::family::Family;
use doorbell_qtest::virt;
use gic_arch::IntId;
use vgic::{SecurityView, VgicConfig};

/// Configuration of both machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// One security state; CPUs stand still.
    Stopped,
    /// One security state; CPUs take interrupts, and acknowledge them when they are told to.
    Running,
    /// The Non-secure view of two security states; CPUs as before.
    NonSecure,
}

/// Interrupts that the Secure side keeps, of every CPU: SGIs and SPIs of Group 0, PPIs and SPIs of
/// Secure Group 1.
pub(super) const SECURE: [u32; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 28, 29, 30, 31, 40, 41, 42, 43];

/// Of the CPU interface of QEMU's Cortex-A57.
const PRIORITY_BITS: u8 = 5;

impl World {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stopped, Self::Running, Self::NonSecure];

    /// Families of cases that are compared in it.
    pub const fn families(self) -> &'static [Family] {
        match self {
            Self::Stopped => &[Family::Wired, Family::LpiRegisters, Family::Commands],
            Self::Running => &[Family::Delivery],
            Self::NonSecure => &[Family::Wired, Family::Delivery],
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "CPUs at rest",
            Self::Running => "CPUs that take interrupts",
            Self::NonSecure => "the Non-secure view of two security states",
        }
    }

    /// The model in it. Of priorities, a distributor stores more bits than QEMU's CPU interfaces
    /// have.
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
