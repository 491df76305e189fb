//! The other registers in the doorbell page, and attacks on them by a hostile device.

use super::hostile_device::HostileDevice;
use crate::system::{Device, System};
use doorbell_hardware::bus::AccessWidth;
use doorbell_hardware::iommu::GRANULE;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::{Lpi, gicd, gicr};
use gic_firmware::ControllerKind;
use msi_types::MsiMessage;

/// A register that changed although its driver didn't write to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overwritten {
    /// Architectural name of the register.
    pub register: &'static str,
    /// Value before the attack.
    pub before: u64,
    /// Value after the attack.
    pub after: u64,
}

/// A register's name and the value that a CPU reads from it.
pub(super) type Reading = (&'static str, u64);

/// Number of INTID bits in the attacker's tables, the minimum for LPIs.
const ID_BITS: u8 = 14;
/// Configuration byte of an LPI that is enabled, at the priority that the drivers use.
const ENABLED: u32 = 0xa1;
/// Alignment of the pending table. The alignment exceeds the size of either table.
const TABLE: u64 = 0x1_0000;

/// Reads the registers in the doorbell page that configure the controller of `device`.
pub(super) fn read(system: &System, device: &Device, page: u64) -> Vec<Reading> {
    let registers: &[_] =
        match system.description.controller(device.config.controller).map(|it| &it.kind) {
            Some(ControllerKind::DirectLpi) => &[
                ("GICR_CTLR", gicr::CTLR.offset(), AccessWidth::Word),
                ("GICR_PROPBASER", gicr::PROPBASER.offset(), AccessWidth::Double),
                ("GICR_PENDBASER", gicr::PENDBASER.offset(), AccessWidth::Double),
            ],
            Some(ControllerKind::Mbi) => &[("GICD_CTLR", gicd::CTLR.offset(), AccessWidth::Word)],
            _ => &[],
        };
    let bus = system.platform.cpu_bus();
    registers
        .iter()
        .map(|(name, at, width)| (*name, bus.read(page + u64::from(*at), *width)))
        .collect()
}

pub(super) fn changed(before: Vec<Reading>, after: &[Reading]) -> Vec<Overwritten> {
    let both = before.into_iter().zip(after);
    let changes = both.filter(|((_, before), (_, after))| before != after);
    changes
        .map(|((register, before), (_, after))| Overwritten { register, before, after: *after })
        .collect()
}

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
