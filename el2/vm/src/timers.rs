//! PPIs of EL1's timers, on the machine and in guests: those of the Base System Architecture (DEN
//! 0094).

use gic_arch::IntId;

/// PPI of the virtual timer.
pub const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("16 PPIs exist");
/// PPI of the physical timer.
pub const PHYSICAL_TIMER: IntId = IntId::ppi(14).expect("16 PPIs exist");
pub(crate) const TIMERS: [IntId; 2] = [VIRTUAL_TIMER, PHYSICAL_TIMER];
