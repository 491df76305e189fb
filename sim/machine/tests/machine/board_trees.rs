//! Boards for the tests, written as devicetrees and parsed back.

use gic_arch::{Affinity, IntId, gits};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, CpuNode, Description, Fact, Gic, IntIdSpan,
    MsiRouting, PciHost, PlatformDevice, Region, devicetree,
};
use msi_types::DeviceId;

pub(crate) const GIC: &str = "/interrupt-controller@8000000";
pub(crate) const DISTRIBUTOR: u64 = 0x0800_0000;
pub(crate) const REDISTRIBUTORS: u64 = 0x0900_0000;
const ITS: u64 = 0x0a00_0000;
const ECAM: u64 = 0x4000_0000;
/// Size of an ECAM window for sixteen buses.
const ECAM_SIZE: u64 = 0x0100_0000;

pub(crate) fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).unwrap()
}

/// Returns a board with CPUs in clusters of four, `itses` ITSes, 1 GiB of RAM and no devices.
pub(crate) fn bare(cpus: u8, itses: u64) -> Description {
    let cpu = |index: u8| {
        let affinity = Affinity::new(0, 0, index / 4, index % 4);
        CpuNode::new(format!("/cpus/cpu@{:x}", affinity.mpidr()).as_str(), affinity)
    };
    let redistributors = region(REDISTRIBUTORS, u64::from(cpus) * 0x2_0000);
    Description {
        cpus: (0..cpus).map(cpu).collect(),
        gic: Some(Gic::v3(GIC, region(DISTRIBUTOR, 0x1_0000), [redistributors])),
        controllers: (0..itses).map(|it| controller(ControllerKind::Its, it, 0)).collect(),
        memory: vec![Fact::stated(region(0x8000_0000, 0x4000_0000))],
        ..Description::default()
    }
}

/// Returns controller number `index` of its kind, `offset` above its usual address. Message-based
/// SPIs are INTIDs 64 to 463, and have no frame of their own unless there is an offset.
pub(crate) fn controller(kind: ControllerKind, index: u64, offset: u64) -> Controller {
    let at = |base: u64, size| Some(region(base + offset, size));
    let (name, registers) = match kind {
        ControllerKind::Its => ("msi-controller", at(ITS + index * 0x4_0000, gits::SIZE)),
        ControllerKind::V2m => ("v2m", at(0x0802_0000 + index * 0x1_0000, 0x1000)),
        ControllerKind::Mbi => ("", at(DISTRIBUTOR, 0x1_0000)),
        _ => ("", None),
    };
    let name = match registers {
        Some(region) if !name.is_empty() => format!("{GIC}/{name}@{:x}", region.base()),
        _ => GIC.to_owned(),
    };
    let mut controller = Controller::new(name.as_str(), kind, registers);
    if controller.kind == ControllerKind::Mbi {
        let spis = IntIdSpan::new(IntId::new(64), 400).unwrap();
        controller.ranges.push(Fact::stated(spis));
    }
    controller
}

/// Returns a bare board with a host bridge for each ITS.
pub(crate) fn bridged(cpus: u8, itses: u64) -> Description {
    let hosts = (0..itses).zip(0..).map(|(index, its)| host(index, parent(its))).collect();
    Description { hosts, ..bare(cpus, itses) }
}

/// Returns `msi-parent = <&its 0>`. Most boards use this form, in which the bridge determines the
/// meaning of the cell.
pub(crate) fn parent(index: usize) -> MsiRouting {
    MsiRouting::device(its(index), DeviceId::new(0))
}

/// Returns host bridge number `index`.
pub(crate) fn host(index: u64, msi: MsiRouting) -> PciHost {
    let base = ECAM + index * ECAM_SIZE;
    PciHost::ecam(format!("/pcie@{base:x}").as_str(), region(base, ECAM_SIZE), msi)
}

/// Returns a platform device at `address`.
pub(crate) fn device(address: u64, msi: MsiRouting) -> PlatformDevice {
    let mut device =
        PlatformDevice::new(format!("/device@{address:x}").as_str(), "test,device", msi);
    device.registers = vec![Fact::stated(region(address, 0x1000))];
    device
}

pub(crate) fn its(index: usize) -> ControllerIndex {
    ControllerIndex::new(index)
}

/// Writes the description in the format that firmware uses, and parses it back.
pub(crate) fn flashed(description: &Description) -> Description {
    let read = flashed_with_findings(description);
    assert_eq!(read.findings, []);
    read
}

/// Like [`flashed`], but for firmware with mistakes that the parser tolerates.
pub(crate) fn flashed_with_findings(description: &Description) -> Description {
    devicetree::parse(&devicetree::write(description).unwrap()).unwrap()
}
