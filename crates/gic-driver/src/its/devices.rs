//! Devices: the device table, interrupt translation tables, per-attachment event quotas, and event
//! blocks with the commands that map and discard them.
//!
//! Commands are created lazily, when the queue draws them with its lock held.

use super::command_queue::CommandSpan;
use super::error::{ItsError, fault};
use super::routes::{Collections, EventRoute, EventRoutes};
use super::tables::{ControlFrame, ItsTable, TableConstraints};
use crate::Alignment;
use crate::block_allocator::BlockAllocator;
use crate::lpi::LpiRange;
use crate::platform::{ADDRESS_BITS, GicPlatform, Table};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use doorbell_fallible::SortedMap;
use gic_arch::Lpi;
use gic_arch::gits::Typer;
use gic_arch::its::{CollectionId, Command, ITT_ALIGNMENT, MapAction, RawCommand, RdBase};
use msi_types::{Attachment, DeviceId, RequesterId, Shape};

/// Maximum number of EventID bits, because PCI MSI messages have 16 data bits.
pub(crate) const MAX_EVENT_BITS: u8 = 16;
/// Minimum number of EventID bits that MAPD can encode.
const MIN_EVENT_BITS: u8 = 1;

/// A device as the ITS identifies it: all requesters with the same DeviceID.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) itt: Table,
    event_bits: u8,
    pub(crate) mapping: Mapping,
    /// Number of attachments.
    pub(crate) users: u32,
    /// Sum of the quotas of all attachments.
    reserved: u32,
    events: BlockAllocator,
}

/// A device's state at the ITS. MAPD is posted in one batch with the device's first events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapping {
    /// MAPD has not been posted.
    Unmapped,
    /// MAPD was executed or is still in the queue.
    Mapped,
}

/// One attachment's share of a device's events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventQuota {
    pub(crate) device: DeviceId,
    /// Maximum number of events.
    pub(crate) limit: u32,
    /// Number of events in use.
    pub(crate) used: u32,
}

impl Device {
    /// Allocates a table for `events` events. The device starts without quotas.
    pub(crate) fn provision<P: GicPlatform>(
        platform: &P,
        typer: Typer,
        events: u32,
        constraints: TableConstraints,
    ) -> Result<Self, ItsError> {
        const NAME: &str = "an interrupt translation table";
        let event_bits = event_bits(typer, events)?;
        let bytes = u64::from(typer.itt_entry_bytes()) << event_bits;
        let events =
            BlockAllocator::new(0, 1 << event_bits).map_err(|_| ItsError::NoMemory(NAME))?;
        let itt = constraints
            .allocate(platform, bytes.max(ITT_ALIGNMENT), ITT_ALIGNMENT, ADDRESS_BITS)
            .map_err(|error| ItsError::no_table(NAME, error))?;
        Ok(Self { itt, event_bits, mapping: Mapping::Unmapped, users: 0, reserved: 0, events })
    }

    /// Adds an attachment with a quota of `events` events. Returns `false` if the table is too
    /// small for all quotas.
    pub(crate) fn add_quota(&mut self, events: u32) -> bool {
        let reserved = self.reserved.saturating_add(events);
        let fits = reserved <= 1 << self.event_bits;
        if fits {
            self.reserved = reserved;
            self.users += 1;
        }
        fits
    }

    /// Removes an attachment and its quota.
    pub(crate) fn remove_quota(&mut self, quota: &EventQuota) {
        self.users = self.users.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(quota.limit);
    }

    /// Takes over the attachments of the device record that this record replaces.
    pub(crate) fn inherit(&mut self, old: &Self) {
        self.users = old.users;
        self.reserved = old.reserved;
    }

    /// Returns the sum of the attachments' quotas.
    pub(crate) fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Allocates the lowest free block of consecutive events. An aligned group starts at a multiple
    /// of its size.
    pub(crate) fn allocate_events(&mut self, count: NonZeroU16, shape: Shape) -> Option<u16> {
        let align = match shape {
            Shape::Independent => Some(Alignment::ONE),
            Shape::AlignedGroup => Alignment::of_group(count.into()),
        };
        let first = self.events.allocate(count.into(), align?).ok()?;
        u16::try_from(first).ok()
    }

    /// Frees an allocated block.
    pub(crate) fn free_events(&mut self, first: u16, count: NonZeroU16) {
        let result = self.events.free(first.into(), count.into());
        debug_assert!(result.is_ok(), "the block must be allocated: {result:?}");
    }

    /// Returns `true` if no events are allocated.
    pub(crate) fn is_idle(&self) -> bool {
        self.allocated_events() == 0
    }

    /// Returns the number of allocated events.
    pub(crate) fn allocated_events(&self) -> u32 {
        self.events.capacity() - self.events.available()
    }

    /// Returns the MAPD command for this device.
    pub(crate) fn mapd(&self, device: DeviceId, action: MapAction) -> Command {
        Command::Mapd {
            device,
            itt: self.itt.address,
            event_bits_minus_one: self.event_bits - 1,
            action,
        }
    }
}

/// Returns the EventID bits for a table with at least `events` events. A table occupies at least as
/// much memory as its alignment, so the driver uses all of this memory. The extra events help
/// functions behind a conventional PCI bridge, because they share a DeviceID.
fn event_bits(typer: Typer, events: u32) -> Result<u8, ItsError> {
    let limit = max_event_bits(typer);
    let fills_alignment =
        |bits: &u8| u64::from(typer.itt_entry_bytes()) << bits >= ITT_ALIGNMENT || *bits == limit;
    (MIN_EVENT_BITS..=limit)
        .find(|bits| events <= 1 << bits && fills_alignment(bits))
        .ok_or(ItsError::TooManyEvents { wanted: events, limit: 1 << limit })
}

/// Returns the number of events that a device can have at this ITS.
pub(crate) fn max_events(typer: Typer) -> u32 {
    1 << max_event_bits(typer)
}

fn max_event_bits(typer: Typer) -> u8 {
    typer.event_id_bits().min(MAX_EVENT_BITS)
}

/// A block of events that is being mapped or unmapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventBlock {
    pub(crate) device: DeviceId,
    pub(crate) first_event: u16,
    pub(crate) first_lpi: Lpi,
    pub(crate) count: NonZeroU16,
}

/// Blocks of one device that are unmapped together. A single block needs no allocation.
#[derive(Debug)]
pub(crate) enum EventBlocks {
    None,
    One(EventBlock),
    Many(Vec<EventBlock>),
}

impl EventBlocks {
    pub(crate) fn as_slice(&self) -> &[EventBlock] {
        match self {
            Self::None => &[],
            Self::One(block) => core::slice::from_ref(block),
            Self::Many(blocks) => blocks,
        }
    }
}

impl EventBlock {
    pub(crate) fn lpis(self) -> impl ExactSizeIterator<Item = (u16, Lpi)> + use<> {
        // Neither addition can wrap, because both ranges are allocated.
        let lpi = move |index: u16| {
            Lpi::from_index(self.first_lpi.index() + u32::from(index)).unwrap_or(self.first_lpi)
        };
        (0..self.count.get()).map(move |index| (self.first_event + index, lpi(index)))
    }

    pub(crate) fn range(self) -> LpiRange {
        LpiRange::from_parts(self.first_lpi, self.count.into())
    }
}

/// Creates and encodes all commands at once, when the queue draws the first one. The iterator is
/// empty if `make` returns `None`.
pub(crate) fn made_in_order<const N: usize>(
    make: impl FnOnce() -> Option<[Command; N]>,
) -> impl Iterator<Item = RawCommand> {
    // Nested adapters would take more than 100 instructions for each event that moves.
    let (mut make, mut commands, mut left) = (Some(make), None, 0..N);
    core::iter::from_fn(move || {
        if let Some(make) = make.take() {
            commands = make().map(|made| made.map(Command::encode));
        }
        commands.as_ref()?.get(left.next()?).copied()
    })
}

/// Returns the commands that map an event. If `stale` is empty, this is a MAPTI. Otherwise, the
/// event is mapped to the first collection in `stale`, moved to each of the others, cleared at each
/// of them, and finally moved to its route's collection.
pub(crate) fn map_event<'a>(
    routes: &'a EventRoutes,
    lpi: Lpi,
    route: EventRoute,
    stale: &'a [CollectionId],
) -> impl Iterator<Item = Command> + 'a {
    let (device, event) = (route.device, route.event_id());
    let last = (stale.last() != Some(&route.collection)).then_some(route.collection);
    let collections = stale.iter().copied().chain(last).enumerate();
    collections.flat_map(move |(index, collection)| {
        let map = if index == 0 {
            routes.set(lpi, Some(route));
            Command::Mapti { device, event, intid: lpi.get(), collection }
        } else {
            Command::Movi { device, event, collection }
        };
        let clear = (index < stale.len()).then_some(Command::Clear { device, event });
        [Some(map), clear].into_iter().flatten()
    })
}

/// The commands that unmap events: a DISCARD for each event that has a route, then MAPD to unmap
/// the device (if requested), and a SYNC for each redistributor that one of the events was mapped
/// to. MAPD is always followed by a SYNC, which is for an arbitrary redistributor if the device has
/// no events.
pub(crate) struct DiscardCommands<'a, I> {
    routes: &'a EventRoutes,
    collections: &'a Collections,
    lpis: I,
    unmap: Option<Command>,
    targets: &'a mut Vec<RdBase>,
}

impl<'a> DiscardCommands<'a, ()> {
    /// Creates the commands. `unmap` is MAPD with V = 0, if the device must be unmapped. `targets`
    /// must be empty, with room for all redistributors.
    pub(crate) fn new(
        routes: &'a EventRoutes,
        collections: &'a Collections,
        blocks: &'a [EventBlock],
        unmap: Option<Command>,
        targets: &'a mut Vec<RdBase>,
    ) -> DiscardCommands<'a, impl Iterator<Item = Lpi>> {
        let lpis = blocks.iter().flat_map(|block| block.lpis().map(|(_, lpi)| lpi));
        DiscardCommands { routes, collections, lpis, unmap, targets }
    }
}

impl<I: Iterator<Item = Lpi>> Iterator for DiscardCommands<'_, I> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        let Self { routes, collections, lpis, unmap, targets } = self;
        let next = lpis.find_map(|lpi| routes.of(lpi).map(|route| (lpi, route)));
        let Some((lpi, route)) = next else {
            if let Some(unmap) = unmap.take() {
                if targets.is_empty() {
                    targets.extend(collections.any_target());
                }
                return Some(unmap);
            }
            return targets.pop().map(|target| Command::Sync { target });
        };
        routes.set(lpi, None);
        if let Some(target) = collections.target(route.collection)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
        Some(Command::Discard { device: route.device, event: route.event_id() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.targets.len() + usize::from(self.unmap.is_some()), None)
    }
}

/// Resources that can't be freed until the ITS has executed some commands.
#[derive(Debug)]
pub(crate) struct DeferredUnmap {
    pub(super) posted: CommandSpan,
    pub(super) rest: VecDeque<Command>,
    pub(super) resources: Resources,
}

/// Resources to free once the ITS can no longer use them.
#[derive(Debug)]
pub(crate) enum Resources {
    /// Events and their LPIs, of a device that stays mapped.
    Events(EventBlocks),
    /// A device's table, and the LPIs for its remaining events.
    Device {
        /// The MAPD command with V = 0, which unmaps the device.
        unmap: Command,
        itt: Table,
        blocks: EventBlocks,
    },
}

impl Resources {
    pub(super) fn blocks(&self) -> &EventBlocks {
        match self {
            Self::Events(blocks) | Self::Device { blocks, .. } => blocks,
        }
    }

    pub(super) fn unmap(&self) -> Option<Command> {
        match self {
            Self::Events(_) => None,
            Self::Device { unmap, .. } => Some(*unmap),
        }
    }
}

/// The attached devices, and the table where the ITS looks them up.
#[derive(Debug)]
pub(super) struct DeviceTable {
    pub(super) table: ItsTable,
    id_bits: u8,
    /// The attached devices. The room for a new one must have been [reserved](Self::reserve).
    pub(super) attached: SortedMap<DeviceId, Device>,
    /// Quotas, indexed by [`Attachment`] cookie.
    quotas: SortedMap<u32, EventQuota>,
    next_cookie: u32,
}

impl DeviceTable {
    pub(super) fn new(table: ItsTable) -> Self {
        let id_bits = u8::try_from(table.ids().ilog2()).unwrap_or(u8::MAX);
        let (attached, quotas) = (SortedMap::new(), SortedMap::new());
        Self { table, id_bits, attached, quotas, next_cookie: 0 }
    }

    /// Checks that the device table has an entry for the device.
    pub(super) fn check_id(&self, id: DeviceId) -> Result<(), ItsError> {
        if u64::from(id.get()) < self.table.ids() {
            Ok(())
        } else {
            Err(ItsError::DeviceIdOutOfRange { id, bits: self.id_bits })
        }
    }

    /// Allocates memory for a device, a quota, and the device's entry in the table.
    pub(super) fn reserve<P: GicPlatform>(
        &mut self,
        frame: &ControlFrame<P>,
        id: DeviceId,
    ) -> Result<(), ItsError> {
        let no_memory = |_| ItsError::NoMemory("a device's attachment");
        self.quotas.reserve().map_err(no_memory)?;
        self.attached.reserve().map_err(no_memory)?;
        self.table
            .ensure(frame, id.get())
            .map_err(|error| ItsError::no_table("a second-level ITS table", error))
    }

    /// Removes a device if it has neither quotas nor events.
    pub(super) fn remove_unused(&mut self, id: DeviceId) -> Option<Device> {
        let device = self.attached.get(id)?;
        let unused = device.users == 0 && device.is_idle();
        if unused { self.attached.remove(id) } else { None }
    }

    /// Adds a quota of up to `limit` events. The memory for the record must have been
    /// [reserved](Self::reserve). The attachment's requester is the DeviceID.
    pub(super) fn add_quota(&mut self, device: DeviceId, limit: u32) -> Attachment {
        // Attachments are few, so a free number is found quickly.
        while self.quotas.contains(self.next_cookie) {
            self.next_cookie = self.next_cookie.wrapping_add(1);
        }
        self.quotas.insert(self.next_cookie, EventQuota { device, limit, used: 0 });
        Attachment::new(RequesterId::new(device.get()), self.next_cookie)
    }

    pub(super) fn quota(&self, attachment: &Attachment) -> Option<&EventQuota> {
        self.quotas.get(attachment.cookie())
    }

    pub(super) fn remove_quota(&mut self, attachment: &Attachment) -> Option<EventQuota> {
        self.quotas.remove(attachment.cookie())
    }

    /// Allocates events from a quota. `base` is the address of the ITS, which errors report.
    pub(super) fn allocate_events(
        &mut self,
        base: u64,
        attachment: &Attachment,
        count: NonZeroU16,
        shape: Shape,
    ) -> Result<(DeviceId, u16), ItsError> {
        let unknown = fault(base, "MAPTI", "the attachment does not belong to this ITS");
        let quota = self.quotas.get_mut(attachment.cookie()).ok_or(unknown)?;
        let none = ItsError::NoEvents { wanted: count.get(), limit: quota.limit };
        let used = quota.used + u32::from(count.get());
        if used > quota.limit {
            return Err(none);
        }
        let known = self.attached.get_mut(quota.device).ok_or(unknown)?;
        let first = known.allocate_events(count, shape).ok_or(none)?;
        quota.used = used;
        Ok((quota.device, first))
    }

    /// Returns events to a quota. The events stay allocated in the device's table.
    pub(super) fn return_events(&mut self, attachment: &Attachment, count: NonZeroU16) {
        if let Some(quota) = self.quotas.get_mut(attachment.cookie()) {
            quota.used = quota.used.saturating_sub(count.get().into());
        }
    }

    /// Frees a device's allocated events.
    pub(super) fn free_events(&mut self, id: DeviceId, first: u16, count: NonZeroU16) {
        if let Some(known) = self.attached.get_mut(id) {
            known.free_events(first, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_itt_covers_its_events_and_is_no_larger_than_needed(events in 1_u32..=65_536) {
            let typer = Typer::new().with_event_id_bits_minus_one(31);
            let bits = event_bits(typer, events).unwrap();
            prop_assert!(events <= 1 << bits);
            let half = bits - 1;
            let half_is_free = u64::from(typer.itt_entry_bytes()) << half >= ITT_ALIGNMENT;
            prop_assert!(!half_is_free || events > 1 << half);
        }
    }

    #[test]
    fn a_small_itt_fills_the_required_alignment() {
        let typer = Typer::new().with_event_id_bits_minus_one(15).with_itt_entry_bytes_minus_one(7);
        assert_eq!(event_bits(typer, 1), Ok(5), "32 entries of 8 bytes");
        assert_eq!(event_bits(typer.with_event_id_bits_minus_one(2), 1), Ok(3));
    }

    #[test]
    fn the_event_count_is_limited_by_16_bit_message_data() {
        let typer = Typer::new().with_event_id_bits_minus_one(31);
        let error = ItsError::TooManyEvents { wanted: 65_537, limit: 65_536 };
        assert_eq!(event_bits(typer, 65_537), Err(error));
    }

    #[test]
    fn the_event_count_is_limited_by_gits_typer() {
        let typer = Typer::new().with_event_id_bits_minus_one(4);
        assert_eq!(event_bits(typer, 33), Err(ItsError::TooManyEvents { wanted: 33, limit: 32 }));
    }
}
