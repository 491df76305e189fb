//! The contents of `doorbell inspect`, structured like its JSON output.

use super::capacity::CapacityRow;
use crate::requesters::{self, Requester, Stream};
use crate::source::Source;
use gic_firmware::lint::KnownRegisters;
use gic_firmware::{
    Controller, ControllerKind, Description, Finding, Gic, MsiRouting, RouteSpan, SecondaryGic, Via,
};
use serde::Serialize;

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
        Self {
            source: source.name.clone(),
            model: description.model.as_ref().map(|model| model.value.clone()),
            cpus: description.cpus.iter().map(CpuRow::of).collect(),
            gic: description.gic.as_ref().map(GicRow::of),
            secondary_gics: description.secondary_gics.iter().map(SecondaryGicRow::of).collect(),
            controllers: description
                .controllers
                .iter()
                .map(|one| ControllerRow::of(description, one))
                .collect(),
            capacity: CapacityRow::all_of(description, known),
            devices: requesters::all(description)
                .iter()
                .map(|requester| DeviceRow::of(description, requester))
                .collect(),
            findings: description.findings.iter().map(FindingRow::of).collect(),
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
    fn of(gic: &Gic) -> Self {
        let stride = gic.redistributor_stride.as_ref().map(|stride| stride.value);
        Self {
            id: gic.id.to_string(),
            version: gic.version.number(),
            distributor: gic.distributor.base(),
            redistributors: gic
                .redistributors
                .iter()
                .map(|region| RedistributorRow { base: region.base(), size: region.size(), stride })
                .collect(),
        }
    }
}

impl SecondaryGicRow {
    fn of(secondary: &SecondaryGic) -> Self {
        let parent = secondary.parent.as_ref().map(|parent| ParentRow {
            controller: parent.controller.to_string(),
            intid: parent.intid.map(gic_firmware::IntId::get),
        });
        let enabled = secondary.gic.status.is_enabled();
        Self { gic: GicRow::of(&secondary.gic), enabled, parent }
    }
}

impl ControllerRow {
    fn of(description: &Description, controller: &Controller) -> Self {
        Self {
            id: controller.id.to_string(),
            kind: controller.kind.to_string(),
            enabled: controller.status.is_enabled(),
            gic: description.gic_of(controller).map(|gic| gic.id.to_string()),
            doorbells: description.doorbells(controller),
            ranges: controller
                .ranges
                .iter()
                .map(|range| RangeRow { first: range.first().get(), count: range.count() })
                .collect(),
            device_id_bits: controller.device_id_bits(),
            isolates: isolates(controller),
        }
    }
}

impl DeviceRow {
    fn of(description: &Description, requester: &Requester<'_>) -> Self {
        let controllers: Vec<_> =
            requester.spans.iter().map(|span| description.controller(span.controller)).collect();
        let routes = requester.spans.iter().zip(&controllers);
        let routes = routes.filter_map(|(span, controller)| {
            let streams = requester.streams(span).into_iter();
            let streams = streams.filter_map(|stream| StreamRow::of(description, stream));
            Some(RouteRow::of(*span, (*controller)?, requester.msi, streams.collect()))
        });
        let streams = requester.unrouted_streams().into_iter();
        let streams = streams.filter_map(|stream| StreamRow::of(description, stream)).collect();
        let routes = routes.collect();
        let controllers: Vec<_> = controllers.iter().flatten().copied().collect();
        Self {
            id: requester.id.to_string(),
            kind: requester.kind.to_owned(),
            enabled: requester.status.is_enabled(),
            isolation: isolation(&controllers),
            routes,
            streams,
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
        let mut iommus: Vec<String> = Vec::new();
        for stream in &streams {
            let state = if stream.enabled { "" } else { " (disabled)" };
            let name = format!("{}{state}", stream.iommu);
            if !iommus.contains(&name) {
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
    fn of(description: &Description, stream: Stream<'_>) -> Option<Self> {
        let Stream { rid_base, length, id_base: stream_id_base, .. } = stream;
        let iommu = description.iommu(stream.iommu)?;
        let enabled = iommu.status.is_enabled();
        Some(Self { iommu: iommu.id.to_string(), enabled, rid_base, length, stream_id_base })
    }
}

/// Returns the property or table entry that defines a route, as a text for the output.
fn statement(msi: &MsiRouting, via: Via) -> String {
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
fn isolation(controllers: &[&Controller]) -> String {
    let open = controllers.iter().find(|controller| !isolates(controller));
    match (controllers, open) {
        ([], _) => "no controller".to_owned(),
        (_, None) => "isolated by the ITS, per DeviceID".to_owned(),
        (_, Some(controller)) => {
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
