//! Senders of messages, of whatever kind: one list for the pictures and their routes.

use gic_firmware::{
    Description, Fact, IommuIndex, IommuReference, IommuRouting, MsiRouting, NodeId, RouteSpan,
    Status,
};
use std::collections::BTreeMap;

/// A PCI host, a bridge with a map of its own, or a device.
#[derive(Debug)]
pub(crate) struct Requester<'d> {
    pub(crate) id: &'d NodeId,
    pub(crate) status: &'d Fact<Status>,
    pub(crate) msi: &'d MsiRouting,
    pub(crate) spans: Vec<RouteSpan>,
    passage: Passage<'d>,
}

/// The way of accesses through IOMMUs.
#[derive(Debug)]
enum Passage<'d> {
    /// By requester ID.
    Map(&'d IommuRouting),
    /// All of them.
    All(&'d [Fact<IommuReference>]),
}

/// Everything that signals, hosts first, each before its bridges.
pub(crate) fn all(description: &Description) -> Vec<Requester<'_>> {
    let hosts = description.hosts.iter().flat_map(|host| {
        let passage = || Passage::Map(&host.iommu);
        let bridges = host.bridges.iter().map(move |bridge| Requester {
            id: &bridge.id,
            status: &bridge.status,
            msi: &bridge.msi,
            spans: description.bridge_spans(bridge).collect(),
            passage: passage(),
        });
        let own = Requester {
            id: &host.id,
            status: &host.status,
            msi: &host.msi,
            spans: description.host_spans(host).collect(),
            passage: passage(),
        };
        std::iter::once(own).chain(bridges)
    });
    let devices = description.devices.iter().map(|device| Requester {
        id: &device.id,
        status: &device.status,
        msi: &device.msi,
        spans: description.device_spans(device),
        passage: Passage::All(&device.iommus),
    });
    hosts.chain(devices).collect()
}

impl Requester<'_> {
    /// The IOMMUs that requesters of `span` pass, each with the first statement that says so.
    pub(crate) fn iommus(&self, span: &RouteSpan) -> Vec<Fact<IommuIndex>> {
        let stated: Vec<Fact<IommuIndex>> = match self.passage {
            Passage::All(passed) => {
                passed.iter().map(|one| Fact::new(one.iommu, one.origin.clone())).collect()
            }
            Passage::Map(routing) => passed(routing, span),
        };
        let mut firsts = BTreeMap::new();
        for fact in stated {
            firsts.entry(fact.value).or_insert(fact);
        }
        firsts.into_values().collect()
    }
}

/// Entries of a map that hold some requester of `span`. A mask folds requester IDs: any may pass.
fn passed(routing: &IommuRouting, span: &RouteSpan) -> Vec<Fact<IommuIndex>> {
    let last = span.rid_base.get().saturating_add(span.length);
    let overlaps = |first: u32, length: u32| {
        routing.mask.is_some()
            || (first < last && span.rid_base.get() < first.saturating_add(length))
    };
    let entries = routing.map.iter().filter(|entry| overlaps(entry.rid_base.get(), entry.length));
    entries.filter_map(|entry| Some(Fact::new(entry.iommu?, entry.origin.clone()))).collect()
}
