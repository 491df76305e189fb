//! Attributes for the redistributor registers.

use crate::abi::Errno;
use crate::distributor::PIDR2;
use crate::interrupts;
use crate::word::{half, with_half};
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser};
use gic_arch::id;
use vgic::VgicConfig;
use vgic::saved_state::CpuState;

/// Reads the register, or half of a register, at `offset`.
pub(super) fn get(cpu: &CpuState, config: &VgicConfig, offset: u32) -> u32 {
    let state = &cpu.redistributor;
    let pendbaser = Pendbaser::from(state.pendbaser).with_pending_table_zero(false);
    if let Some((register, value)) = wide(offset, |register| match register {
        _ if register == gicr::TYPER.offset() => Some(state.typer),
        _ if register == gicr::PROPBASER.offset() => Some(state.propbaser),
        _ if register == gicr::PENDBASER.offset() => Some(pendbaser.into_bits()),
        _ => None,
    }) {
        return half(value, register, offset);
    }
    match offset {
        _ if offset == gicr::CTLR.offset() => state.ctlr,
        _ if offset == gicr::IIDR.offset() => config.iidr.into_bits(),
        _ if offset == id::PIDR2.offset() => PIDR2,
        _ => interrupts::get(interrupts::REDISTRIBUTOR, &state.interrupts, offset).unwrap_or(0),
    }
}

/// Returns the 64-bit register that contains the 32-bit word at `offset`.
fn wide<T>(offset: u32, value: impl Fn(u32) -> Option<T>) -> Option<(u32, T)> {
    let register = if offset.is_multiple_of(4) { offset & !7 } else { return None };
    value(register).map(|value| (register, value))
}

/// Writes the register, or half of a register, at `offset` of the CPU at `index`.
pub(crate) fn set(
    cpus: &mut [CpuState],
    index: usize,
    config: &VgicConfig,
    offset: u32,
    word: u32,
) -> Result<(), Errno> {
    let has_lpis = config.lpi_id_bits.is_some();
    let state = &mut cpus.get_mut(index).ok_or(Errno::Invalid)?.redistributor;
    let ctlr = Ctlr::from(state.ctlr);
    let register = offset & !7;
    let tables = [gicr::PROPBASER.offset(), gicr::PENDBASER.offset()];
    if offset.is_multiple_of(4) && tables.contains(&register) {
        if !has_lpis || ctlr.enable_lpis() {
            return Ok(());
        }
        if register == gicr::PENDBASER.offset() {
            let value = with_half(state.pendbaser, register, offset, word);
            state.pendbaser = accepted_pendbaser(value);
        } else {
            let value = accepted_propbaser(with_half(state.propbaser, register, offset, word));
            // KVM has a single `GICR_PROPBASER` for all redistributors.
            for cpu in cpus {
                cpu.redistributor.propbaser = value;
            }
        }
        return Ok(());
    }
    if offset == gicr::CTLR.offset() {
        if has_lpis {
            let enable = Ctlr::from(word).enable_lpis();
            state.ctlr = ctlr.with_enable_lpis(enable).into_bits();
            let pendbaser = Pendbaser::from(state.pendbaser);
            let promise = pendbaser.pending_table_zero() && !enable;
            state.pendbaser = pendbaser.with_pending_table_zero(promise).into_bits();
        }
    } else {
        interrupts::set(interrupts::REDISTRIBUTOR, &mut state.interrupts, offset, word);
    }
    Ok(())
}

/// Gives every redistributor the same `GICR_PROPBASER`, because KVM has only a single copy of the
/// register. The value is that of a redistributor with LPIs enabled, or else of the first
/// redistributor where the guest wrote the register. Without this step, restoring zero for a
/// redistributor that the guest hasn't brought up would remove the table for all other
/// redistributors.
pub(super) fn share_propbaser(cpus: &mut [CpuState]) {
    let of = |wanted: fn(&CpuState) -> bool| {
        cpus.iter().find(|cpu| wanted(cpu)).map(|cpu| cpu.redistributor.propbaser)
    };
    let enabled = of(|cpu| Ctlr::from(cpu.redistributor.ctlr).enable_lpis());
    if let Some(shared) = enabled.or_else(|| of(|cpu| cpu.redistributor.propbaser != 0)) {
        for cpu in cpus {
            cpu.redistributor.propbaser = shared;
        }
    }
}

/// Returns `value` with all unimplemented fields cleared.
fn accepted_propbaser(value: u64) -> u64 {
    let written = Propbaser::from(value);
    Propbaser::new()
        .with_id_bits_minus_one(written.id_bits_minus_one())
        .with_inner_cache(written.inner_cache())
        .with_shareability(written.shareability())
        .with_address(written.address())
        .with_outer_cache(written.outer_cache())
        .into_bits()
}

/// Returns `value` with all unimplemented fields cleared.
fn accepted_pendbaser(value: u64) -> u64 {
    let written = Pendbaser::from(value);
    Pendbaser::new()
        .with_inner_cache(written.inner_cache())
        .with_shareability(written.shareability())
        .with_address(written.address())
        .with_outer_cache(written.outer_cache())
        .with_pending_table_zero(written.pending_table_zero())
        .into_bits()
}
