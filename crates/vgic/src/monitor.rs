//! Types shared by the model and its VMM: guest memory for LPI tables, ITS tables and commands,
//! register accesses, progress of work that is done in bounded pieces, the seam to hardware that
//! injects messages directly (GICv4), and the log of guest errors.

pub(crate) mod events;
#[cfg(feature = "vm-memory")]
pub(crate) mod rust_vmm;

use gic_arch::Lpi;
use gic_arch::its::Command;
use gic_arch::lpi::Config;
use msi_types::{Cpu, DeviceId, EventId};

/// Width of an access to a register frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AccessWidth {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
    /// Eight bytes.
    Double,
}

/// Error for an access size other than 1, 2, 4 or 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a register access has 1, 2, 4 or 8 bytes, not {0}")]
pub struct BadWidth(pub usize);

impl AccessWidth {
    /// Returns the width in bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> u32 {
        1 << self as u32
    }

    /// Returns a mask that covers this width.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

impl TryFrom<usize> for AccessWidth {
    type Error = BadWidth;

    fn try_from(bytes: usize) -> Result<Self, BadWidth> {
        match bytes {
            1 => Ok(Self::Byte),
            2 => Ok(Self::Half),
            4 => Ok(Self::Word),
            8 => Ok(Self::Double),
            other => Err(BadWidth(other)),
        }
    }
}

/// Guest physical memory as the GIC sees it. The virtual machine monitor implements this trait.
///
/// Addresses come from the guest, so implementations must check each of them, and must return
/// [`MemoryFault`] if there is no memory at an address. The model may access memory on any thread
/// and with locks held, but never on the injection path. An implementation must not call into the
/// model.
///
/// With the feature `vm-memory`, [`VmMemory`](crate::VmMemory) implements this trait for the memory
/// types in rust-vmm's `vm-memory` crate.
pub trait GuestMemory: Send + Sync {
    /// Fills `bytes` with the memory at `address`.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not memory; `bytes` may then be partly filled.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault>;

    /// Writes `bytes` to the memory at `address`. If the VMM tracks dirty pages, the implementation
    /// must mark the written pages.
    ///
    /// # Errors
    /// [`MemoryFault`] if any byte of the range is not memory; the rest may or may not have been
    /// written.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault>;

    /// Reads a little-endian 64-bit word. An implementation should use a single access if it can,
    /// because the guest may concurrently write the word.
    ///
    /// # Errors
    /// Same as for [`read`](Self::read).
    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads an ITS command: four little-endian 64-bit words (IHI 0069 §5.3). `address` is a
    /// multiple of 32. Intended for implementations for which [`read`](Self::read) is slow.
    ///
    /// # Errors
    /// Same as for [`read`](Self::read).
    fn read_command(&self, address: u64) -> Result<[u64; 4], MemoryFault> {
        let mut words = [[0; 8]; 4];
        self.read(address, words.as_flattened_mut())?;
        Ok(words.map(u64::from_le_bytes))
    }

    /// Writes a little-endian 64-bit word. An implementation should use a single access if it can.
    ///
    /// # Errors
    /// Same as for [`write`](Self::write).
    fn write_u64(&self, address: u64, word: u64) -> Result<(), MemoryFault> {
        self.write(address, &word.to_le_bytes())
    }
}

/// Error for an address, chosen by the guest, where the guest has no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the guest has no memory at {address:#x}")]
pub struct MemoryFault {
    /// First address of the access.
    pub address: u64,
}

/// Progress of work that the guest requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "unfinished work continues only when the caller calls again"]
pub enum Progress {
    /// The work is complete.
    Done,
    /// Work remains, because it exceeds the budget of one access.
    Unfinished,
}

impl Progress {
    pub(crate) const fn done(is_done: bool) -> Self {
        if is_done { Self::Done } else { Self::Unfinished }
    }
}

/// Translation of an event to which messages are delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DirectTarget {
    /// The event's LPI.
    pub lpi: Lpi,
    /// vCPU to which the LPI is routed.
    pub cpu: Cpu,
    /// The LPI's enable bit and priority.
    pub config: Config,
    /// `true` if the LPI was pending in the model. It no longer is, so the caller must make the
    /// virtual LPI pending, or signal the message to the model again.
    pub pending: bool,
}

/// The LPI of an event is in a list register, so it is unknown whether it is still pending. The
/// vCPU has been kicked, and the lookup succeeds after the vCPU has exited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the LPI is in a list register")]
pub struct InListRegister;

/// Looks up an event. Returns `None` if its messages are dropped.
pub type Translate<'a> =
    dyn FnMut(DeviceId, EventId) -> Result<Option<DirectTarget>, InListRegister> + 'a;

/// Delivers the messages of some events by hardware. The model does not see them, so the
/// implementation must follow the guest's commands.
///
/// The implementation must take all events back, and signal their pending state to the model,
/// before the model is saved or reset and before the guest disables an ITS or a vCPU's LPIs.
///
/// The model may hold its locks during a call. An implementation may signal messages to the model,
/// but must not call it otherwise.
#[doc(alias = "kvm_vgic_v4_set_forwarding")]
pub trait DirectInjection: Send + Sync {
    /// Called before an ITS executes a command, on the thread that executes it, but not before
    /// SYNC, which changes no event. Returns `true` for an INT command of a direct event, which the
    /// implementation has executed; the model then skips the command. The model always executes
    /// CLEAR, because a message may have arrived before the event was direct.
    fn before(&self, command: Command) -> bool;

    /// Called after an ITS has executed a command other than SYNC, on the thread that executed it,
    /// before the guest can observe its completion. `None` means that the command failed, and
    /// changed nothing. A command for one event also changes the configuration of the other events
    /// that are mapped to its LPI. Returns the number of events that it had to follow. Each counts
    /// as another command, so that the guest cannot make an exit take long.
    ///
    /// # Errors
    /// [`InListRegister`] if a lookup failed. The command completes after another call.
    fn after(
        &self,
        command: Option<Command>,
        translate: &mut Translate<'_>,
    ) -> Result<u32, InListRegister>;

    /// Returns `true` if hardware delivers the messages of an event that is mapped to this LPI. The
    /// model then doesn't know whether the LPI is pending.
    fn is_direct(&self, lpi: Lpi) -> bool;
}
