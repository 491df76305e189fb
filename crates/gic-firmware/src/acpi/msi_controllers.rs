//! Reads the GIC and its MSI controllers from the MADT.

use super::cpus::giccs;
use super::iort::{IortContents, IortNode};
use super::madt::{GicIts, Gicc, Gicd, Gicr, MadtContents, MadtStructure, MsiFrame};
use super::places::{in_madt, madt_id, origin};
use super::table::Signature;
use crate::coherence::Coherence;
use crate::controller::{Controller, ControllerIndex, ControllerKind, IntIdSpan};
use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::gic::{Gic, GicVersion};
use crate::origin::{Fact, NodeId};
use crate::region::{Region, RegionSet};
use crate::status::Status;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use gic_arch::IntId;

// The MADT doesn't state sizes, so we use the sizes that the architecture defines (IHI 0048B §4.1,
// IHI 0069H §12.8–12.19).
const DISTRIBUTOR_V2_BYTES: u64 = 0x1000;
const DISTRIBUTOR_V3_BYTES: u64 = 0x1_0000;
const CPU_INTERFACE_BYTES: u64 = 0x2000;
const REDISTRIBUTOR_V3_BYTES: u64 = 0x2_0000;
const REDISTRIBUTOR_V4_BYTES: u64 = 0x4_0000;
const ITS_BYTES: u64 = 0x2_0000;
const MSI_FRAME_BYTES: u64 = 0x1000;

/// Reads the GIC that the first distributor structure describes.
pub(super) fn gic(madt: &[MadtStructure], findings: &mut FindingList) -> Option<Gic> {
    let mut distributors = madt.iter().filter_map(|structure| match structure.contents {
        MadtContents::Gicd(gicd) => Some((structure.offset, gicd)),
        _ => None,
    });
    let Some((offset, gicd)) = distributors.next() else {
        report_absent(madt, findings);
        return None;
    };
    if let Some((other, _)) = distributors.next() {
        let message = format!("the first is at offset {offset:#x}");
        findings.add(Rule::SeveralDistributors, in_madt(other, ""), message);
    }
    let version = version(madt, offset, gicd, findings)?;
    let distributor = match version {
        GicVersion::V2 => DISTRIBUTOR_V2_BYTES,
        GicVersion::V3 | GicVersion::V4 => DISTRIBUTOR_V3_BYTES,
    };
    let redistributors =
        if version == GicVersion::V2 { Vec::new() } else { regions(madt, version, findings) };
    let non_coherent = redistributors.iter().find(|(_, non_coherent)| *non_coherent);
    let coherence = match non_coherent {
        Some((region, _)) => Fact::new(Coherence::NonCoherent, region.origin.clone()),
        None => Fact::new(Coherence::ByRegister, in_madt(offset, "")),
    };
    Some(Gic {
        id: madt_id("GICD", gicd.id),
        compatible: Vec::new(),
        version: Fact::new(version, in_madt(offset, "GIC version")),
        status: Fact::new(Status::Enabled, in_madt(offset, "")),
        distributor: region(gicd.base, distributor, offset, "physical base address", findings)?,
        redistributor_stride: stride(madt, version, &redistributors),
        redistributors: redistributors.into_iter().map(|(region, _)| region).collect(),
        cpu_interface: cpu_interface(madt, findings),
        coherence,
        broken_save_restore: false,
    })
}

/// Reports a missing distributor. A GICv5 machine has no distributor, because GICv5 is a different
/// architecture.
fn report_absent(madt: &[MadtStructure], findings: &mut FindingList) {
    let mut structures = madt.iter().filter_map(|structure| match structure.contents {
        MadtContents::GicV5(kind) => Some((structure.offset, kind.name())),
        _ => None,
    });
    if let Some((offset, name)) = structures.next() {
        let origin = in_madt(offset, "");
        let mut names = vec![name];
        for (_, name) in structures {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let message = format!("the machine has a GICv5: {}", names.join(", "));
        return findings.add(Rule::OtherGicVersion, origin, message);
    }
    let message = "no structure describes a GIC distributor";
    findings.add(Rule::MissingProperty, in_madt(0, "GICD"), message);
}

/// Returns the version of the GIC. Version 0 means that the hardware states the version;
/// redistributors then imply GICv3.
fn version(
    madt: &[MadtStructure],
    offset: usize,
    gicd: Gicd,
    findings: &mut FindingList,
) -> Option<GicVersion> {
    let has_redistributors =
        gicrs(madt).next().is_some() || giccs(madt).any(|(_, gicc)| redistributor(gicc).is_some());
    match gicd.version {
        0 if has_redistributors => Some(GicVersion::V3),
        0..=2 => Some(GicVersion::V2),
        3 => Some(GicVersion::V3),
        4 => Some(GicVersion::V4),
        other => {
            let origin = in_madt(offset, "GIC version");
            findings.add(Rule::OtherGicVersion, origin, format!("the machine has a GICv{other}"));
            None
        }
    }
}

fn gicrs(madt: &[MadtStructure]) -> impl Iterator<Item = (usize, Gicr)> {
    madt.iter().filter_map(|structure| match structure.contents {
        MadtContents::Gicr(gicr) => Some((structure.offset, gicr)),
        _ => None,
    })
}

/// Returns the redistributor regions, each with `true` if table accesses of its redistributors
/// bypass the caches. Regions from GICC structures are used only if the table has no GICR
/// structure.
fn regions(
    madt: &[MadtStructure],
    version: GicVersion,
    findings: &mut FindingList,
) -> Vec<(Fact<Region>, bool)> {
    if gicrs(madt).next().is_some() {
        let regions = gicrs(madt).filter_map(|(offset, gicr)| {
            let item = "discovery range base address";
            let region = region(gicr.base, gicr.length.into(), offset, item, findings)?;
            Some((region, gicr.non_coherent))
        });
        let regions: Vec<_> = regions.collect();
        check_cpus(madt, &regions, findings);
        return regions;
    }
    let bytes = redistributor_bytes(version);
    let usable = || giccs(madt).filter(|(_, gicc)| is_usable(*gicc));
    if usable().all(|(_, gicc)| redistributor(gicc).is_none()) {
        return Vec::new();
    }
    let mut known = BTreeSet::new();
    let stated = usable().filter_map(|(offset, gicc)| {
        let Some(base) = redistributor(gicc) else {
            let place = in_madt(offset, "GICR base address");
            let message = "neither this nor a GICR structure states the CPU's redistributor";
            findings.add(Rule::GiccRedistributor, place, message);
            return None;
        };
        let region = region(base, bytes, offset, "GICR base address", findings)?;
        // A CPU that shares the redistributor of another one has already been reported.
        if !known.insert(base) {
            return None;
        }
        Some((region, gicc.is_redistributor_non_coherent()))
    });
    stated.collect()
}

/// Checks that each redistributor address in a GICC lies in one of the GICR regions.
fn check_cpus(
    madt: &[MadtStructure],
    regions: &[(Fact<Region>, bool)],
    findings: &mut FindingList,
) {
    let covered = RegionSet::new(regions.iter().map(|(region, _)| region.value));
    for (offset, gicc) in giccs(madt).filter(|(_, gicc)| is_usable(*gicc)) {
        let Some(base) = redistributor(gicc) else { continue };
        let message = match covered.around(base) {
            None => format!("{base:#x} is in no region of the GICR structures"),
            Some(region) if !(base - region.base()).is_multiple_of(REDISTRIBUTOR_V3_BYTES) => {
                format!(
                    "{base:#x} is within a redistributor of the region {region}, not at its start"
                )
            }
            Some(_) => continue,
        };
        findings.add(Rule::GiccRedistributor, in_madt(offset, "GICR base address"), message);
    }
}

/// Returns the redistributor address that a GICC states, if any.
fn redistributor(gicc: Gicc) -> Option<u64> {
    gicc.redistributor.filter(|&base| base != 0)
}

const fn is_usable(gicc: Gicc) -> bool {
    gicc.is_enabled() || gicc.is_online_capable()
}

const fn redistributor_bytes(version: GicVersion) -> u64 {
    match version {
        GicVersion::V4 => REDISTRIBUTOR_V4_BYTES,
        GicVersion::V2 | GicVersion::V3 => REDISTRIBUTOR_V3_BYTES,
    }
}

/// Returns the distance between redistributors if GICCs list the redistributors of a GICv4 one by
/// one; otherwise `None`.
fn stride(
    madt: &[MadtStructure],
    version: GicVersion,
    redistributors: &[(Fact<Region>, bool)],
) -> Option<Fact<u64>> {
    let (first, _) = redistributors.first().filter(|_| gicrs(madt).next().is_none())?;
    (version == GicVersion::V4).then(|| Fact::new(REDISTRIBUTOR_V4_BYTES, first.origin.clone()))
}

fn cpu_interface(madt: &[MadtStructure], findings: &mut FindingList) -> Option<Fact<Region>> {
    let (offset, gicc) = giccs(madt).find(|(_, gicc)| gicc.base != 0)?;
    region(gicc.base, CPU_INTERFACE_BYTES, offset, "physical base address", findings)
}

fn region(
    base: u64,
    size: u64,
    offset: usize,
    item: &'static str,
    findings: &mut FindingList,
) -> Option<Fact<Region>> {
    let origin = in_madt(offset, item);
    let region = Region::new(base, size);
    if region.is_none() {
        let message = format!("{size:#x} bytes at {base:#x} reach past the address space");
        findings.add(Rule::MalformedProperty, origin.clone(), message);
    }
    Some(Fact::new(region?, origin))
}

/// The machine's MSI controllers, with ITSes indexed by the IDs that the IORT uses.
#[derive(Default)]
pub(super) struct ControllerList {
    pub(super) list: Vec<Controller>,
    its: BTreeMap<u32, ControllerIndex>,
    frame: Option<ControllerIndex>,
    direct_lpi: Option<ControllerIndex>,
}

impl ControllerList {
    pub(super) fn read(
        madt: &[MadtStructure],
        nodes: &[IortNode<'_>],
        findings: &mut FindingList,
    ) -> Self {
        let mut controllers = Self::default();
        for structure in madt {
            match structure.contents {
                MadtContents::Its(its) => controllers.its(structure.offset, its, findings),
                MadtContents::MsiFrame(frame) => {
                    controllers.frame(structure.offset, frame, findings);
                }
                _ => {}
            }
        }
        let is_group =
            |node: &&IortNode<'_>| node.contents == IortContents::DraftRedistributorGroup;
        for node in nodes.iter().filter(is_group) {
            controllers.redistributors(node.offset, findings);
        }
        controllers
    }

    /// Returns the ITS with this ID.
    pub(super) fn of_its(&self, id: u32) -> Option<ControllerIndex> {
        self.its.get(&id).copied()
    }

    /// Returns the frame for requesters that the IORT doesn't route. Linux uses v2m frames only on
    /// a GIC without LPIs, and then the first frame serves all requesters.
    pub(super) fn frame_for_all(&self) -> Option<ControllerIndex> {
        self.frame.filter(|_| self.its.is_empty())
    }

    /// Returns the redistributors as a controller, if the draft node is present.
    pub(super) fn direct_lpi(&self) -> Option<ControllerIndex> {
        self.direct_lpi
    }

    /// Adds the redistributors as a controller. If the machine has an ITS, the controller is
    /// disabled, because `GICR_SETLPIR` is then IMPLEMENTATION DEFINED (IHI 0069 §12.11).
    fn redistributors(&mut self, offset: usize, findings: &mut FindingList) {
        let place = origin(Signature::IORT, offset, "");
        if self.direct_lpi.is_some() {
            return findings.add(Rule::DuplicateId, place, "a table has one redistributor group");
        }
        let status = if self.its.is_empty() { Status::Enabled } else { Status::Disabled };
        if !status.is_enabled() {
            findings.add(Rule::DirectLpiWithIts, place.clone(), "an ITS is also described");
        }
        self.direct_lpi = Some(ControllerIndex::new(self.list.len()));
        let id = NodeId::new("IORT/redistributor-group");
        let status = Fact::new(status, place);
        self.list
            .push(Controller { status, ..Controller::new(id, ControllerKind::DirectLpi, None) });
    }

    fn its(&mut self, offset: usize, its: GicIts, findings: &mut FindingList) {
        let index = ControllerIndex::new(self.list.len());
        match self.its.entry(its.id) {
            Entry::Vacant(entry) => _ = entry.insert(index),
            Entry::Occupied(_) => {
                let message = format!("an earlier ITS also has number {}", its.id);
                findings.add(Rule::DuplicateId, in_madt(offset, "GIC ITS ID"), message);
                return;
            }
        }
        let registers = region(its.base, ITS_BYTES, offset, "physical base address", findings);
        let coherence =
            if its.non_coherent { Coherence::NonCoherent } else { Coherence::ByRegister };
        self.list.push(Controller {
            status: Fact::new(Status::Enabled, in_madt(offset, "")),
            registers,
            msi_cells: Fact::new(1, in_madt(offset, "")),
            coherence: Fact::new(coherence, in_madt(offset, "flags")),
            ..Controller::new(madt_id("ITS", its.id), ControllerKind::Its, None)
        });
    }

    fn frame(&mut self, offset: usize, frame: MsiFrame, findings: &mut FindingList) {
        let index = ControllerIndex::new(self.list.len());
        self.frame = self.frame.or(Some(index));
        let registers =
            region(frame.base, MSI_FRAME_BYTES, offset, "physical base address", findings);
        let spans = frame.spis.and_then(|(first, count)| {
            let span = IntIdSpan::new(IntId::new(first.into()), count.into())?;
            Some(Fact::new(span, in_madt(offset, "SPI base")))
        });
        self.list.push(Controller {
            status: Fact::new(Status::Enabled, in_madt(offset, "")),
            registers,
            ranges: spans.into_iter().collect(),
            ..Controller::new(madt_id("MSI-frame", frame.id), ControllerKind::V2m, None)
        });
    }
}
