//! Reads the GIC and its MSI controllers from the MADT.

use super::checks::has_redistributors;
use super::fields::{Field, gicc, gicd, gicr, its, msi_frame};
use super::iort::{IortNode, NodeKind};
use super::madt::{MadtStructure, of_kind};
use super::table::{in_madt, madt_id};
use crate::controller::{
    Coherence, Controller, ControllerIndex, ControllerKind, Gic, GicVersion, IntIdSpan,
};
use crate::finding::{Fact, FindingList, NodeId, Origin, Region, RegionSet, Rule, Status};
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
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
pub(super) fn gic(madt: &[MadtStructure<'_>], findings: &mut FindingList) -> Option<Gic> {
    let mut distributors = of_kind(madt, gicd::KIND);
    let Some(gicd) = distributors.next() else {
        report_absent(madt, findings);
        return None;
    };
    if let Some(other) = distributors.next() {
        let message = format!("the first is at offset {:#x}", gicd.offset);
        findings.add(Rule::SeveralDistributors, other.origin(""), message);
    }
    let version = version(madt, gicd, findings)?;
    let (distributor, redistributors) = match version {
        GicVersion::V2 => (DISTRIBUTOR_V2_BYTES, Vec::new()),
        GicVersion::V3 | GicVersion::V4 => (DISTRIBUTOR_V3_BYTES, regions(madt, version, findings)),
    };
    let is_non_coherent =
        |(_, coherence): &&RedistributorRegion| *coherence == Coherence::NonCoherent;
    let coherence = match redistributors.iter().find(is_non_coherent) {
        Some((region, coherence)) => Fact::new(*coherence, region.origin.clone()),
        None => Fact::new(Coherence::ByRegister, gicd.origin("")),
    };
    Some(Gic {
        id: madt_id("GICD", gicd.get(gicd::ID)),
        compatible: Vec::new(),
        version: Fact::new(version, gicd.origin("GIC version")),
        status: Fact::new(Status::Enabled, gicd.origin("")),
        distributor: region(gicd, gicd::BASE, distributor, findings)?,
        redistributor_stride: stride(madt, version, &redistributors),
        redistributors: redistributors.into_iter().map(|(region, _)| region).collect(),
        cpu_interface: cpu_interface(madt, findings),
        coherence,
        broken_save_restore: false,
    })
}

/// Reports a missing distributor. A GICv5 machine has no distributor, because GICv5 is a different
/// architecture.
fn report_absent(madt: &[MadtStructure<'_>], findings: &mut FindingList) {
    let mut names = Vec::new();
    for name in madt.iter().filter_map(|structure| structure.gicv5()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if let Some(first) = madt.iter().find(|structure| structure.gicv5().is_some()) {
        let message = format!("the machine has a GICv5: {}", names.join(", "));
        return findings.add(Rule::OtherGicVersion, first.origin(""), message);
    }
    let message = "no structure describes a GIC distributor";
    findings.add(Rule::MissingProperty, in_madt(0, "GICD"), message);
}

/// Returns the version of the GIC. Version 0 means that the hardware states the version;
/// redistributors then imply GICv3.
fn version(
    madt: &[MadtStructure<'_>],
    gicd: MadtStructure<'_>,
    findings: &mut FindingList,
) -> Option<GicVersion> {
    match gicd.get(gicd::VERSION) {
        0u8 if has_redistributors(madt) => Some(GicVersion::V3),
        0..=2 => Some(GicVersion::V2),
        3 => Some(GicVersion::V3),
        4 => Some(GicVersion::V4),
        other => {
            let message = format!("the machine has a GICv{other}");
            findings.add(Rule::OtherGicVersion, gicd.origin("GIC version"), message);
            None
        }
    }
}

/// A redistributor region, and the coherence of its redistributors' table accesses.
type RedistributorRegion = (Fact<Region>, Coherence);

/// Returns the redistributor regions. Regions from GICC structures are used only if the table has
/// no GICR structure.
fn regions(
    madt: &[MadtStructure<'_>],
    version: GicVersion,
    findings: &mut FindingList,
) -> Vec<RedistributorRegion> {
    if of_kind(madt, gicr::KIND).next().is_some() {
        let regions = of_kind(madt, gicr::KIND).filter_map(|gicr| {
            let region = region(gicr, gicr::BASE, gicr.get(gicr::LENGTH), findings)?;
            Some((region, gicr.coherence()))
        });
        let regions: Vec<_> = regions.collect();
        check_cpus(madt, &regions, findings);
        return regions;
    }
    let bytes = redistributor_bytes(version);
    let usable = of_kind(madt, gicc::KIND).filter(|gicc| gicc.is_usable());
    if usable.clone().all(|gicc| gicc.redistributor().is_none()) {
        return Vec::new();
    }
    let mut known = BTreeSet::new();
    let stated = usable.filter_map(|gicc| {
        let Some(base) = gicc.redistributor() else {
            let place = gicc.origin(gicc::REDISTRIBUTOR.name);
            let message = "neither this nor a GICR structure states the CPU's redistributor";
            findings.add(Rule::GiccRedistributor, place, message);
            return None;
        };
        let region = region(gicc, gicc::REDISTRIBUTOR, bytes, findings)?;
        // A CPU that shares the redistributor of another one has already been reported.
        known.insert(base).then(|| (region, gicc.coherence()))
    });
    stated.collect()
}

/// Checks that each redistributor address in a GICC lies in one of the GICR regions.
fn check_cpus(
    madt: &[MadtStructure<'_>],
    regions: &[RedistributorRegion],
    findings: &mut FindingList,
) {
    let covered = RegionSet::new(regions.iter().map(|(region, _)| region.value));
    for gicc in of_kind(madt, gicc::KIND).filter(|gicc| gicc.is_usable()) {
        let Some(base) = gicc.redistributor() else { continue };
        let message = match covered.around(base) {
            None => format!("{base:#x} is in no region of the GICR structures"),
            Some(region) if !(base - region.base()).is_multiple_of(REDISTRIBUTOR_V3_BYTES) => {
                format!(
                    "{base:#x} is within a redistributor of the region {region}, not at its start"
                )
            }
            Some(_) => continue,
        };
        findings.add(Rule::GiccRedistributor, gicc.origin(gicc::REDISTRIBUTOR.name), message);
    }
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
    madt: &[MadtStructure<'_>],
    version: GicVersion,
    redistributors: &[RedistributorRegion],
) -> Option<Fact<u64>> {
    let (first, _) =
        redistributors.first().filter(|_| of_kind(madt, gicr::KIND).next().is_none())?;
    (version == GicVersion::V4).then(|| Fact::new(REDISTRIBUTOR_V4_BYTES, first.origin.clone()))
}

fn cpu_interface(madt: &[MadtStructure<'_>], findings: &mut FindingList) -> Option<Fact<Region>> {
    let gicc = of_kind(madt, gicc::KIND).find(|gicc| gicc.get::<u64>(gicc::BASE) != 0)?;
    region(gicc, gicc::BASE, CPU_INTERFACE_BYTES, findings)
}

/// Returns the registers of `size` bytes at the address in the field `base`.
fn region(
    structure: MadtStructure<'_>,
    base: Field,
    size: u64,
    findings: &mut FindingList,
) -> Option<Fact<Region>> {
    let (origin, base) = (structure.origin(base.name), structure.get(base));
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
        madt: &[MadtStructure<'_>],
        nodes: &[IortNode<'_>],
        findings: &mut FindingList,
    ) -> Self {
        let mut controllers = Self::default();
        for structure in madt {
            match structure.kind {
                its::KIND => controllers.its(*structure, findings),
                msi_frame::KIND => controllers.frame(*structure, findings),
                _ => {}
            }
        }
        let is_group = |node: &&IortNode<'_>| node.kind == NodeKind::DraftRedistributorGroup;
        for node in nodes.iter().filter(is_group) {
            controllers.redistributors(node.origin(""), findings);
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
    fn redistributors(&mut self, place: Origin, findings: &mut FindingList) {
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

    fn its(&mut self, its: MadtStructure<'_>, findings: &mut FindingList) {
        let (index, id) = (ControllerIndex::new(self.list.len()), its.get(its::ID));
        match self.its.entry(id) {
            Entry::Vacant(entry) => _ = entry.insert(index),
            Entry::Occupied(_) => {
                let message = format!("an earlier ITS also has number {id}");
                return findings.add(Rule::DuplicateId, its.origin(its::ID.name), message);
            }
        }
        self.list.push(Controller {
            status: Fact::new(Status::Enabled, its.origin("")),
            registers: region(its, its::BASE, ITS_BYTES, findings),
            msi_cells: Fact::new(1, its.origin("")),
            coherence: Fact::new(its.coherence(), its.origin("flags")),
            ..Controller::new(madt_id("ITS", id), ControllerKind::Its, None)
        });
    }

    fn frame(&mut self, frame: MadtStructure<'_>, findings: &mut FindingList) {
        self.frame = self.frame.or(Some(ControllerIndex::new(self.list.len())));
        let spans = frame.spis().and_then(|(first, count)| {
            let span = IntIdSpan::new(IntId::new(first), count)?;
            Some(Fact::new(span, frame.origin(msi_frame::SPI_BASE.name)))
        });
        let id = madt_id("MSI-frame", frame.get(msi_frame::ID));
        self.list.push(Controller {
            status: Fact::new(Status::Enabled, frame.origin("")),
            registers: region(frame, msi_frame::BASE, MSI_FRAME_BYTES, findings),
            ranges: spans.into_iter().collect(),
            ..Controller::new(id, ControllerKind::V2m, None)
        });
    }
}
