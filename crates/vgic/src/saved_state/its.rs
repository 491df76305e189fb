//! An ITS: its registers, and what its commands have mapped.

#[cfg(feature = "serde")]
use super::numbers;
use alloc::vec::Vec;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::{DeviceId, EventId};

/// An ITS.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct ItsState {
    /// Guest physical address of its control frame: which ITS it is.
    pub base: u64,
    /// `GITS_CTLR`: `Enabled` is what counts.
    pub ctlr: u32,
    /// `GITS_IIDR`.
    pub iidr: u32,
    /// `GITS_TYPER`.
    pub typer: u64,
    /// `GITS_CBASER`.
    pub cbaser: u64,
    /// `GITS_CWRITER`. Commands from `creadr` up to it were not begun.
    pub cwriter: u64,
    /// `GITS_CREADR`, with `Stalled`.
    pub creadr: u64,
    /// `GITS_BASER0` (devices), `GITS_BASER1` (collections); the others are zero.
    pub baser: [u64; 8],
    /// The collections that are mapped, by ascending number.
    pub collections: Vec<CollectionState>,
    /// The devices that are mapped, by ascending DeviceID.
    pub devices: Vec<DeviceState>,
}

/// A collection that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CollectionState {
    /// Its number.
    #[cfg_attr(feature = "serde", serde(with = "numbers::collection"))]
    pub collection: CollectionId,
    /// Its redistributor.
    #[cfg_attr(feature = "serde", serde(with = "numbers::affinity"))]
    pub target: Affinity,
}

/// A device that is mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct DeviceState {
    /// Its DeviceID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::device"))]
    pub device: DeviceId,
    /// Bits of its EventIDs.
    pub event_bits: u8,
    /// Guest physical address of its interrupt translation table, as MAPD said: 256-byte aligned.
    /// Nothing is in it but what a save by KVM's format has written there.
    pub itt: u64,
    /// The events that are mapped, by ascending EventID.
    pub events: Vec<EventState>,
}

/// An event that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct EventState {
    /// Its EventID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::event"))]
    pub event: EventId,
    /// Its LPI.
    #[cfg_attr(feature = "serde", serde(with = "numbers::intid"))]
    pub intid: IntId,
    /// Its collection, mapped or not.
    #[cfg_attr(feature = "serde", serde(with = "numbers::collection"))]
    pub collection: CollectionId,
    /// Its LPI is pending at the collection's redistributor; while LPIs are disabled there, held
    /// until they are enabled.
    pub pending: bool,
    /// If the collection is not mapped: the redistributor where what is pending stays. `None` means
    /// any.
    #[cfg_attr(feature = "serde", serde(with = "numbers::optional_affinity"))]
    pub stays_at: Option<Affinity>,
    /// The byte of the LPI's configuration as it was last read, of the priority the upper five
    /// bits. `None`: it is read from the guest's table at the restore.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub configuration: Option<u8>,
}
