//! Saved state for an ITS: its registers and mappings.

#[cfg(feature = "serde")]
use super::numbers;
use alloc::vec::Vec;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::{DeviceId, EventId};

/// An ITS's state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct ItsState {
    /// Guest physical address of the ITS's control frame, which identifies the ITS in the state.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub base: u64,
    /// `GITS_CTLR`. Only `Enabled` is restored.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub ctlr: u32,
    /// `GITS_IIDR`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub iidr: u32,
    /// `GITS_TYPER`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub typer: u64,
    /// `GITS_CBASER`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub cbaser: u64,
    /// `GITS_CWRITER`. The ITS has not begun to execute the commands from `creadr` up to this
    /// offset.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub cwriter: u64,
    /// `GITS_CREADR`, with `Stalled`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub creadr: u64,
    /// `GITS_BASER0` (devices) and `GITS_BASER1` (collections); the others are zero.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex_array"))]
    pub baser: [u64; 8],
    /// Mapped collections, in number order.
    pub collections: Vec<CollectionState>,
    /// Mapped devices, in DeviceID order.
    pub devices: Vec<DeviceState>,
}

/// State of a mapped collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CollectionState {
    /// The collection's number.
    #[cfg_attr(feature = "serde", serde(with = "numbers::collection"))]
    pub collection: CollectionId,
    /// Affinity of the target redistributor's CPU.
    #[cfg_attr(feature = "serde", serde(with = "numbers::affinity"))]
    pub target: Affinity,
}

impl CollectionState {
    /// Returns the state of a collection that is mapped to this CPU's redistributor.
    pub const fn new(collection: CollectionId, target: Affinity) -> Self {
        Self { collection, target }
    }
}

/// State of a mapped device.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct DeviceState {
    /// DeviceID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::device"))]
    pub device: DeviceId,
    /// Number of EventID bits.
    pub event_bits: u8,
    /// Guest physical address of the device's interrupt translation table as the guest passed it to
    /// MAPD, aligned to 256 bytes. The model doesn't use the table; it is only written when the
    /// state is saved in KVM's format.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub itt: u64,
    /// Mapped events, in EventID order.
    pub events: Vec<EventState>,
}

impl DeviceState {
    /// Returns the state of a device without mapped events.
    pub const fn new(device: DeviceId, event_bits: u8, itt: u64) -> Self {
        Self { device, event_bits, itt, events: Vec::new() }
    }

    /// Iterates over the longest runs of the events.
    pub(crate) fn runs(&self) -> impl Iterator<Item = EventRun<'_>> {
        let runs = self.events.chunk_by(|before, event| event.continues(before));
        runs.map(|events| {
            let first = events.first().map(|event| event.collection);
            let has_one_collection = events.iter().all(|event| Some(event.collection) == first);
            EventRun { events, has_one_collection }
        })
    }
}

/// Events of which each [continues](EventState::continues) its predecessor.
#[derive(Clone, Copy)]
pub(crate) struct EventRun<'s> {
    pub(crate) events: &'s [EventState],
    /// `true` if all events have the same collection.
    has_one_collection: bool,
}

impl EventRun<'_> {
    /// Iterates over the collections, each with the number of consecutive events in it.
    pub(crate) fn groups(self) -> impl Iterator<Item = (CollectionId, u32)> {
        let mut rest = self.events;
        core::iter::from_fn(move || {
            let collection = rest.first()?.collection;
            let has_same = |event: &&EventState| event.collection == collection;
            let all = rest.len();
            let count = if self.has_one_collection {
                all
            } else {
                rest.iter().take_while(has_same).count()
            };
            rest = rest.get(count..)?;
            Some((collection, u32::try_from(count).ok()?))
        })
    }
}

/// State of a mapped event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct EventState {
    /// EventID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::event"))]
    pub event: EventId,
    /// The LPI's INTID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::intid"))]
    pub intid: IntId,
    /// Number of the event's collection, which may be unmapped.
    #[cfg_attr(feature = "serde", serde(with = "numbers::collection"))]
    pub collection: CollectionId,
    /// The LPI is pending at the collection's redistributor. If LPIs are disabled there, the
    /// pending state takes effect when they are enabled.
    pub pending: bool,
    /// Redistributor that keeps the pending state if the collection is not mapped. `None` means
    /// any.
    #[cfg_attr(feature = "serde", serde(with = "numbers::optional_affinity"))]
    pub stays_at: Option<Affinity>,
    /// The LPI's configuration byte as it was last read, with the upper five bits of the priority.
    /// If `None`, a restore reads the byte from the guest's table.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub configuration: Option<u8>,
}

impl EventState {
    /// Returns the state of an event that is not pending and whose configuration byte a restore
    /// reads from the guest's table.
    pub const fn new(event: EventId, intid: IntId, collection: CollectionId) -> Self {
        Self { event, intid, collection, pending: false, stays_at: None, configuration: None }
    }

    /// Returns `true` if this event has the next EventID and the next LPI after another event, and
    /// the rest in common with it except for the collection. An event whose configuration is read
    /// from memory, or that names a redistributor, stands alone.
    #[inline]
    fn continues(&self, before: &Self) -> bool {
        let numbers = |state: &Self| (u64::from(state.event.get()), u64::from(state.intid.get()));
        let ((event, intid), (event_before, intid_before)) = (numbers(self), numbers(before));
        let has_same_configuration = match (self.configuration, before.configuration) {
            (Some(configuration), Some(before)) => configuration == before,
            _ => false,
        };
        event == event_before + 1
            && intid == intid_before + 1
            && self.pending == before.pending
            && has_same_configuration
            && self.stays_at.is_none()
            && before.stays_at.is_none()
    }
}
