//! Common form of all kinds of requesters, for tables, pictures and routes.
//!
//! A requester's spans and streams cover only what functions can use: maps are reduced to the buses
//! behind the host, and to the first entry for each requester ID. Thus each requester ID is in at
//! most one span of a map and in at most one stream, and both lists can be joined in linear time.

pub mod first_match;

use crate::work;
use gic_firmware::{
    BusRange, ConfigAccess, Description, Fact, IommuIndex, IommuReference, IommuRouting,
    MsiRouting, NodeId, Origin, PciHost, PlatformDevice, RequesterId, RouteSpan, Status, Via,
};
use std::ops::Range;

/// A PCI host, a bridge that has its own map, or a device.
#[derive(Debug)]
pub struct Requester<'d> {
    /// Node, or structure.
    pub id: &'d NodeId,
    /// Kind, such as `PCI host` or the `compatible` string.
    pub kind: &'d str,
    /// Whether firmware enables it.
    pub status: &'d Fact<Status>,
    /// Statements about its messages.
    pub msi: &'d MsiRouting,
    /// Routes to MSI controllers.
    pub spans: Vec<RouteSpan>,
    passage: Passage<'d>,
}

/// The IOMMUs that a requester's accesses pass through.
#[derive(Debug)]
enum Passage<'d> {
    /// Streams by requester ID, sorted and disjoint.
    Sorted(Vec<Stream<'d>>),
    /// Streams that apply to every requester: those of a device outside PCI, or those of a map with
    /// a mask, because a mask maps several requester IDs to one.
    Every(Vec<Stream<'d>>),
}

/// Consecutive requesters that pass through an IOMMU.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'d> {
    /// The IOMMU.
    pub iommu: IommuIndex,
    /// First requester ID. If the map has a mask, this is a masked ID.
    pub rid_base: u32,
    /// Number of requesters.
    pub length: u32,
    /// StreamID of the first requester. `None` if firmware doesn't state a StreamID, or if the
    /// StreamID doesn't fit into 32 bits.
    pub id_base: Option<u32>,
    pub(crate) origin: &'d Origin,
}

/// Returns all requesters: hosts first, each followed by its bridges, then devices.
pub fn all(description: &Description) -> impl Iterator<Item = Requester<'_>> {
    let hosts = description.hosts.iter().flat_map(move |host| {
        let ids = ids(host.buses.value);
        let own = Requester {
            id: &host.id,
            kind: host.compatible.first().map_or("pci", String::as_str),
            status: &host.status,
            msi: &host.msi,
            spans: usable(description.host_spans(host), &host.msi, &ids),
            passage: by_map(&host.iommu, &ids),
        };
        let bridges = host.bridges.iter().map(move |bridge| Requester {
            id: &bridge.id,
            kind: "pci bridge",
            status: &bridge.status,
            msi: &bridge.msi,
            spans: usable(description.bridge_spans(bridge), &bridge.msi, &ids),
            passage: by_map(&host.iommu, &ids),
        });
        std::iter::once(own).chain(bridges)
    });
    hosts.chain(description.devices.iter().map(|device| Requester {
        id: &device.id,
        kind: device.compatible.first().map_or("platform", String::as_str),
        status: &device.status,
        msi: &device.msi,
        spans: usable(description.device_spans(device), &device.msi, &ANY),
        passage: passage(device),
    }))
}

/// Returns `true` if the host names no MSI controller, but may have one of its own, which
/// devicetrees do not always describe. Bridges that are no more than ECAM have none.
pub fn may_have_its_own(host: &PciHost) -> bool {
    let is_ecam =
        host.config.as_ref().is_some_and(|config| matches!(config.value, ConfigAccess::Ecam(_)));
    host.msi.is_empty() && !is_ecam
}

/// Parses a function's address, such as `0000:01:00.0`, or `01:00.0` without the segment.
pub fn function_address(text: &str) -> Option<(Option<u32>, RequesterId)> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let hex = |digits: &str, most: u32| {
        u32::from_str_radix(digits, 16).ok().filter(|number| *number <= most)
    };
    let (segment, bus) = match rest.rsplit_once(':') {
        Some((segment, bus)) => (Some(hex(segment, u32::MAX)?), bus),
        None => (None, rest),
    };
    let id = hex(bus, 0xff)? << 8 | hex(device, 0x1f)? << 3 | hex(function, 7)?;
    Some((segment, RequesterId::new(id)))
}

/// All requester IDs.
const ANY: Range<u64> = 0..1 << 32;

/// Returns the requester IDs of the functions on `buses`.
fn ids(buses: BusRange) -> Range<u64> {
    u64::from(buses.first) << 8..(u64::from(buses.last) + 1) << 8
}

/// Returns the spans for requesters with these IDs. Spans from a map are in ascending order and
/// disjoint, unless the map has a mask.
fn usable(
    spans: impl IntoIterator<Item = RouteSpan>,
    msi: &MsiRouting,
    ids: &Range<u64>,
) -> Vec<RouteSpan> {
    let is_masked = msi.mask.as_ref().is_some_and(|mask| mask.value != u32::MAX);
    let (of_map, others): (Vec<_>, Vec<_>) =
        spans.into_iter().partition(|span| matches!(span.via, Via::Map(_)));
    let cut = |span: &RouteSpan, (rid_base, length): (u32, u32)| {
        let skipped = rid_base.checked_sub(span.rid_base.get())?;
        let device_id_base = span.device_id_base.get().checked_add(skipped)?;
        let (rid_base, device_id_base) = (rid_base.into(), device_id_base.into());
        Some(RouteSpan { rid_base, length, device_id_base, ..*span })
    };
    let parts = |spans: &[RouteSpan]| {
        first_match::parts(spans.iter().map(|span| (span.rid_base.get(), span.length)), ids)
    };
    let mut usable: Vec<_> = if is_masked {
        of_map.into_iter().filter(|span| span.length > 0).collect()
    } else {
        let parts = parts(&of_map).into_iter();
        parts.filter_map(|(entry, part)| cut(of_map.get(entry)?, part)).collect()
    };
    let others = others.iter().filter_map(|span| {
        let (_, part) = *parts(std::slice::from_ref(span)).first()?;
        cut(span, part)
    });
    usable.extend(others);
    usable
}

fn passage(device: &PlatformDevice) -> Passage<'_> {
    if device.iommu.map.is_empty() {
        Passage::Every(device.iommus.iter().map(stream_of_device).collect())
    } else {
        by_map(&device.iommu, &ANY)
    }
}

/// Returns the streams of requesters with these IDs.
fn by_map<'d>(routing: &'d IommuRouting, ids: &Range<u64>) -> Passage<'d> {
    let stream = |(entry, (base, length)): (usize, (u32, u32))| {
        let entry = routing.map.get(entry)?;
        let skipped = base.checked_sub(entry.rid_base.get())?;
        Some(Stream {
            iommu: entry.iommu?,
            rid_base: base,
            length,
            id_base: entry.stream_id_base.and_then(|first| first.checked_add(skipped)),
            origin: &entry.origin,
        })
    };
    let entries = routing.map.iter().map(|entry| (entry.rid_base.get(), entry.length));
    let Some(mask) = routing.mask.as_ref().filter(|mask| mask.value != u32::MAX) else {
        let parts = first_match::parts(entries, ids).into_iter();
        return Passage::Sorted(parts.filter_map(stream).collect());
    };
    // Linux refuses the rest of a map from an entry on that the mask cannot lead to.
    let entries = entries.take_while(|(base, _)| base & !mask.value == 0).enumerate();
    Passage::Every(entries.filter(|(_, (_, length))| *length > 0).filter_map(stream).collect())
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

impl<'d> Requester<'d> {
    /// Returns the streams for those requesters in `span` that pass through an IOMMU.
    pub fn streams(&self, span: &RouteSpan) -> impl ExactSizeIterator<Item = Stream<'d>> {
        let first = span.rid_base.get();
        self.streams_within(first, first.saturating_add(span.length))
    }

    /// Returns the streams for all requesters if no requester has a route; otherwise returns none.
    pub fn unrouted_streams(&self) -> impl ExactSizeIterator<Item = Stream<'d>> {
        let all = self.streams_within(0, u32::MAX);
        let count = if self.spans.is_empty() { all.len() } else { 0 };
        all.take(count)
    }

    fn streams_within(&self, first: u32, end: u32) -> impl ExactSizeIterator<Item = Stream<'d>> {
        let (streams, bounds) = match &self.passage {
            Passage::Every(streams) => (streams.as_slice(), None),
            Passage::Sorted(streams) => {
                let low = streams.partition_point(|one| one.end() <= u64::from(first));
                let high = streams.partition_point(|one| one.rid_base < end);
                (streams.get(low..high).unwrap_or_default(), Some((first, end)))
            }
        };
        streams.iter().map(move |one| {
            work::step();
            bounds.map_or(*one, |(first, end)| one.within(first, end))
        })
    }
}

impl Stream<'_> {
    fn end(&self) -> u64 {
        u64::from(self.rid_base) + u64::from(self.length)
    }

    /// Returns the part of a stream that covers requesters in `first..end`, which must overlap it.
    fn within(self, first: u32, end: u32) -> Self {
        let low = self.rid_base.max(first);
        let high = self.rid_base.saturating_add(self.length).min(end);
        Self {
            rid_base: low,
            length: high.saturating_sub(low),
            id_base: self.id_base.and_then(|base| base.checked_add(low - self.rid_base)),
            ..self
        }
    }
}
