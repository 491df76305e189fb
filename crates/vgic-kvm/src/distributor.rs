//! Attributes for the distributor registers.

use crate::abi::Errno;
use crate::interrupts;
use crate::word::half;
use gic_arch::gicd::{self, Ctlr};
use gic_arch::{IntId, id};
use vgic::saved_state::DistributorState;

/// Value of `GICD_STATUSR`. `GICR_STATUSR` reads as zero.
const STATUS: u32 = u32::MAX;
/// Value of `GICD_PIDR2` and `GICR_PIDR2`. The value identifies a GICv3.
pub(super) const PIDR2: u32 = 0x3b;
/// Mask of Aff2, Aff1 and Aff0 in the low half of `GICD_IROUTER<n>`.
const AFFINITY: u32 = 0x00ff_ffff;

/// Reads the register, or half of a register, at `offset`.
pub(crate) fn get(state: &DistributorState, offset: u32) -> u32 {
    match offset {
        _ if offset == gicd::CTLR.offset() => state.ctlr,
        _ if offset == gicd::TYPER.offset() => state.typer,
        _ if offset == gicd::IIDR.offset() => state.iidr,
        _ if offset == gicd::STATUSR.offset() => STATUS,
        _ if offset == id::PIDR2.offset() => PIDR2,
        _ => route(state, offset)
            .or_else(|| interrupts::get(interrupts::DISTRIBUTOR, &state.interrupts, offset))
            .unwrap_or(0),
    }
}

/// Writes the register, or half of a register, at `offset`.
pub(crate) fn set(state: &mut DistributorState, offset: u32, word: u32) -> Result<(), Errno> {
    match offset {
        _ if offset == gicd::CTLR.offset() => {
            // KVM has a single enable, so it can't forward Group 0 without Group 1.
            let written = Ctlr::from(word);
            let both = written.enable_grp0() && written.enable_grp1();
            state.ctlr = Ctlr::from(state.ctlr)
                .with_enable_grp0(both)
                .with_enable_grp1(written.enable_grp1())
                .with_e1nwf(written.e1nwf())
                .into_bits();
        }
        // Any other value belongs to a different machine or revision, and the guest could observe
        // the difference.
        _ if offset == gicd::IIDR.offset() && word != state.iidr => return Err(Errno::Invalid),
        _ if offset == gicd::IIDR.offset() => {}
        _ => {
            if set_route(state, offset, word).is_none() {
                interrupts::set(interrupts::DISTRIBUTOR, &mut state.interrupts, offset, word);
            }
        }
    }
    Ok(())
}

/// Returns the half of `GICD_IROUTER<n>` at `offset`, or `None` if `offset` is not in the route
/// register of an existing SPI.
fn route(state: &DistributorState, offset: u32) -> Option<u32> {
    let (intid, register) = routed(offset)?;
    let at = state.interrupts.binary_search_by_key(&intid, |interrupt| interrupt.intid).ok()?;
    Some(half(state.interrupts.get(at)?.route, register, offset))
}

/// Writes the half of `GICD_IROUTER<n>` at `offset`. `Aff3` stays zero, and a route always has
/// exactly one target PE.
fn set_route(state: &mut DistributorState, offset: u32, word: u32) -> Option<()> {
    let (intid, register) = routed(offset)?;
    let at = state.interrupts.binary_search_by_key(&intid, |interrupt| interrupt.intid).ok()?;
    let interrupt = state.interrupts.get_mut(at)?;
    if offset == register {
        (interrupt.route, interrupt.chosen) = ((word & AFFINITY).into(), None);
    }
    Some(())
}

/// Returns the interrupt whose route register contains `offset`, and the offset of that register.
fn routed(offset: u32) -> Option<(IntId, u32)> {
    let index = gicd::IROUTER.info("").index_of(offset).filter(|_| offset.is_multiple_of(4))?;
    Some((IntId::new(index), gicd::IROUTER.get(index)?.offset()))
}
