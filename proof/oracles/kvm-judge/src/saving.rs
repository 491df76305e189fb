//! Saves and restores state through attributes, in the order that KVM's documentation requires
//! (`Documentation/virt/kvm/devices/arm-vgic-its.rst`, "ITS Restore Sequence"; `arm-vgic-v3.rst`).

use crate::layout::INTERRUPTS;
use crate::machine::affinities;
use crate::memory::rows;
use crate::{Failure, Machine, Snapshot};
use gic_arch::{Affinity, IntId, gicd, gicr, gits, icc};
use vgic::GuestMemory as _;
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, LINE_LEVEL, control};

const ITSES: [KvmDevice; 2] = [KvmDevice::Its(0), KvmDevice::Its(1)];

/// Saves a machine's GIC. The vCPUs must not be running.
pub fn save(machine: &mut dyn Machine) -> Result<Snapshot, Failure> {
    for its in ITSES {
        command(machine, its, control::ITS_SAVE_TABLES)?;
    }
    command(machine, KvmDevice::Gic, control::SAVE_PENDING_TABLES)?;
    let mut attributes = Vec::new();
    for (device, attribute) in saved() {
        let value = machine
            .get(device, attribute)
            .map_err(|errno| format!("get {attribute:x?}: {errno}"))?;
        attributes.push((device, attribute, value));
    }
    Ok(Snapshot { attributes, memory: rows(machine.ram())? })
}

/// Restores the GIC's state on a new machine.
pub fn restore(machine: &mut dyn Machine, snapshot: &Snapshot) -> Result<(), Failure> {
    for (address, bytes) in &snapshot.memory {
        machine.ram().write(*address, bytes)?;
    }
    let enable = Attribute::Its { offset: gits::CTLR.offset().into() };
    for (device, attribute, value) in &snapshot.attributes {
        if *attribute == enable {
            command(machine, *device, control::ITS_RESTORE_TABLES)?;
        }
        let set = |machine: &mut dyn Machine, attribute: Attribute, value: u64| {
            let outcome = machine.set(*device, attribute, value);
            outcome.map_err(|errno| format!("set {attribute:x?} to {value:#x}: {errno}"))
        };
        if let Some(clear) = cleared_by(*attribute) {
            set(machine, clear, 0xffff_ffff)?;
        }
        set(machine, *attribute, *value)?;
    }
    Ok(())
}

/// If `attribute` is a register in which writing ones sets bits and zeros have no effect, returns
/// the register that clears the same bits. The clearing register is 0x80 bytes above the setting
/// one.
fn cleared_by(attribute: Attribute) -> Option<Attribute> {
    let sets = |offset: u32| matches!(offset, 0x100..0x180 | 0x300..0x380);
    match attribute {
        Attribute::Distributor { offset } if sets(offset) => {
            Some(Attribute::Distributor { offset: offset + 0x80 })
        }
        Attribute::Redistributor { cpu, offset } if sets(offset.wrapping_sub(gicr::SGI_BASE)) => {
            Some(Attribute::Redistributor { cpu, offset: offset + 0x80 })
        }
        _ => None,
    }
}

fn command(machine: &mut dyn Machine, device: KvmDevice, command: u64) -> Result<(), Failure> {
    let control = Attribute::Control(command);
    machine
        .set(device, control, 0)
        .map_err(|errno| format!("{device:?}'s {control:?}: {errno}").into())
}

/// Returns all attributes to save, in the order in which they must be restored.
pub fn saved() -> Vec<(KvmDevice, Attribute)> {
    let mut saved: Vec<_> =
        distributor().into_iter().map(|offset| Attribute::Distributor { offset }).collect();
    for cpu in affinities() {
        saved.extend(
            redistributor().into_iter().map(|offset| Attribute::Redistributor { cpu, offset }),
        );
    }
    saved.extend((32..INTERRUPTS).step_by(32).map(|first| levels(Affinity::default(), first)));
    for cpu in affinities() {
        saved.push(levels(cpu, 0));
        saved
            .extend(system_registers().map(|register| Attribute::SystemRegister { cpu, register }));
    }
    let gic = saved.into_iter().map(|attribute| (KvmDevice::Gic, attribute));
    let of = |device| its().into_iter().map(move |offset| (device, Attribute::Its { offset }));
    gic.chain(ITSES.into_iter().flat_map(of)).collect()
}

fn levels(cpu: Affinity, first: u32) -> Attribute {
    Attribute::Levels { cpu, info: LINE_LEVEL, first: u16::try_from(first).unwrap_or_default() }
}

fn distributor() -> Vec<u32> {
    // Restore the enable bits first: KVM doesn't signal an interrupt that became pending while it
    // was disabled.
    let mut offsets = vec![gicd::IIDR.offset(), gicd::CTLR.offset(), gicd::STATUSR.offset()];
    for intid in 32..INTERRUPTS {
        let route =
            gicd::irouter(IntId::new(intid)).map(|route| [route.offset(), route.offset() + 4]);
        offsets.extend(route.into_iter().flatten());
    }
    let state = [
        gicd::IGROUPR,
        gicd::ISENABLER,
        gicd::ICFGR,
        gicd::IPRIORITYR,
        gicd::ISPENDR,
        gicd::ISACTIVER,
    ];
    for field in state {
        offsets.extend(registers(field, 32..INTERRUPTS));
    }
    offsets
}

fn redistributor() -> Vec<u32> {
    let halves = |offset| [offset, offset + 4];
    let mut offsets = vec![gicr::WAKER.offset()];
    offsets.extend(halves(gicr::PROPBASER.offset()));
    offsets.extend(halves(gicr::PENDBASER.offset()));
    let fields = [
        gicr::IGROUPR,
        gicr::ISENABLER,
        gicr::ICFGR,
        gicr::IPRIORITYR,
        gicr::ISPENDR,
        gicr::ISACTIVER,
    ];
    for field in fields {
        offsets.extend(registers(field, 0..32));
    }
    offsets.push(gicr::CTLR.offset());
    offsets
}

/// Returns the offsets of all 32-bit registers that have a field for one of these INTIDs.
fn registers(field: gic_arch::IntIdField, intids: std::ops::Range<u32>) -> Vec<u32> {
    let located = intids.filter_map(|intid| field.locate(IntId::new(intid)));
    let mut offsets: Vec<_> = located.map(|place| place.register().offset()).collect();
    offsets.dedup();
    offsets
}

fn system_registers() -> impl Iterator<Item = icc::SysRegEncoding> {
    let control = [icc::SRE.encoding(), icc::CTLR.encoding()];
    let masks = [icc::PMR, icc::BPR0, icc::BPR1, icc::AP0R0, icc::AP1R0].map(icc::SysReg::encoding);
    let groups = [icc::IGRPEN0, icc::IGRPEN1].map(icc::SysReg::encoding);
    control.into_iter().chain(masks).chain(groups)
}

fn its() -> Vec<u64> {
    let mut offsets = vec![gits::IIDR.offset(), gits::CBASER.offset()];
    offsets.extend(gits::BASER.iter().map(gic_arch::Reg::offset));
    offsets.extend([gits::CWRITER.offset(), gits::CREADR.offset(), gits::CTLR.offset()]);
    offsets.into_iter().map(u64::from).collect()
}
