//! Checks what a save has written: compares what a load would read from the tables with what was
//! saved. A guest may let its tables overlap, in which case some of the contents are lost.

use crate::abi::Errno;
use crate::left_out::{LeftOut, TableMemory, add};
use crate::pending::{self, Bit};
use crate::tables::scan::Budget;
use crate::tables::{self, Written};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::cmp::Ordering;
use doorbell_fallible::try_push;
use gic_arch::gicr::Propbaser;
use gic_arch::gits::{Cbaser, Creadr, Cwriter};
use gic_arch::{Lpi, lpi};
use vgic::saved_state::{CollectionState, DeviceState, ItsState, SavedState};
use vgic::{GuestMemory, VgicConfig};

/// Size of a word in bytes.
const WORD: u64 = 8;

/// Memory contents required by the commands of a save. A command may overwrite what an earlier one
/// has written, so everything is read back after each command.
pub(super) struct Expected {
    /// Objects in the tables of each ITS, with the ITS's index in the state.
    pub(super) tables: Vec<(usize, Written)>,
    /// Written pending bits, with their values.
    pub(super) bits: Vec<(Bit, bool)>,
    kept_bits: Vec<(Bit, bool)>,
    kept_words: Vec<(u64, u64)>,
}

impl Expected {
    /// Reads what the commands must not change. Called before the first command.
    pub(super) fn before_save(
        state: &SavedState,
        memory: &dyn GuestMemory,
    ) -> Result<Self, TryReserveError> {
        let (kept_bits, kept_words) =
            (pending::expected(state, memory, true)?, kept(state, memory)?);
        Ok(Self { tables: Vec::new(), bits: Vec::new(), kept_bits, kept_words })
    }

    /// Returns what a load would not read as it was saved.
    pub(super) fn differences(
        &self,
        config: &VgicConfig,
        state: &SavedState,
        memory: &dyn GuestMemory,
    ) -> Result<LeftOut, Errno> {
        let mut left_out = LeftOut::default();
        count_differences(config, state, &self.tables, memory, &mut left_out)?;
        let is_changed = |kept: &&(u64, u64)| memory.read_u64(kept.0) != Ok(kept.1);
        add(&mut left_out.changed, self.kept_words.iter().filter(is_changed).count());
        let is_wrong = |(bit, set): &&(Bit, bool)| bit.peek(memory) == Some(!set);
        let bits = self.bits.iter().chain(&self.kept_bits);
        add(&mut left_out.changed, bits.filter(is_wrong).count());
        Ok(left_out)
    }
}

/// Reads the words that a save must not change, with their addresses: configurations of mapped
/// LPIs, and commands that no ITS has executed. Omits words outside memory.
fn kept(state: &SavedState, memory: &dyn GuestMemory) -> Result<Vec<(u64, u64)>, TryReserveError> {
    let table = state.cpus.first().map_or(0, |cpu| cpu.redistributor.propbaser);
    let table = Propbaser::from(table);
    let mapped = state.its.iter().flat_map(|its| &its.devices).flat_map(|it| &it.events);
    let lpis = mapped.filter_map(|event| Lpi::try_from(event.intid).ok());
    let lpis = lpis.filter(|lpi| lpi.get() >> table.id_bits() == 0);
    let configurations = lpis.map(|lpi| (table.address() + lpi::config_offset(lpi)) & !(WORD - 1));
    let mut words = Vec::new();
    for address in configurations.chain(state.its.iter().flat_map(waiting_commands)) {
        if let Ok(word) = memory.read_u64(address) {
            try_push(&mut words, (address, word))?;
        }
    }
    Ok(words)
}

/// Iterates over the addresses of the words between `GITS_CREADR` and `GITS_CWRITER`.
pub(super) fn waiting_commands(its: &ItsState) -> impl Iterator<Item = u64> + use<> {
    let queue = Cbaser::from_bits(its.cbaser);
    let bytes = u64::from(queue.bytes()).max(1);
    let first = u64::from(Creadr::from_bits(its.creadr).offset()) % bytes;
    let end = u64::from(Cwriter::from_bits(its.cwriter).offset()) % bytes;
    let offsets = (0..(end + bytes - first) % bytes).step_by(8);
    offsets.map(move |offset| queue.address() + (first + offset) % bytes)
}

/// Counts, in `left_out`, what a load would not read as it was saved. `written` are the objects in
/// the tables of each ITS, with the ITS's index in the state.
fn count_differences(
    config: &VgicConfig,
    state: &SavedState,
    written: &[(usize, Written)],
    memory: &dyn GuestMemory,
    left_out: &mut LeftOut,
) -> Result<(), Errno> {
    let mut ignored = LeftOut::default();
    let memory = &mut TableMemory::new(memory, &mut ignored);
    for (index, written) in written {
        let Some(its) = state.its.get(*index) else { continue };
        let mut budget = Budget::new(config.its_devices, config.its_events);
        match tables::restore(its, &state.cpus, memory, &mut budget, &mut None) {
            Err(Errno::NoMemory) if !budget.is_exhausted() => return Err(Errno::NoMemory),
            Err(_) => add(&mut left_out.refused, 1),
            Ok(read) => {
                let expected = rows(&its.collections, &its.devices);
                let expected = expected.filter(|row| is_written(written, row));
                let found = rows(&read.collections, &read.devices);
                add(&mut left_out.changed, differing(expected, found));
            }
        }
    }
    Ok(())
}

/// Key and value of a collection (0, number), a device (DeviceID + 1, 0) or an event (DeviceID + 1,
/// EventID + 1).
type Row = ([u64; 2], [u64; 2]);

/// Iterates over the mappings of an ITS, in the order of their keys.
fn rows<'a>(
    collections: &'a [CollectionState],
    devices: &'a [DeviceState],
) -> impl Iterator<Item = Row> + 'a {
    let of_collection =
        |it: &CollectionState| ([0, it.collection.get().into()], [it.target.packed().into(), 0]);
    let of_device = |device: &'a DeviceState| {
        let key = u64::from(device.device.get()) + 1;
        let events = device.events.iter().map(move |it| {
            (
                [key, u64::from(it.event.get()) + 1],
                [it.intid.get().into(), it.collection.get().into()],
            )
        });
        core::iter::once(([key, 0], [device.event_bits.into(), device.itt])).chain(events)
    };
    collections.iter().map(of_collection).chain(devices.iter().flat_map(of_device))
}

/// Returns `true` if the save did not leave the row out.
fn is_written(written: &Written, (key, value): &Row) -> bool {
    match *key {
        [0, collection] => written.has_collection(collection),
        [device, 0] => written.has_device(device - 1),
        [device, _] => written.has_device(device - 1) && written.has_collection(value[1]),
    }
}

/// Returns the number of keys whose rows differ.
fn differing(left: impl Iterator<Item = Row>, right: impl Iterator<Item = Row>) -> usize {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    let mut count = 0;
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return count,
            (Some(left), Some(right)) => left.0.cmp(&right.0),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let taken = left.next_if(|_| order.is_le());
        count += usize::from(taken != right.next_if(|_| order.is_ge()));
    }
}
