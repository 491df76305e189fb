//! Attributes for the ITS registers.

use crate::abi::Errno;
use crate::word::low_word;
use gic_arch::gits::{self, Baser, Cbaser, Creadr, Ctlr, Cwriter};
use gic_arch::{Iidr, id};
use vgic::its::ItsConfig;
use vgic::saved_state::ItsState;

/// Registers that have attributes.
enum Which {
    Ctlr,
    Iidr,
    Typer,
    Cbaser,
    Cwriter,
    Creadr,
    Baser(usize),
    Identification(usize),
}

impl Which {
    /// Returns the register at `offset`. Fails with `EINVAL` if the offset is misaligned, and with
    /// `ENXIO` if no register exists there.
    fn at(offset: u64) -> Result<Self, Errno> {
        let word = offset < u64::from(gits::TYPER.offset()) || offset >= IDENTIFICATION;
        if !offset.is_multiple_of(if word { 4 } else { 8 }) {
            return Err(Errno::Invalid);
        }
        let offset = u32::try_from(offset).map_err(|_| Errno::NoRegister)?;
        let index = |within: u32, bytes: u32| usize::try_from(within / bytes).unwrap_or(usize::MAX);
        let baser = gits::BASER.info("");
        let identification = id::REGISTERS.info("");
        Ok(match offset {
            _ if offset == gits::CTLR.offset() => Self::Ctlr,
            _ if offset == gits::IIDR.offset() => Self::Iidr,
            _ if offset == gits::TYPER.offset() => Self::Typer,
            _ if offset == gits::CBASER.offset() => Self::Cbaser,
            _ if offset == gits::CWRITER.offset() => Self::Cwriter,
            _ if offset == gits::CREADR.offset() => Self::Creadr,
            _ if (baser.offset..baser.end()).contains(&offset) => {
                Self::Baser(index(offset - baser.offset, 8))
            }
            _ if (identification.offset..identification.end()).contains(&offset) => {
                Self::Identification(index(offset - identification.offset, 4))
            }
            _ => return Err(Errno::NoRegister),
        })
    }
}

/// Offset of the identification registers, which are 32 bits wide.
const IDENTIFICATION: u64 = 0xffd0;
/// Values of the identification registers, starting at `GITS_PIDR4`.
const IDENTIFICATIONS: [u64; 12] = [0x40, 0, 0, 0, 0x92, 0xb4, 0x3b, 0, 0x0d, 0xf0, 0x05, 0xb1];

/// Checks that a register exists at `offset`.
pub(super) fn check_offset(offset: u64) -> Result<(), Errno> {
    Which::at(offset).map(drop)
}

pub(super) fn get(state: &ItsState, offset: u64) -> Result<u64, Errno> {
    Ok(match Which::at(offset)? {
        Which::Ctlr => {
            let idle = Creadr::from_bits(state.creadr).offset()
                == Cwriter::from_bits(state.cwriter).offset();
            Ctlr::from(state.ctlr).with_quiescent(idle).into_bits().into()
        }
        Which::Iidr => state.iidr.into(),
        Which::Typer => state.typer,
        Which::Cbaser => state.cbaser,
        Which::Cwriter => state.cwriter,
        Which::Creadr => state.creadr,
        Which::Baser(index) => state.baser.get(index).copied().unwrap_or(0),
        Which::Identification(index) => IDENTIFICATIONS.get(index).copied().unwrap_or(0),
    })
}

pub(super) fn set(
    state: &mut ItsState,
    config: &ItsConfig,
    offset: u64,
    value: u64,
) -> Result<(), Errno> {
    let enabled = Ctlr::from(state.ctlr).enabled();
    let queue_bytes = Cbaser::from_bits(state.cbaser).bytes();
    match Which::at(offset)? {
        Which::Ctlr => set_ctlr(state, Ctlr::from(low_word(value)).enabled()),
        // The revision selects the table format; only revision 0 exists.
        Which::Iidr if Iidr::from(low_word(value)).revision() != 0 => {
            return Err(Errno::Invalid);
        }
        Which::Cbaser if !enabled => {
            state.cbaser = accepted_cbaser(value);
            (state.creadr, state.cwriter) = (0, 0);
        }
        Which::Cwriter => {
            let offset = Cwriter::from_bits(value).offset();
            if offset < queue_bytes {
                state.cwriter = Cwriter::at_offset(offset).into_bits();
            }
        }
        Which::Creadr => {
            let offset = Creadr::from_bits(value).offset();
            match (enabled, offset < queue_bytes) {
                (true, _) => return Err(Errno::Busy),
                (false, false) => return Err(Errno::Invalid),
                (false, true) => state.creadr = Creadr::at_offset(offset).into_bits(),
            }
        }
        Which::Baser(index) if !enabled => set_baser(state, config, index, value),
        Which::Iidr | Which::Cbaser | Which::Typer | Which::Baser(_) | Which::Identification(_) => {
        }
    }
    Ok(())
}

/// Writes `GITS_CTLR`. Without a queue and both tables, the ITS can't be enabled.
fn set_ctlr(state: &mut ItsState, enable: bool) {
    let [devices, collections, ..] = state.baser.map(Baser::from_bits);
    let complete =
        Cbaser::from_bits(state.cbaser).valid() && devices.valid() && collections.valid();
    let was = Ctlr::from(state.ctlr).enabled();
    let enabled = enable && (was || complete);
    state.ctlr = Ctlr::new().with_enabled(enabled).with_quiescent(!enabled).into_bits();
}

/// Returns the value that `GITS_CBASER` accepts. The queue is aligned to 64 KiB.
fn accepted_cbaser(value: u64) -> u64 {
    let written = Cbaser::from_bits(value);
    Cbaser::new()
        .with_pages_minus_one(written.pages_minus_one())
        .with_shareability(written.shareability())
        .with_address(written.address() & !0xffff)
        .with_outer_cache(written.outer_cache())
        .with_inner_cache(written.inner_cache())
        .with_valid(written.valid())
        .into_bits()
}

/// Writes `GITS_BASER<index>`. Clearing `Valid` also removes the table's mappings.
fn set_baser(state: &mut ItsState, config: &ItsConfig, index: usize, value: u64) {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let accepted = config.accepted_baser(number, Baser::from_bits(value));
    if let Some(register) = state.baser.get_mut(index) {
        *register = accepted.into_bits();
    }
    match index {
        0 if !accepted.valid() => state.devices.clear(),
        1 if !accepted.valid() => state.collections.clear(),
        _ => {}
    }
}

/// Returns `true` if an enabled ITS has executed commands, but has no collection and no event. A
/// guest can do this, but in most cases, its memory was copied before the tables were saved.
pub(super) fn has_lost_mappings(state: &ItsState) -> bool {
    let has_moved = state.creadr != 0 || state.cwriter != 0;
    let is_empty = state.devices.iter().all(|device| device.events.is_empty());
    Ctlr::from(state.ctlr).enabled() && has_moved && state.collections.is_empty() && is_empty
}

/// Resets the ITS to its state after creation. The table registers keep their fields other than
/// `Valid`.
pub(super) fn reset(state: &mut ItsState) {
    state.ctlr = Ctlr::new().with_quiescent(true).into_bits();
    (state.cbaser, state.creadr, state.cwriter) = (0, 0, 0);
    for register in &mut state.baser {
        *register = Baser::from_bits(*register).with_valid(false).into_bits();
    }
    state.devices.clear();
    state.collections.clear();
}
