//! The contents of `doorbell inspect`, in the shape of its JSON.

use crate::source::Source;
use gic_firmware::{
    Controller, ControllerKind, Description, Fact, Finding, Gic, IommuRouting, MsiRouting, NodeId,
    PciBridge, PciHost, PlatformDevice, RouteSpan, StreamEntry, Via,
};
use serde::Serialize;

/// Everything that a description says about interrupts.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    pub(crate) source: String,
    pub(crate) model: Option<String>,
    pub(crate) cpus: Vec<CpuRow>,
    pub(crate) gic: Option<GicRow>,
    pub(crate) controllers: Vec<ControllerRow>,
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

#[derive(Debug, Serialize)]
pub(crate) struct RedistributorRow {
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// `null` where firmware states none: the redistributors themselves say it.
    pub(crate) stride: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ControllerRow {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) enabled: bool,
    pub(crate) doorbells: Vec<u64>,
    pub(crate) ranges: Vec<RangeRow>,
    /// Width of DeviceIDs, where firmware bounds it (a pre-ITS window); else the ITS's own register
    /// does.
    pub(crate) device_id_bits: Option<u32>,
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
}

#[derive(Debug, Serialize)]
pub(crate) struct RouteRow {
    pub(crate) rid_base: u32,
    pub(crate) length: u32,
    pub(crate) controller: String,
    pub(crate) device_id_base: u32,
    pub(crate) via: String,
    /// The IOMMUs that some of these requesters pass.
    pub(crate) iommus: Vec<String>,
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
    /// Reports on `source`.
    pub(crate) fn of(source: &Source) -> Self {
        let description = &source.description;
        let hosts = description.hosts.iter().flat_map(|host| {
            let bridges = host.bridges.iter();
            let bridges = bridges.map(|bridge| DeviceRow::of_bridge(description, host, bridge));
            core::iter::once(DeviceRow::of_host(description, host)).chain(bridges)
        });
        let devices =
            description.devices.iter().map(|device| DeviceRow::of_device(description, device));
        Self {
            source: source.name.clone(),
            model: description.model.as_ref().map(|model| model.value.clone()),
            cpus: description.cpus.iter().map(CpuRow::of).collect(),
            gic: description.gic.as_ref().map(GicRow::of),
            controllers: description
                .controllers
                .iter()
                .map(|one| ControllerRow::of(description, one))
                .collect(),
            devices: hosts.chain(devices).collect(),
            findings: description.findings.iter().map(FindingRow::of).collect(),
        }
    }
}

impl CpuRow {
    fn of(cpu: &gic_firmware::Cpu) -> Self {
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

impl ControllerRow {
    fn of(description: &Description, controller: &Controller) -> Self {
        Self {
            id: controller.id.to_string(),
            kind: controller.kind.to_string(),
            enabled: controller.status.is_enabled(),
            doorbells: description.doorbells(controller),
            ranges: controller
                .ranges
                .iter()
                .map(|range| RangeRow { first: range.first().get(), count: range.count() })
                .collect(),
            device_id_bits: controller.device_id_bits(),
        }
    }
}

impl DeviceRow {
    fn of_host(description: &Description, host: &PciHost) -> Self {
        let kind = host.compatible.first().map_or("pci", String::as_str);
        let spans: Vec<_> = description.host_spans(host).collect();
        Self::new(
            description,
            (&host.id, kind, host.status.is_enabled()),
            (&host.msi, &host.iommu),
            &spans,
        )
    }

    fn of_bridge(description: &Description, host: &PciHost, bridge: &PciBridge) -> Self {
        let spans: Vec<_> = description.bridge_spans(bridge).collect();
        let what = (&bridge.id, "pci bridge", bridge.status.is_enabled());
        Self::new(description, what, (&bridge.msi, &host.iommu), &spans)
    }

    fn of_device(description: &Description, device: &PlatformDevice) -> Self {
        let kind = device.compatible.first().map_or("platform", String::as_str);
        let spans = description.device_spans(device);
        Self::new(
            description,
            (&device.id, kind, device.status.is_enabled()),
            (&device.msi, &IommuRouting::default()),
            &spans,
        )
    }

    fn new(
        description: &Description,
        (id, kind, enabled): (&NodeId, &str, bool),
        (msi, iommu): (&MsiRouting, &IommuRouting),
        spans: &[RouteSpan],
    ) -> Self {
        let controllers: Vec<&Controller> =
            spans.iter().filter_map(|span| description.controller(span.controller)).collect();
        let routes = spans
            .iter()
            .zip(&controllers)
            .map(|(span, controller)| RouteRow {
                rid_base: span.rid_base.get(),
                length: span.length,
                controller: controller.id.to_string(),
                device_id_base: span.device_id_base.get(),
                via: statement(msi, span.via),
                iommus: passed(description, iommu, *span),
            })
            .collect();
        Self {
            id: id.to_string(),
            kind: kind.to_owned(),
            enabled,
            isolation: isolation(&controllers),
            routes,
        }
    }
}

/// The names of the IOMMUs that requesters of `span` pass.
fn passed(description: &Description, routing: &IommuRouting, span: RouteSpan) -> Vec<String> {
    let mask = routing.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
    let (first, last) = (span.rid_base.get(), span.rid_base.get().saturating_add(span.length));
    let overlaps = |entry: &&Fact<StreamEntry>| {
        let entry_last = entry.rid_base.get().saturating_add(entry.length);
        // A mask folds requester IDs: any of them may pass.
        mask != u32::MAX || (entry.rid_base.get() < last && first < entry_last)
    };
    let mut names: Vec<String> = Vec::new();
    for entry in routing.map.iter().filter(overlaps) {
        let Some(iommu) = entry.iommu.and_then(|index| description.iommu(index)) else { continue };
        let state = if iommu.status.is_enabled() { "" } else { " (disabled)" };
        let name = format!("{}{state}", iommu.id);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The statement that makes a route, in the words of the firmware at hand.
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

/// Says if the controllers that serve a device keep it from triggering others' interrupts.
fn isolation(controllers: &[&Controller]) -> String {
    let open = controllers.iter().find(|controller| controller.kind != ControllerKind::Its);
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
