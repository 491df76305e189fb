//! All kinds of requesters in one list, for pictures and routes.

use gic_firmware::{
    Description, Fact, IommuIndex, IommuReference, IommuRouting, MsiRouting, NodeId, Origin,
    PlatformDevice, RouteSpan, Status, StreamEntry,
};
use std::collections::BTreeMap;

/// A PCI host, a bridge that has its own map, or a device.
#[derive(Debug)]
pub(crate) struct Requester<'d> {
    pub(crate) id: &'d NodeId,
    pub(crate) kind: &'d str,
    pub(crate) status: &'d Fact<Status>,
    pub(crate) msi: &'d MsiRouting,
    pub(crate) spans: Vec<RouteSpan>,
    passage: Passage<'d>,
}

/// The IOMMUs that a requester's accesses pass through.
#[derive(Debug)]
enum Passage<'d> {
    /// IOMMUs by requester ID.
    Map(&'d IommuRouting),
    /// IOMMUs that all accesses pass through.
    All(&'d [Fact<IommuReference>]),
}

/// Consecutive requesters that pass through an IOMMU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream<'d> {
    pub(crate) iommu: IommuIndex,
    /// First requester ID. If the map has a mask, this is a masked ID.
    pub(crate) rid_base: u32,
    pub(crate) length: u32,
    /// StreamID of the first requester. `None` if firmware doesn't state a StreamID, or if the
    /// StreamID doesn't fit into 32 bits.
    pub(crate) id_base: Option<u32>,
    origin: &'d Origin,
}

/// Returns all requesters: hosts first, each followed by its bridges, then devices.
pub(crate) fn all(description: &Description) -> Vec<Requester<'_>> {
    let hosts = description.hosts.iter().flat_map(|host| {
        let bridges = host.bridges.iter().map(move |bridge| Requester {
            id: &bridge.id,
            kind: "pci bridge",
            status: &bridge.status,
            msi: &bridge.msi,
            spans: description.bridge_spans(bridge).collect(),
            passage: Passage::Map(&host.iommu),
        });
        let own = Requester {
            id: &host.id,
            kind: host.compatible.first().map_or("pci", String::as_str),
            status: &host.status,
            msi: &host.msi,
            spans: description.host_spans(host).collect(),
            passage: Passage::Map(&host.iommu),
        };
        std::iter::once(own).chain(bridges)
    });
    let devices = description.devices.iter().map(|device| Requester {
        id: &device.id,
        kind: device.compatible.first().map_or("platform", String::as_str),
        status: &device.status,
        msi: &device.msi,
        spans: description.device_spans(device),
        passage: passage(device),
    });
    hosts.chain(devices).collect()
}

fn passage(device: &PlatformDevice) -> Passage<'_> {
    if device.iommu.map.is_empty() {
        Passage::All(&device.iommus)
    } else {
        Passage::Map(&device.iommu)
    }
}

impl<'d> Requester<'d> {
    /// Returns the IOMMUs that requesters in `span` pass through, each with the first statement
    /// that refers to it.
    pub(crate) fn iommus(&self, span: &RouteSpan) -> Vec<Fact<IommuIndex>> {
        let mut firsts = BTreeMap::new();
        for stream in self.streams(span) {
            firsts.entry(stream.iommu).or_insert(Fact::new(stream.iommu, stream.origin.clone()));
        }
        firsts.into_values().collect()
    }

    /// Returns the streams for those requesters in `span` that pass through an IOMMU.
    pub(crate) fn streams(&self, span: &RouteSpan) -> Vec<Stream<'d>> {
        let first = span.rid_base.get();
        self.streams_within(first, first.saturating_add(span.length))
    }

    /// Returns the streams for all requesters if no requester has a route; otherwise returns none.
    pub(crate) fn unrouted_streams(&self) -> Vec<Stream<'d>> {
        if self.spans.is_empty() { self.streams_within(0, u32::MAX) } else { Vec::new() }
    }

    fn streams_within(&self, first: u32, end: u32) -> Vec<Stream<'d>> {
        match self.passage {
            Passage::All(passed) => passed.iter().map(stream_of_device).collect(),
            Passage::Map(routing) => {
                // A mask maps several requester IDs to one, so any requester may match any entry.
                let is_masked = routing.mask.as_ref().is_some_and(|mask| mask.value != u32::MAX);
                let (first, end) = if is_masked { (0, u32::MAX) } else { (first, end) };
                routing.map.iter().filter_map(|entry| part(entry, first, end)).collect()
            }
        }
    }
}

/// Returns the stream for a device outside PCI. The stream's requester ID is 0.
fn stream_of_device(passed: &Fact<IommuReference>) -> Stream<'_> {
    Stream {
        iommu: passed.iommu,
        rid_base: 0,
        length: 1,
        id_base: passed.stream_id(),
        origin: &passed.origin,
    }
}

/// Returns the part of an entry that covers requesters in `first..end`.
fn part(entry: &Fact<StreamEntry>, first: u32, end: u32) -> Option<Stream<'_>> {
    let (base, last) = (entry.rid_base.get(), entry.rid_base.get().saturating_add(entry.length));
    let (low, high) = (base.max(first), last.min(end));
    Some(Stream {
        iommu: entry.iommu?,
        rid_base: low,
        length: high.checked_sub(low).filter(|&length| length > 0)?,
        id_base: entry.stream_id_base.and_then(|first| first.checked_add(low - base)),
        origin: &entry.origin,
    })
}
