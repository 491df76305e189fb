//! Checks for the existence of attributes (`KVM_HAS_DEVICE_ATTR`).

use crate::abi::{Attribute, Errno, LINE_LEVEL, control, frame};
use crate::{interface, its};
use gic_arch::gicr;
use gic_arch::{IntIdField, gicd, id};

/// Checks that an ITS has the attribute.
pub(super) fn its_has(attribute: Attribute) -> Result<(), Errno> {
    match attribute {
        Attribute::Address(frame::ITS)
        | Attribute::Control(
            control::INIT
            | control::ITS_SAVE_TABLES
            | control::ITS_RESTORE_TABLES
            | control::ITS_RESET,
        ) => Ok(()),
        Attribute::Its { offset } => its::check_offset(offset),
        _ => Err(Errno::NoRegister),
    }
}

/// Checks that a GICv3 with `interrupts` INTIDs below 1024 has the attribute. The caller must have
/// checked the CPU.
pub(super) fn gic_has(attribute: Attribute, interrupts: u32) -> Result<(), Errno> {
    let known = match attribute {
        Attribute::Address(number) => {
            matches!(
                number,
                frame::DISTRIBUTOR | frame::REDISTRIBUTORS | frame::REDISTRIBUTOR_REGION
            )
        }
        Attribute::Control(number) => {
            matches!(number, control::INIT | control::SAVE_PENDING_TABLES)
        }
        Attribute::InterruptCount | Attribute::MaintenanceInterrupt => true,
        Attribute::Levels { info, .. } => info == LINE_LEVEL,
        Attribute::Distributor { offset } => {
            within(DISTRIBUTOR, offset)
                || of_interrupt(offset).is_some_and(|intid| intid < interrupts)
        }
        Attribute::Redistributor { offset, .. } => within(REDISTRIBUTOR, offset),
        Attribute::SystemRegister { register, .. } => interface::has(register),
        Attribute::Its { .. } => false,
    };
    if known { Ok(()) } else { Err(Errno::NoRegister) }
}

/// Offset of a register, and its size in bytes.
type RegisterSpan = (u32, u32);

/// Distributor registers that aren't per interrupt.
const DISTRIBUTOR: &[RegisterSpan] = &[
    (gicd::CTLR.offset(), 16),
    (gicd::STATUSR.offset(), 4),
    (IDENTIFICATION, IDENTIFICATION_BYTES),
];

/// Distributor registers with a field per interrupt, except the routes.
const FIELDS: &[IntIdField] = &[
    gicd::IGROUPR,
    gicd::ISENABLER,
    gicd::ICENABLER,
    gicd::ISPENDR,
    gicd::ICPENDR,
    gicd::ISACTIVER,
    gicd::ICACTIVER,
    gicd::IPRIORITYR,
    gicd::ITARGETSR,
    gicd::ICFGR,
    gicd::IGRPMODR,
];

const REDISTRIBUTOR: &[RegisterSpan] = &[
    (gicr::CTLR.offset(), 4),
    (gicr::IIDR.offset(), 4),
    (gicr::TYPER.offset(), 8),
    (gicr::WAKER.offset(), 4),
    (gicr::PROPBASER.offset(), 8),
    (gicr::PENDBASER.offset(), 8),
    (gicr::INVLPIR.offset(), 8),
    (gicr::INVALLR.offset(), 8),
    (gicr::SYNCR.offset(), 4),
    (IDENTIFICATION, IDENTIFICATION_BYTES),
    (gicr::IGROUPR.offset(), 4),
    (gicr::ISENABLER.offset(), 4),
    (gicr::ICENABLER.offset(), 4),
    (gicr::ISPENDR.offset(), 4),
    (gicr::ICPENDR.offset(), 4),
    (gicr::ISACTIVER.offset(), 4),
    (gicr::ICACTIVER.offset(), 4),
    (gicr::IPRIORITYR.offset(), 32),
    (gicr::ICFGR.offset(), 8),
    (gicr::IGRPMODR.offset(), 4),
    (gicr::NSACR.offset(), 4),
];

const IDENTIFICATION: u32 = id::REGISTERS.info("").offset;
const IDENTIFICATION_BYTES: u32 = 48;

/// Returns `true` if one of the registers contains an aligned 32-bit word at `offset`.
fn within(spans: &[RegisterSpan], offset: u32) -> bool {
    let here = |(start, bytes): &RegisterSpan| (*start..start + bytes).contains(&offset);
    offset.is_multiple_of(4) && spans.iter().any(here)
}

/// Returns the first interrupt that has a field at this distributor offset.
fn of_interrupt(offset: u32) -> Option<u32> {
    if !offset.is_multiple_of(4) {
        return None;
    }
    let route = gicd::IROUTER.info("").index_of(offset);
    route
        .or_else(|| FIELDS.iter().find_map(|field| field.fields_at(offset)).map(|(first, _)| first))
}
