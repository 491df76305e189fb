//! The contents of `doorbell inspect`, structured like its JSON output.

use super::capacity::CapacityRow;
use super::listing::{Listing, Omitted};
use crate::requesters::{self, Requester, Stream};
use crate::source::Source;
use crate::wording::coherence;
use gic_firmware::lint::KnownRegisters;
use gic_firmware::{
    Controller, ControllerKind, Description, Finding, Gic, IntIdSpan, MsiRouting, RouteSpan,
    SecondaryGic, Via,
};
use serde::Serialize;
use std::collections::BTreeSet;

/// Everything in a description that is related to interrupts.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    pub(crate) source: String,
    pub(crate) model: Option<String>,
    pub(crate) cpus: Vec<CpuRow>,
    pub(crate) gic: Option<GicRow>,
    pub(crate) secondary_gics: Vec<SecondaryGicRow>,
    pub(crate) controllers: Vec<ControllerRow>,
    pub(crate) capacity: Vec<CapacityRow>,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) findings: Vec<FindingRow>,
    pub(crate) omitted: Omitted,
    /// Number of enabled CPUs, including those that are not listed.
    #[serde(skip)]
    pub(crate) enabled_cpus: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct CpuRow {
    pub(crate) id: String,
    pub(crate) affinity: String,
    pub(crate) enabled: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct GicRow {
    pub(crate) id: String,
    pub(crate) version: u8,
    pub(crate) distributor: u64,
    pub(crate) redistributors: Vec<RedistributorRow>,
    /// Coherence of the accesses to the redistributors' tables: `by register` or `not coherent`.
    pub(crate) coherence: &'static str,
}

/// A GIC other than the root GIC.
#[derive(Debug, Serialize)]
pub(crate) struct SecondaryGicRow {
    #[serde(flatten)]
    pub(crate) gic: GicRow,
    pub(crate) enabled: bool,
    /// `null` if no controller receives this GIC's interrupts.
    pub(crate) parent: Option<ParentRow>,
}

/// The interrupt that this GIC raises at another controller.
#[derive(Debug, Serialize)]
pub(crate) struct ParentRow {
    pub(crate) controller: String,
    /// `null` if the controller isn't a GIC.
    pub(crate) intid: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RedistributorRow {
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// `null` if firmware doesn't state it. In that case, the redistributors' registers imply it.
    pub(crate) stride: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ControllerRow {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) enabled: bool,
    /// The GIC on which this controller makes interrupts pending.
    pub(crate) gic: Option<String>,
    pub(crate) doorbells: Vec<u64>,
    pub(crate) ranges: Vec<RangeRow>,
    /// DeviceID width, if firmware limits it (by a pre-ITS window). Otherwise, the ITS register
    /// states it.
    pub(crate) device_id_bits: Option<u32>,
    /// `true` if the controller keeps devices from triggering each other's interrupts.
    pub(crate) isolates: bool,
    /// Coherence of the accesses to the controller's tables: `by register` or `not coherent`.
    pub(crate) coherence: &'static str,
    /// INTIDs of the lines that a controller inside a host bridge raises.
    pub(crate) lines: Vec<u32>,
    /// Number of vectors of a controller inside a host bridge; `null` for others.
    pub(crate) vectors: Option<u32>,
    /// `true` if a driver for the controller exists.
    pub(crate) driven: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct RangeRow {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct DeviceRow {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) enabled: bool,
    pub(crate) isolation: String,
    pub(crate) routes: Vec<RouteRow>,
    /// IOMMUs that requesters pass through, by requester ID. The list is empty if any requester has
    /// a route.
    pub(crate) streams: Vec<StreamRow>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RouteRow {
    pub(crate) rid_base: u32,
    pub(crate) length: u32,
    pub(crate) controller: String,
    pub(crate) device_id_base: u32,
    pub(crate) via: String,
    /// `true` if the controller keeps these requesters from triggering interrupts of other devices.
    pub(crate) isolated: bool,
    /// IOMMUs that at least one of these requesters passes through.
    pub(crate) iommus: Vec<String>,
    /// IOMMUs by requester ID.
    pub(crate) streams: Vec<StreamRow>,
}

/// Consecutive requesters that pass through an IOMMU.
#[derive(Debug, Serialize)]
pub(crate) struct StreamRow {
    pub(crate) iommu: String,
    pub(crate) enabled: bool,
    /// First requester ID. If `iommu-map-mask` is present, this is a masked ID.
    pub(crate) rid_base: u32,
    pub(crate) length: u32,
    /// StreamID of the first requester.
    pub(crate) stream_id_base: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FindingRow {
    pub(crate) rule: &'static str,
    pub(crate) severity: String,
    #[serde(rename = "where")]
    pub(crate) place: String,
    pub(crate) message: String,
    pub(crate) help: &'static str,
}

impl Inspection {
    /// Creates the report about `source`. `known` registers determine the capacities.
    pub(crate) fn of(source: &Source, known: &KnownRegisters) -> Self {
        let description = &source.description;
        let mut omitted = Omitted::default();
        let mut cpus = Listing::new();
        let listed = cpus.first(description.cpus.iter()).into_iter().map(CpuRow::of).collect();
        omitted.cpus = cpus.omitted();
        let mut regions = Listing::new();
        let gic = description.gic.as_ref().map(|gic| GicRow::of(gic, &mut regions));
        let mut gics = Listing::new();
        let secondary_gics = gics.first(description.secondary_gics.iter());
        let secondary_gics = secondary_gics.into_iter();
        let secondary_gics = secondary_gics.map(|gic| SecondaryGicRow::of(gic, &mut regions));
        let secondary_gics = secondary_gics.collect();
        omitted.secondary_gics = gics.omitted();
        omitted.redistributors = regions.omitted();
        let controllers = ControllerRow::all_of(description, &mut omitted);
        let devices = DeviceRow::all_of(description, &mut omitted);
        Self {
            source: source.name.clone(),
            model: description.model.as_ref().map(|model| model.value.clone()),
            cpus: listed,
            gic,
            secondary_gics,
            capacity: CapacityRow::all_of(description, known),
            controllers,
            devices,
            findings: description.findings.iter().map(FindingRow::of).collect(),
            omitted,
            enabled_cpus: description.enabled_cpus().count(),
        }
    }
}

impl CpuRow {
    fn of(cpu: &gic_firmware::CpuNode) -> Self {
        Self {
            id: cpu.id.to_string(),
            affinity: cpu.affinity.to_string(),
            enabled: cpu.status.is_enabled(),
        }
    }
}

impl GicRow {
    fn of(gic: &Gic, regions: &mut Listing) -> Self {
        let stride = gic.redistributor_stride.as_ref().map(|stride| stride.value);
        Self {
            id: gic.id.to_string(),
            version: gic.version.number(),
            distributor: gic.distributor.base(),
            redistributors: regions
                .first(gic.redistributors.iter())
                .iter()
                .map(|region| RedistributorRow { base: region.base(), size: region.size(), stride })
                .collect(),
            coherence: coherence(gic.coherence.value),
        }
    }
}

impl SecondaryGicRow {
    fn of(secondary: &SecondaryGic, regions: &mut Listing) -> Self {
        let parent = secondary.parent.as_ref().map(|parent| ParentRow {
            controller: parent.controller.to_string(),
            intid: parent.intid.map(gic_firmware::IntId::get),
        });
        let enabled = secondary.gic.status.is_enabled();
        Self { gic: GicRow::of(&secondary.gic, regions), enabled, parent }
    }
}

impl ControllerRow {
    /// Returns the first rows and adds the number of the others to `omitted`.
    fn all_of(description: &Description, omitted: &mut Omitted) -> Vec<Self> {
        let mut rows = Listing::new();
        let (mut doorbells, mut ranges) = (Listing::new(), Listing::new());
        let listed = rows.first(description.controllers.iter()).into_iter();
        let listed = listed.map(|one| Self::of(description, one, &mut doorbells, &mut ranges));
        let listed = listed.collect();
        omitted.controllers = rows.omitted();
        (omitted.doorbells, omitted.ranges) = (doorbells.omitted(), ranges.omitted());
        listed
    }

    fn of(
        description: &Description,
        controller: &Controller,
        doorbells: &mut Listing,
        ranges: &mut Listing,
    ) -> Self {
        let root = || description.gic.as_ref().map(|gic| &gic.id);
        let gic = controller.secondary_gic.as_ref().or_else(root);
        // Once the address list is full, each further controller counts as one omitted address.
        let addresses = if doorbells.is_full() {
            doorbells.omit(1);
            Vec::new()
        } else {
            doorbells.first(description.doorbells(controller).into_iter())
        };
        Self {
            id: controller.id.to_string(),
            kind: controller.kind.to_string(),
            enabled: controller.status.is_enabled(),
            gic: gic.map(ToString::to_string),
            doorbells: addresses,
            ranges: ranges
                .first(controller.ranges.iter())
                .into_iter()
                .map(|range| RangeRow::of(range.value))
                .collect(),
            device_id_bits: controller.device_id_bits(),
            isolates: isolates(controller),
            coherence: coherence(controller.coherence.value),
            lines: controller.lines.iter().map(|line| line.intid.get()).collect(),
            vectors: controller.vectors(),
            driven: controller.is_driven(),
        }
    }
}

impl RangeRow {
    pub(crate) const fn of(range: IntIdSpan) -> Self {
        Self { first: range.first().get(), count: range.count() }
    }
}

/// The lists of requesters that are being filled.
struct DeviceLists {
    devices: Listing,
    routes: Listing,
    streams: Listing,
}

impl DeviceRow {
    /// Returns the first rows and adds the number of the others to `omitted`.
    fn all_of(description: &Description, omitted: &mut Omitted) -> Vec<Self> {
        let [devices, routes, streams] = [(); 3].map(|()| Listing::new());
        let mut lists = DeviceLists { devices, routes, streams };
        let mut rows = Vec::new();
        for requester in requesters::all(description) {
            let name = requester.id.as_str().len() + requester.kind.len();
            if lists.devices.admits(name) {
                rows.push(Self::of(description, &requester, &mut lists));
            } else {
                lists.routes.omit(requester.spans.len());
            }
        }
        omitted.devices = lists.devices.omitted();
        (omitted.routes, omitted.streams) = (lists.routes.omitted(), lists.streams.omitted());
        rows
    }

    fn of(description: &Description, requester: &Requester<'_>, lists: &mut DeviceLists) -> Self {
        let controllers =
            || requester.spans.iter().filter_map(|span| description.controller(span.controller));
        let mut routes = Vec::new();
        for (at, span) in requester.spans.iter().enumerate() {
            let name = requester.id.as_str().len() + requester.kind.len();
            if !lists.routes.admits(name) {
                lists.routes.omit(requester.spans.len() - at - 1);
                break;
            }
            let Some(controller) = description.controller(span.controller) else { continue };
            let streams = StreamRow::all_of(description, requester.streams(span), lists);
            routes.push(RouteRow::of(*span, controller, requester.msi, streams));
        }
        Self {
            id: requester.id.to_string(),
            kind: requester.kind.to_owned(),
            enabled: requester.status.is_enabled(),
            isolation: isolation(controllers()),
            routes,
            streams: StreamRow::all_of(description, requester.unrouted_streams(), lists),
        }
    }
}

impl RouteRow {
    fn of(
        span: RouteSpan,
        controller: &Controller,
        msi: &MsiRouting,
        streams: Vec<StreamRow>,
    ) -> Self {
        let mut known = BTreeSet::new();
        let mut iommus = Vec::new();
        for stream in &streams {
            let state = if stream.enabled { "" } else { " (disabled)" };
            let name = format!("{}{state}", stream.iommu);
            if known.insert(name.clone()) {
                iommus.push(name);
            }
        }
        Self {
            rid_base: span.rid_base.get(),
            length: span.length,
            controller: controller.id.to_string(),
            device_id_base: span.device_id_base.get(),
            via: statement(msi, span.via),
            isolated: isolates(controller),
            iommus,
            streams,
        }
    }
}

impl StreamRow {
    /// Returns the first rows, as many as the list has room for.
    fn all_of<'d>(
        description: &Description,
        mut streams: impl ExactSizeIterator<Item = Stream<'d>>,
        lists: &mut DeviceLists,
    ) -> Vec<Self> {
        let mut rows = Vec::new();
        while let Some(stream) = streams.next() {
            let Some(row) = Self::of(description, stream) else { continue };
            if !lists.streams.admits(row.iommu.len()) {
                lists.streams.omit(streams.len());
                break;
            }
            rows.push(row);
        }
        rows
    }

    fn of(description: &Description, stream: Stream<'_>) -> Option<Self> {
        let Stream { rid_base, length, id_base: stream_id_base, .. } = stream;
        let iommu = description.iommu(stream.iommu)?;
        let enabled = iommu.status.is_enabled();
        Some(Self { iommu: iommu.id.to_string(), enabled, rid_base, length, stream_id_base })
    }
}

/// Returns the property or table entry that defines a route, as text for the output.
pub(crate) fn statement(msi: &MsiRouting, via: Via) -> String {
    match via {
        Via::Map(index) => {
            let entry = msi.map.as_ref().and_then(|map| map.get(index));
            entry.map(|entry| entry.origin.item().to_owned())
        }
        Via::Parent(index) => {
            let parent = msi.parents.get(index);
            parent.map(|parent| parent.origin.item().to_owned())
        }
        _ => None,
    }
    .unwrap_or_else(|| via.to_string())
}

/// Returns `true` if the controller identifies devices by an ID that they can't choose. (With a
/// pre-ITS, a device chooses its DeviceID through the address that it writes to.)
fn isolates(controller: &Controller) -> bool {
    controller.kind == ControllerKind::Its && controller.pre_its.is_none()
}

/// Describes whether the device's controllers keep it from triggering interrupts of other devices.
fn isolation<'c>(controllers: impl Iterator<Item = &'c Controller>) -> String {
    let mut controllers = controllers.peekable();
    if controllers.peek().is_none() {
        return "no controller".to_owned();
    }
    match controllers.find(|controller| !isolates(controller)) {
        None => "isolated by the ITS, per DeviceID".to_owned(),
        Some(controller) => {
            format!("not isolated: any bus master may ring any interrupt at {}", controller.id)
        }
    }
}

impl FindingRow {
    fn of(finding: &Finding) -> Self {
        Self {
            rule: finding.rule.name(),
            severity: finding.severity().to_string(),
            place: finding.origin.to_string(),
            message: finding.message.clone(),
            help: finding.rule.help(),
        }
    }
}
