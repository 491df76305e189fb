//! The other registers in the doorbell page, and attacks on them by a hostile device.

use super::hostile_device::HostileDevice;
use crate::system::System;
use doorbell_hardware::iommu::GRANULE;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::{Lpi, gicr};
use msi_types::MsiMessage;

/// Number of INTID bits in the attacker's tables, the minimum for LPIs.
const ID_BITS: u8 = 14;
/// Configuration byte of an LPI that is enabled, at the priority that the drivers use.
const ENABLED: u32 = 0xa1;
/// Alignment of the pending table. The alignment exceeds the size of either table.
const TABLE: u64 = 0x1_0000;

/// Makes the redistributor that receives the message `victim` use LPI tables in the attacker's own
/// memory. Returns `true` if the attacked device's LPI arrives while the attacker's table enables
/// it, and does not arrive while the table disables it.
pub(super) fn seize(
    system: &System,
    intruder: &HostileDevice,
    victim: MsiMessage,
    arrives: &mut dyn FnMut() -> bool,
) -> bool {
    let page = GRANULE.page(victim.address);
    let tables = system.ram.allocate(TABLE, TABLE).zip(system.ram.allocate(TABLE, TABLE));
    let (Some((configuration, pending)), Ok(lpi)) = (tables, Lpi::try_from(victim.data)) else {
        return false;
    };
    let word = |at: u64, value: u64| {
        let [low, high] =
            [value, value >> 32].map(|half| u32::try_from(half & u64::from(u32::MAX)).unwrap_or(0));
        intruder.write(MsiMessage { address: at, data: low });
        intruder.write(MsiMessage { address: at + 4, data: high });
    };
    let control = |enable| {
        let data = Ctlr::new().with_enable_lpis(enable).into();
        intruder.write(MsiMessage { address: page + u64::from(gicr::CTLR.offset()), data });
    };
    let propbaser =
        Propbaser::new().with_id_bits_minus_one(ID_BITS - 1).with_address(configuration);
    word(page + u64::from(gicr::PROPBASER.offset()), propbaser.into_bits());
    word(
        page + u64::from(gicr::PENDBASER.offset()),
        Pendbaser::new().with_address(pending).into_bits(),
    );
    control(true);
    let while_disabled = arrives();
    // Clearing EnableLPIs discards everything that the redistributor has cached from the table.
    control(false);
    // While GICR_CTLR.RWP is set, the redistributor is still writing back the pending table. IHI
    // 0069 permits setting EnableLPIs again only once RWP is clear.
    let while_off = arrives();
    let byte = configuration + u64::from(lpi.index());
    intruder.write_own(MsiMessage { address: byte & !3, data: ENABLED << (byte % 4 * 8) });
    control(true);
    !while_disabled && !while_off && arrives()
}
