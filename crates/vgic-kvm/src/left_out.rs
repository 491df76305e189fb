//! Record of the table contents that a save or restore could not transfer.

use crate::abi::Errno;
use crate::rehearsal::Rehearsal;
use core::fmt;
use vgic::{GuestMemory, MemoryFault};

/// Counts of the state that a [`KvmView`](crate::KvmView) could not save or restore.
///
/// A guest that places its tables outside memory causes nonzero counts, but must not prevent its
/// own migration. The counts are also nonzero if the VMM's own accesses to guest memory fail. In
/// that case, the restored guest may never receive an LPI. A VMM should log every `LeftOut` that is
/// not [empty](Self::is_empty), and should abort the migration if
/// [`first_fault`](Self::first_fault) is in the guest's RAM.
///
/// Counts saturate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LeftOut {
    /// Number of mapped devices that a save left out, together with all their events.
    pub devices: u32,
    /// Number of events that a save left out because it left out their collection. Events on
    /// left-out devices aren't counted.
    pub events: u32,
    /// Number of collections that are mapped or used by an event, and that a save left out.
    pub collections: u32,
    /// Number of pending bits that could not be read or written. For a save, this includes pending
    /// LPIs that have no bit in a pending table.
    pub pending_bits: u32,
    /// Number of ITSes whose tables a save has written, but a restore would refuse, because the
    /// guest's tables overlap or are larger than a restore reads.
    pub refused: u32,
    /// Number of objects that a save has written, but a restore would read otherwise, because the
    /// guest's tables overlap: collections, devices, events, pending bits, configurations of mapped
    /// LPIs, and commands that wait in the queue.
    pub changed: u32,
    /// Number of active SPIs that a restore would take for active at another CPU, because the
    /// CPUs' active priorities don't tell which one has acknowledged them.
    pub active_spis: u32,
    /// Number of ITSes that a restore has enabled, and that have executed commands, but that have
    /// no collection and no event in their tables. Guest memory was probably copied before the
    /// tables were saved.
    pub empty_its: u32,
    /// Number of bits in attributes that a restore has dropped because the machine doesn't have
    /// them. This includes all fields of SPIs beyond the machine's last one.
    pub attribute_bits: u32,
    /// Number of attributes in a snapshot that its restore ignores, because the snapshot's machine
    /// does not have them.
    pub attributes: u32,
    /// Number of failed accesses to tables. If a restore can't read a table, it doesn't know how
    /// many devices or collections it has left out, so it only counts the access.
    pub faults: u32,
    /// First failed access. If the guest has placed a table outside memory, a later failure in RAM
    /// is not recorded here.
    pub first_fault: Option<MemoryFault>,
}

impl LeftOut {
    /// Returns `true` if nothing was left out and every access succeeded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing was left out");
        }
        let Self { devices, events, collections, pending_bits, faults, first_fault, .. } = *self;
        let [devices, events] = [Count(devices, "device"), Count(events, "event")];
        let [collections, bits] =
            [Count(collections, "collection"), Count(pending_bits, "pending bit")];
        write!(f, "left out {devices}, {events}, {collections} and {bits}")?;
        for (count, name, what) in [
            (self.refused, "ITS", "whose tables a restore refuses"),
            (self.changed, "object", "that a restore reads otherwise, because tables overlap"),
            (self.active_spis, "active SPI", "whose CPU the format does not contain"),
            (self.empty_its, "enabled ITS", "without mappings: was memory copied too early?"),
            (self.attribute_bits, "attribute bit", "that the machine does not have"),
            (self.attributes, "attribute", "that the snapshot's machine does not have"),
        ] {
            if count > 0 {
                write!(f, "; {} {what}", Count(count, name))?;
            }
        }
        first_fault.map_or(Ok(()), |first| {
            write!(f, "; {}, first: {first}", Count(faults, "memory fault"))
        })
    }
}

/// Number of objects, with their name in the singular.
struct Count(u32, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, name) = self;
        let plural = if name.ends_with('S') { "es" } else { "s" };
        write!(f, "{number} {name}{}", if *number == 1 { "" } else { plural })
    }
}

/// Adds to a count in a [`LeftOut`].
pub(super) fn add(count: &mut u32, more: usize) {
    *count = count.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
}

/// Guest memory that contains the tables, and the record of a save or restore.
pub(super) struct TableMemory<'a> {
    pub(super) memory: &'a dyn GuestMemory,
    pub(super) left_out: &'a mut LeftOut,
    /// `Some` if a restore must fail where KVM fails, instead of treating a table that it can't
    /// read as empty.
    pub(super) rehearsal: Option<&'a mut Rehearsal>,
}

impl<'a> TableMemory<'a> {
    pub(super) fn new(memory: &'a dyn GuestMemory, left_out: &'a mut LeftOut) -> Self {
        Self { memory, left_out, rehearsal: None }
    }

    pub(super) const fn is_strict(&self) -> bool {
        self.rehearsal.is_some()
    }

    /// Reads bytes that are in one page.
    pub(super) fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let outcome = self.memory.read(address, bytes);
        self.record(outcome)?;
        self.note(address)
    }

    /// Notes that a rehearsal has read from this address.
    pub(super) fn note(&mut self, address: u64) -> Result<(), Errno> {
        self.rehearsal.as_mut().map_or(Ok(()), |rehearsal| rehearsal.note(address))
    }

    pub(super) fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let outcome = self.memory.write(address, bytes);
        self.record(outcome)
    }

    pub(super) fn read_u64(&mut self, address: u64) -> Result<u64, Errno> {
        let outcome = self.memory.read_u64(address);
        let word = self.record(outcome)?;
        self.note(address)?;
        Ok(word)
    }

    pub(super) fn write_u64(&mut self, address: u64, word: u64) -> Result<(), Errno> {
        let outcome = self.memory.write_u64(address, word);
        self.record(outcome)
    }

    /// Counts a fault, and converts it to the error that KVM returns for a table outside guest
    /// memory.
    fn record<T>(&mut self, outcome: Result<T, MemoryFault>) -> Result<T, Errno> {
        outcome.map_err(|fault| {
            self.left_out.first_fault.get_or_insert(fault);
            add(&mut self.left_out.faults, 1);
            Errno::Fault
        })
    }
}
