//! The contents of `doorbell inspect`, structured like its JSON output.

use super::capacity::CapacityRow;
use super::listing::{Listing, Listings};
use super::statements::{self, Statement, statement};
use crate::lint::{Row, rows};
use crate::requesters::{self, Requester, Stream};
use crate::source::Source;
use crate::wording::coherence;
use gic_firmware::lint::KnownRegisters;
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, Description, Gic, IntIdSpan, IommuIndex, Origin,
    RouteSpan, SecondaryGic,
};
use serde::Serialize;
use std::collections::BTreeSet;

/// Everything in a description that is related to interrupts.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Name of the source.
    pub source: String,
    /// Model of the machine.
    pub model: Option<String>,
    /// Hypervisor that firmware names.
    pub hypervisor: Option<String>,
    /// Instruction that calls PSCI.
    pub psci: Option<String>,
    /// CPUs, in the order of firmware.
    pub cpus: Vec<CpuRow>,
    /// The root GIC.
    pub gic: Option<GicRow>,
    /// All other GICs.
    pub secondary_gics: Vec<SecondaryGicRow>,
    /// MSI controllers.
    pub controllers: Vec<ControllerRow>,
    /// Capacities of the enabled controllers.
    pub capacity: Vec<CapacityRow>,
    /// Requesters: PCI hosts, bridges with maps of their own, and devices.
    pub devices: Vec<DeviceRow>,
    /// Mistakes that were found while reading.
    pub findings: Vec<Row>,
    /// Numbers of rows that are not listed.
    pub omitted: Listings,
    /// Number of enabled CPUs, including those that are not listed.
    #[serde(skip)]
    pub enabled_cpus: usize,
}

/// A CPU.
#[derive(Debug, Serialize)]
pub struct CpuRow {
    /// Node, or ACPI processor.
    pub id: String,
    /// Affinity, as Aff3.Aff2.Aff1.Aff0.
    pub affinity: String,
    /// `true` if firmware enables it.
    pub enabled: bool,
}

/// A GIC.
#[derive(Debug, Serialize)]
pub struct GicRow {
    /// Node, or structure.
    pub id: String,
    /// Architecture version.
    pub version: u8,
    /// Base address of the distributor.
    pub distributor: u64,
    /// Regions of redistributors.
    pub redistributors: Vec<RedistributorRow>,
    /// Coherence of the accesses to the redistributors' tables: `by register` or `not coherent`.
    pub coherence: &'static str,
}

/// A GIC other than the root GIC.
#[derive(Debug, Serialize)]
pub struct SecondaryGicRow {
    /// The GIC itself.
    #[serde(flatten)]
    pub gic: GicRow,
    /// `true` if firmware enables it.
    pub enabled: bool,
    /// `null` if no controller receives this GIC's interrupts.
    pub parent: Option<ParentRow>,
}

/// The interrupt that this GIC raises at another controller.
#[derive(Debug, Serialize)]
pub struct ParentRow {
    /// Controller that receives the interrupt.
    pub controller: String,
    /// `null` if the controller isn't a GIC.
    pub intid: Option<u32>,
}

/// A region of redistributors.
#[derive(Debug, Serialize)]
pub struct RedistributorRow {
    /// Base address.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// `null` if firmware doesn't state it. In that case, the redistributors' registers imply it.
    pub stride: Option<u64>,
}

/// An MSI controller.
#[derive(Debug, Serialize)]
pub struct ControllerRow {
    /// Node, or structure.
    pub id: String,
    /// Kind, such as `ITS`.
    pub kind: String,
    /// `true` if firmware enables it.
    pub enabled: bool,
    /// The GIC on which this controller makes interrupts pending.
    pub gic: Option<String>,
    /// Addresses to which devices write.
    pub doorbells: Vec<u64>,
    /// INTIDs of the interrupts.
    pub ranges: Vec<RangeRow>,
    /// DeviceID width, if firmware limits it (by a pre-ITS window). Otherwise, the ITS register
    /// states it.
    pub device_id_bits: Option<u32>,
    /// `true` if the controller keeps devices from triggering each other's interrupts.
    pub isolates: bool,
    /// Coherence of the accesses to the controller's tables: `by register` or `not coherent`.
    pub coherence: &'static str,
    /// INTIDs of the lines that a controller inside a host bridge raises.
    pub lines: Vec<u32>,
    /// Number of vectors of a controller inside a host bridge; `null` for others.
    pub vectors: Option<u32>,
    /// Bits outside of the controller that the driver sets, so that messages interrupt.
    pub gate: Option<String>,
    /// `true` if a driver for the controller exists.
    pub driven: bool,
}

/// Consecutive INTIDs.
#[derive(Debug, Serialize)]
pub struct RangeRow {
    /// First INTID.
    pub first: u32,
    /// Number of INTIDs.
    pub count: u32,
}

/// A requester.
#[derive(Debug, Serialize)]
pub struct DeviceRow {
    /// Node, or structure.
    pub id: String,
    /// Kind, such as `PCI host` or the `compatible` string.
    pub kind: String,
    /// `true` if firmware enables it.
    pub enabled: bool,
    /// `true` if other devices can trigger its interrupts.
    pub isolation: String,
    /// Routes to MSI controllers.
    pub routes: Vec<RouteRow>,
    /// IOMMUs that requesters pass through, by requester ID. The list is empty if any requester has
    /// a route.
    pub streams: Vec<StreamRow>,
}

/// Consecutive requester IDs with one controller.
#[derive(Debug, Serialize)]
pub struct RouteRow {
    /// First requester ID.
    pub rid_base: u32,
    /// Number of requester IDs.
    pub length: u32,
    /// The controller.
    pub controller: String,
    /// DeviceID of the first requester.
    pub device_id_base: u32,
    /// Property or table entry that defines the route.
    pub via: String,
    /// `true` if the controller keeps these requesters from triggering interrupts of other devices.
    pub isolated: bool,
    /// IOMMUs that at least one of these requesters passes through.
    pub iommus: Vec<String>,
    /// IOMMUs by requester ID.
    pub streams: Vec<StreamRow>,
    /// Position of the controller in the description.
    #[serde(skip)]
    pub index: ControllerIndex,
    /// Kind of the controller.
    #[serde(skip)]
    pub kind: ControllerKind,
    /// Firmware's statements about the route.
    #[serde(skip)]
    pub statements: Vec<Statement>,
}

/// Consecutive requesters that pass through an IOMMU.
#[derive(Debug, Serialize)]
pub struct StreamRow {
    /// The IOMMU.
    pub iommu: String,
    /// `true` if firmware enables the IOMMU.
    pub enabled: bool,
    /// First requester ID. If `iommu-map-mask` is present, this is a masked ID.
    pub rid_base: u32,
    /// Number of requesters.
    pub length: u32,
    /// StreamID of the first requester.
    pub stream_id_base: Option<u32>,
    /// Position of the IOMMU in the description.
    #[serde(skip)]
    pub index: IommuIndex,
    /// The statement that refers to the IOMMU.
    #[serde(skip)]
    pub origin: Origin,
}

impl Inspection {
    /// Creates the report about `source`. `known` registers determine the capacities.
    pub fn of(source: &Source, known: &KnownRegisters) -> Self {
        let description = &source.description;
        let mut lists = Listings::default();
        let cpus = lists.cpus.first(description.cpus.iter());
        let gic = description.gic.as_ref();
        let gic = gic.map(|gic| GicRow::of(gic, &mut lists.redistributors));
        let secondary_gics = lists.secondary_gics.first(description.secondary_gics.iter());
        let secondary_gics = secondary_gics.into_iter();
        let secondary_gics =
            secondary_gics.map(|gic| SecondaryGicRow::of(gic, &mut lists.redistributors)).collect();
        let controllers = lists.controllers.first(description.controllers.iter()).into_iter();
        let controllers =
            controllers.map(|one| ControllerRow::of(description, one, &mut lists)).collect();
        let devices = DeviceRow::all_of(description, &mut lists);
        Self {
            source: source.name.clone(),
            model: description.model.as_ref().map(|model| model.value.clone()),
            hypervisor: description.hypervisor.as_ref().map(|name| name.value.clone()),
            psci: description.psci.as_ref().map(|method| method.value.clone()),
            cpus: cpus.into_iter().map(CpuRow::of).collect(),
            gic,
            secondary_gics,
            capacity: CapacityRow::all_of(description, known),
            controllers,
            devices,
            findings: rows(source, description.findings.clone(), known),
            omitted: lists,
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
    fn of(description: &Description, controller: &Controller, lists: &mut Listings) -> Self {
        let root = || description.gic.as_ref().map(|gic| &gic.id);
        let gic = controller.secondary_gic.as_ref().or_else(root);
        // Once the address list is full, each further controller counts as one omitted address.
        let addresses = if lists.doorbells.is_full() {
            lists.doorbells.omit(1);
            Vec::new()
        } else {
            lists.doorbells.first(description.doorbells(controller).into_iter())
        };
        Self {
            id: controller.id.to_string(),
            kind: controller.kind.to_string(),
            enabled: controller.status.is_enabled(),
            gic: gic.map(ToString::to_string),
            doorbells: addresses,
            ranges: lists
                .ranges
                .first(controller.ranges.iter())
                .into_iter()
                .map(|range| RangeRow::of(range.value))
                .collect(),
            device_id_bits: controller.device_id_bits(),
            isolates: isolates(controller),
            coherence: coherence(controller.coherence.value),
            lines: controller.lines.iter().map(|line| line.intid.get()).collect(),
            vectors: controller.vectors(),
            gate: controller.gate.as_ref().map(|gate| gate.value.to_string()),
            driven: controller.is_driven(),
        }
    }
}

impl RangeRow {
    /// Creates the row of a range.
    pub const fn of(range: IntIdSpan) -> Self {
        Self { first: range.first().get(), count: range.count() }
    }
}

impl DeviceRow {
    /// Returns the first rows, as many as the list has room for.
    fn all_of(description: &Description, lists: &mut Listings) -> Vec<Self> {
        let mut rows = Vec::new();
        for requester in requesters::all(description) {
            let name = requester.id.as_str().len() + requester.kind.len();
            if lists.devices.admits(name) {
                rows.push(Self::of(description, &requester, lists));
            } else {
                lists.routes.omit(requester.spans.len());
            }
        }
        rows
    }

    fn of(description: &Description, requester: &Requester<'_>, lists: &mut Listings) -> Self {
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
            let streams =
                StreamRow::all_of(description, requester.streams(span), &mut lists.streams);
            routes.push(RouteRow::of(description, requester, span, controller, streams));
        }
        Self {
            id: requester.id.to_string(),
            kind: requester.kind.to_owned(),
            enabled: requester.status.is_enabled(),
            isolation: isolation(controllers()),
            routes,
            streams: StreamRow::all_of(
                description,
                requester.unrouted_streams(),
                &mut lists.streams,
            ),
        }
    }
}

impl RouteRow {
    fn of(
        description: &Description,
        requester: &Requester<'_>,
        span: &RouteSpan,
        controller: &Controller,
        streams: Vec<StreamRow>,
    ) -> Self {
        let mut known = BTreeSet::new();
        let first: Vec<_> = streams.iter().filter(|one| known.insert(one.index)).collect();
        let iommus = first.iter().map(|stream| {
            let state = if stream.enabled { "" } else { " (disabled)" };
            format!("{}{state}", stream.iommu)
        });
        Self {
            rid_base: span.rid_base.get(),
            length: span.length,
            controller: controller.id.to_string(),
            device_id_base: span.device_id_base.get(),
            via: statement(requester.msi, span.via),
            isolated: isolates(controller),
            iommus: iommus.collect(),
            statements: statements::all(
                description,
                requester,
                span,
                first.iter().map(|stream| (stream.index, &stream.origin)),
            ),
            index: span.controller,
            kind: controller.kind.clone(),
            streams,
        }
    }
}

impl StreamRow {
    /// Returns the first rows, as many as the list has room for.
    fn all_of<'d>(
        description: &Description,
        mut streams: impl ExactSizeIterator<Item = Stream<'d>>,
        list: &mut Listing,
    ) -> Vec<Self> {
        let mut rows = Vec::new();
        while let Some(stream) = streams.next() {
            let Some(iommu) = description.iommu(stream.iommu) else { continue };
            if !list.admits(iommu.id.as_str().len()) {
                list.omit(streams.len());
                break;
            }
            rows.push(Self {
                iommu: iommu.id.to_string(),
                enabled: iommu.status.is_enabled(),
                rid_base: stream.rid_base,
                length: stream.length,
                stream_id_base: stream.id_base,
                index: stream.iommu,
                origin: stream.origin.clone(),
            });
        }
        rows
    }
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
