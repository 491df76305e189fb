//! Registers that show the state of interrupts in list registers.

use crate::vgic::{FrameAt, Vgic};
use gic_arch::{IntIdField, gicd, gicr};

/// Distributor arrays that show pending or active state.
const DISTRIBUTOR_STATE: &[IntIdField] = &[
    gicd::ISPENDR,
    gicd::ICPENDR,
    gicd::ISACTIVER,
    gicd::ICACTIVER,
    gicd::ISPENDR_E,
    gicd::ICPENDR_E,
    gicd::ISACTIVER_E,
    gicd::ICACTIVER_E,
];
/// Redistributor arrays that show pending or active state. Extended PPIs follow in the same arrays.
const REDISTRIBUTOR_STATE: &[IntIdField] =
    &[gicr::ISPENDR, gicr::ICPENDR, gicr::ISACTIVER, gicr::ICACTIVER];

impl Vgic {
    /// Returns `true` if a read at this address shows the pending or active state of interrupts
    /// that may be in list registers. The read returns their state at their vCPUs' last guest
    /// entries: see [`ListRegisterVcpu`](crate::ListRegisterVcpu).
    ///
    pub fn shows_listed_state(&self, address: u64) -> bool {
        let (arrays, offset) = match self.frame_at(address) {
            Some((FrameAt::Distributor, offset)) => (DISTRIBUTOR_STATE, offset),
            Some((FrameAt::Redistributor(_), offset)) => (REDISTRIBUTOR_STATE, offset),
            _ => return false,
        };
        arrays.iter().any(|array| array.fields_at(offset & !3).is_some())
    }
}
