//! Numbers the structures and segments to write. An item keeps the number that the description
//! states; every other item receives the lowest free number.

use super::error::{WriteError, WriteErrorKind};
use crate::controller::{Controller, ControllerKind};
use crate::description::Description;
use crate::origin::NodeId;
use crate::requester::PciHost;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Returns the number at the end of `id`, if `id` is a name that the reader would assign.
pub(super) fn number(id: &NodeId, prefix: &str) -> Option<u32> {
    id.as_str().strip_prefix(prefix)?.parse().ok()
}

/// Returns a number for each of `ids`: the number in the identifier, or else the lowest free
/// number.
pub(super) fn numbers<'d>(ids: impl Iterator<Item = &'d NodeId> + Clone, prefix: &str) -> Vec<u32> {
    let mut taken: Vec<u32> = ids.clone().filter_map(|id| number(id, prefix)).collect();
    taken.sort_unstable();
    let mut free = (0..=u32::MAX).filter(|number| taken.binary_search(number).is_err());
    ids.map(|id| number(id, prefix).or_else(|| free.next()).unwrap_or_default()).collect()
}

/// Returns the enabled controllers of `kind`, with their indices in the description and their
/// numbers.
pub(super) fn numbered<'d>(
    description: &'d Description,
    kind: &ControllerKind,
    prefix: &str,
) -> Vec<(usize, &'d Controller, u32)> {
    let all = description.controllers.iter().enumerate();
    let these: Vec<_> =
        all.filter(|(_, one)| one.kind == *kind && one.status.is_enabled()).collect();
    let numbers = numbers(these.iter().map(|(_, one)| &one.id), prefix);
    these.into_iter().zip(numbers).map(|((place, one), number)| (place, one, number)).collect()
}

/// The enabled hosts with their segments, in the order of the description.
pub(super) struct Segments<'d>(Vec<(u32, &'d PciHost)>);

impl<'d> Segments<'d> {
    pub(super) fn of(description: &'d Description) -> Result<Self, WriteError> {
        let enabled = || description.hosts.iter().filter(|host| host.status.is_enabled());
        let stated = |host: &PciHost| host.segment.as_ref().map(|segment| segment.value);
        let taken: Vec<u32> = enabled().filter_map(stated).collect();
        let mut free = (0..=u32::MAX).filter(|number| !taken.contains(number));
        let hosts: Vec<_> = enabled()
            .map(|host| (stated(host).or_else(|| free.next()).unwrap_or_default(), host))
            .collect();
        let mut routings = BTreeMap::new();
        for (segment, host) in &hosts {
            if *routings.entry(*segment).or_insert(&host.msi) != &host.msi {
                return Err(WriteErrorKind::Segment.of(&host.id));
            }
        }
        Ok(Self(hosts))
    }

    /// Returns the hosts with their segments.
    pub(super) fn hosts(&self) -> &[(u32, &'d PciHost)] {
        &self.0
    }

    /// Returns one host of each segment, all of which have the same routing.
    pub(super) fn complexes(&self) -> BTreeMap<u32, &'d PciHost> {
        self.0.iter().rev().copied().collect()
    }
}
