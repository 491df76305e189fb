//! Saved attributes, in the order in which they must be restored (`arm-vgic-its.rst`, "ITS Restore
//! Sequence"; `arm-vgic-v3.rst`).

use crate::abi::{Attribute, LINE_LEVEL, control};
use crate::register::{KvmAttributes, KvmDevice, KvmError, KvmRegister};
use core::ops::Range;
use gic_arch::{Affinity, IntId, IntIdField, gicd, gicr, gits, icc};
use vgic::VgicConfig;

/// Iterates over all attributes in the state of a machine with `its` ITSes.
pub(super) fn saved(
    config: &VgicConfig,
    its: usize,
) -> impl Iterator<Item = (KvmDevice, Attribute)> + use<'_> {
    let affinities = config.cpus.iter().map(|cpu| cpu.affinity);
    ordered(affinities, config.spis, config.lpi_id_bits.is_some(), its)
}

/// Iterates over all attributes in the state of a machine with LPIs.
pub(super) fn saved_of(
    affinities: impl Iterator<Item = Affinity> + Clone,
    spis: u32,
    its: usize,
) -> impl Iterator<Item = (KvmDevice, Attribute)> {
    ordered(affinities, spis, true, its)
}

fn ordered(
    affinities: impl Iterator<Item = Affinity> + Clone,
    spis: u32,
    lpis: bool,
    its_count: usize,
) -> impl Iterator<Item = (KvmDevice, Attribute)> {
    let shared = 32..32 + spis;
    let first = affinities.clone().next().unwrap_or_default();
    let redistributors = affinities.clone().flat_map(move |cpu| redistributor(cpu, lpis));
    let lines = shared.clone().step_by(32).map(move |intid| levels(first, intid));
    let interfaces = affinities.flat_map(|cpu| {
        let of = move |register| Attribute::SystemRegister { cpu, register };
        core::iter::once(levels(cpu, 0)).chain(INTERFACE.iter().copied().map(of))
    });
    let gic = distributor(shared).chain(redistributors).chain(lines).chain(interfaces);
    let all_its = (0..its_count)
        .flat_map(|index| its().map(move |attribute| (KvmDevice::Its(index), attribute)));
    gic.map(|attribute| (KvmDevice::Gic, attribute)).chain(all_its)
}

/// Restores an attribute: first reads an ITS's tables if the attribute enables the ITS, and clears
/// the bits of a register that only sets bits.
pub(super) fn restore(
    devices: &mut dyn KvmAttributes,
    KvmRegister { device, attribute, value }: KvmRegister,
) -> Result<(), KvmError> {
    let tables = needs_tables(attribute).then_some((ITS_RESTORE_TABLES, 0));
    let cleared = cleared_by(attribute);
    for (attribute, value) in tables.into_iter().chain(cleared).chain([(attribute, value)]) {
        let written = devices.set(device, attribute, value);
        written.map_err(|errno| KvmError::new(device, attribute, errno))?;
    }
    Ok(())
}

const ITS_RESTORE_TABLES: Attribute = Attribute::Control(control::ITS_RESTORE_TABLES);

/// Returns `true` if the tables must be read from guest memory immediately before this attribute is
/// written.
fn needs_tables(attribute: Attribute) -> bool {
    attribute == Attribute::Its { offset: gits::CTLR.offset().into() }
}

/// Returns, for a set-enable or set-active register, the corresponding clear register and the value
/// that clears all of its bits.
fn cleared_by(attribute: Attribute) -> Option<(Attribute, u64)> {
    const ALL: u64 = 0xffff_ffff;
    let other = |pairs: [(IntIdField, IntIdField); 2], offset: u32| {
        let mut found = pairs.into_iter().filter(|(set, _)| set.fields_at(offset).is_some());
        found.next().map(|(set, clear)| offset - set.offset() + clear.offset())
    };
    match attribute {
        Attribute::Distributor { offset } => {
            let pairs = [(gicd::ISENABLER, gicd::ICENABLER), (gicd::ISACTIVER, gicd::ICACTIVER)];
            other(pairs, offset).map(|offset| (Attribute::Distributor { offset }, ALL))
        }
        Attribute::Redistributor { cpu, offset } => {
            let pairs = [(gicr::ISENABLER, gicr::ICENABLER), (gicr::ISACTIVER, gicr::ICACTIVER)];
            other(pairs, offset).map(|offset| (Attribute::Redistributor { cpu, offset }, ALL))
        }
        _ => None,
    }
}

/// Returns the bits of an attribute that describe a machine or the moment of the save. A restore
/// may ignore them.
pub(super) fn described_by(attribute: Attribute) -> u64 {
    match attribute {
        // PRIbits, IDbits, SEIS, A3V, RSS and ExtRange.
        Attribute::SystemRegister { register, .. } if register == icc::CTLR.encoding() => 0xcff00,
        Attribute::Its { offset } if offset == u64::from(gits::CTLR.offset()) => {
            gits::Ctlr::new().with_quiescent(true).into_bits().into()
        }
        // `GICR_PENDBASER.PTZ` reads as zero.
        Attribute::Redistributor { offset, .. } if offset == gicr::PENDBASER.offset() + 4 => {
            gicr::Pendbaser::new().with_pending_table_zero(true).into_bits() >> 32
        }
        _ => 0,
    }
}

fn distributor(intids: Range<u32>) -> impl Iterator<Item = Attribute> {
    // KVM doesn't signal interrupts that become pending while the distributor is disabled.
    let first = [gicd::IIDR.offset(), gicd::CTLR.offset()];
    let routes = intids.clone().filter_map(|intid| gicd::irouter(IntId::new(intid)));
    let routes = routes.flat_map(|route| [route.offset(), route.offset() + 4]);
    let fields = [
        gicd::IGROUPR,
        gicd::ISENABLER,
        gicd::ICFGR,
        gicd::IPRIORITYR,
        gicd::ISPENDR,
        gicd::ISACTIVER,
    ];
    let fields = fields.into_iter().flat_map(move |field| registers(field, intids.clone()));
    let offsets = first.into_iter().chain(routes).chain(fields);
    offsets.map(|offset| Attribute::Distributor { offset })
}

/// Iterates over a redistributor's attributes. The table registers must precede the register that
/// enables LPIs.
fn redistributor(cpu: Affinity, lpis: bool) -> impl Iterator<Item = Attribute> {
    let tables = [gicr::PROPBASER.offset(), gicr::PENDBASER.offset()];
    let tables = tables.into_iter().filter(move |_| lpis).flat_map(|offset| [offset, offset + 4]);
    let fields = [
        gicr::IGROUPR,
        gicr::ISENABLER,
        gicr::ICFGR,
        gicr::IPRIORITYR,
        gicr::ISPENDR,
        gicr::ISACTIVER,
    ];
    let fields = fields.into_iter().flat_map(|field| registers(field, 0..32));
    let offsets = tables.chain(fields).chain([gicr::CTLR.offset()]);
    offsets.map(move |offset| Attribute::Redistributor { cpu, offset })
}

/// Iterates over the offsets of the registers that have a field for these interrupts.
fn registers(field: IntIdField, intids: Range<u32>) -> impl Iterator<Item = u32> {
    let located = intids.filter_map(move |intid| field.locate(IntId::new(intid)));
    let mut last = None;
    located
        .map(|field| field.register().offset())
        .filter(move |offset| last.replace(*offset) != Some(*offset))
}

fn levels(cpu: Affinity, first: u32) -> Attribute {
    Attribute::Levels { cpu, info: LINE_LEVEL, first: u16::try_from(first).unwrap_or_default() }
}

/// Attributes of a CPU interface. `CTLR` must come first, because it determines whether both groups
/// use one binary point.
const INTERFACE: &[icc::SysRegEncoding] = &[
    icc::SRE.encoding(),
    icc::CTLR.encoding(),
    icc::PMR.encoding(),
    icc::BPR0.encoding(),
    icc::BPR1.encoding(),
    icc::AP0R0.encoding(),
    icc::AP1R0.encoding(),
    icc::IGRPEN0.encoding(),
    icc::IGRPEN1.encoding(),
];

/// Iterates over an ITS's attributes. The queue's base must precede its offsets, because writing it
/// clears them. The enable must come last, after the tables.
fn its() -> impl Iterator<Item = Attribute> {
    let first = [gits::IIDR.offset(), gits::CBASER.offset()];
    let tables = gits::BASER.iter().map(gic_arch::Reg::offset);
    let last = [gits::CWRITER.offset(), gits::CREADR.offset(), gits::CTLR.offset()];
    let offsets = first.into_iter().chain(tables).chain(last);
    offsets.map(|offset| Attribute::Its { offset: offset.into() })
}
