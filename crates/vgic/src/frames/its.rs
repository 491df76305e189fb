//! The Interrupt Translation Service (IHI 0069 §5): registers, command queue, and the doorbell.
//!
//! Commands are executed at register accesses: a write to `GITS_CWRITER` or `GITS_CTLR`, and a read
//! of `GITS_CREADR`, do up to a budget's worth ([`ItsConfig::work_per_access`]). So neither a full
//! queue nor a command about all that is mapped holds a vCPU up for long. What is left goes on when
//! the guest polls `GITS_CREADR`, and when a vCPU is about to sleep or to enter the guest
//! ([`Vgic::poll`](crate::Vgic::poll)). A command that was begun and not finished is not consumed:
//! `GITS_CREADR` stays at it.
//!
//! Only the write that sets `GITS_CTLR.Enabled` goes through all that is mapped, unless the monitor
//! asks for pieces ([`Vgic::begin_write`](crate::Vgic::begin_write)).
//!
//! # What the architecture leaves open
//!
//! | | here |
//! |---|---|
//! | a command error | recorded ([`Vgic::command_faults`](crate::Vgic::command_faults), and counted in [`Vgic::events`](crate::Vgic::events)); then the command is skipped, or the queue stalls until `GITS_CWRITER.Retry`: [`ErrorPolicy`]. Never an SError (`SEIS` = 0), never another value in place of a wrong one |
//! | a queue that lies outside of memory | stalls, whatever the policy |
//! | bits 15:12 of `GITS_CBASER` that are not zero | treated as zero; recorded when `GITS_CTLR.Enabled` is set ([`FaultReason::UnalignedQueue`]) |
//! | a table that is not aligned to its page size, or not in memory | recorded when `GITS_CTLR.Enabled` is set ([`FaultReason::UnalignedItsTable`], [`FaultReason::ItsTable`]). Commands do not fail because of it: the model keeps mappings in its own memory |
//! | `GITS_CWRITER` beyond the queue | the write is dropped |
//! | MAPD, MAPTI of what is mapped already | mapped anew; what was pending of it is gone |
//! | a command about virtual LPIs (GICv4) | a command error |
//! | MAPTI of a collection that is not mapped | taken; messages are dropped until MAPC |
//! | MAPD, MAPC with V = 0 of what is not mapped | no error |
//! | DISCARD while the collection is unmapped | works |
//! | MAPC elsewhere, MOVI | pending state goes along. MOVALL moves what is pending, and maps nothing anew |
//! | an identifier whose first-level table entry becomes invalid | stays mapped |
//! | a table that loses `Valid` while the ITS is disabled | takes what was mapped in it along |
//! | two events on one LPI | each can be pending: the LPI may be delivered twice |
//! | more than the model's budget | the command fails like an error of its own kind ([`CommandFault::NoRoom`]) |
//! | no memory left on the heap | a command that maps, moves or invalidates an event or maps a device fails likewise ([`CommandFault::OutOfMemory`]). One about all that is mapped waits, as does the queue; it goes on when it is polled. `GITS_CTLR.Enabled` stays 0 |

mod commands;
mod execution;
mod queue;
mod registers;
mod saved;
mod tables;
mod targets;
#[cfg(not(shuttle))]
#[cfg(test)]
mod tests;

pub use crate::config::{
    Coherence, ErrorPolicy, ItsConfig, ItsConfigError, PageSizes, RedistributorNaming, TableLevels,
};
pub use crate::monitor::events::{CommandFault, CommandFaultLog, FailedCommand};
pub(crate) use saved::{LockedIts, RestoredRegisters};
pub(crate) use targets::Targets;

use crate::config::ConfigError;
use crate::frames::registers::{Frame, Refusal};
use crate::lpi::{DeviceTable, Injection, ItsIndex, LpiCore, NoRoom};
use crate::monitor::access::AccessWidth;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::monitor::progress::Progress;
use crate::sync::lock::Mutex;
use alloc::sync::Arc;
use core::fmt;
use doorbell_fallible::{OutOfMemory, try_arc};
use gic_arch::gits;
use msi_types::{Delivery, DeviceId, EventId, MsiMessage, SignalMsi};
use queue::Queue;
use tables::TableRegisters;

/// An ITS of a virtual GIC.
pub(crate) struct Its {
    config: ItsConfig,
    index: ItsIndex,
    targets: Targets,
    device_table: Arc<DeviceTable>,
    lpis: Arc<LpiCore>,
    events: Arc<EventLog>,
    state: Mutex<ItsRegisters>,
}

/// The registers' values, and the work behind them.
struct ItsRegisters {
    enabled: bool,
    queue: Queue,
    tables: TableRegisters,
    faults: CommandFaultLog,
    /// Is more to do than the last access did?
    left: bool,
    /// The last access found nothing more to do, not even something that waits.
    is_done: bool,
}

impl fmt::Debug for Its {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Its").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Its {
    /// An ITS after reset: disabled, nothing mapped. `targets` names the redistributors of `lpis`'s
    /// vCPUs in the way that `config` says.
    ///
    /// # Errors
    /// What [`ItsConfig::validate`] says, and [`OutOfMemory`].
    pub(crate) fn new(
        config: ItsConfig,
        targets: Targets,
        lpis: Arc<LpiCore>,
        events: Arc<EventLog>,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let device_table = try_arc(DeviceTable::new(config.device_id_bits)?)?;
        let index =
            lpis.add_its(config.base, device_table.clone()).map_err(|no_room| match no_room {
                NoRoom::Budget => ConfigError::Its(ItsConfigError::TooMany),
                NoRoom::OutOfMemory => ConfigError::OutOfMemory(OutOfMemory),
            })?;
        let state = Mutex::new(ItsRegisters::new(&config));
        Ok(Self { config, index, targets, device_table, lpis, events, state })
    }

    /// Back to the state after reset: disabled, nothing mapped. What was pending of its devices is
    /// gone.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        self.lpis.note_work(&mut state.left, Progress::Done);
        *state = ItsRegisters::new(&self.config);
        self.lpis.with_kicks_deferred(|control| {
            control.set_its_enabled(self.index, false);
            control.unmap_all_devices(self.index);
            control.unmap_collections_from(self.index, 0);
            control.unmap_finally(self.index);
        });
    }

    /// Reads a register of the two frames. What is refused reads as zero.
    pub(crate) fn read(&self, offset: u32, width: AccessWidth) -> u64 {
        let refused = &mut |refusal: Refusal| self.refused(refusal, FaultDetail::None);
        let value = Frame::ITS.read(self, offset, width, refused);
        self.lpis.send_kicks();
        value
    }

    /// Writes a register of the two frames. What is refused is ignored. Enabling is only begun.
    pub(crate) fn begin_write(&self, offset: u32, width: AccessWidth, value: u64) {
        let refused = &mut |refusal: Refusal| self.refused(refusal, FaultDetail::Value(value));
        Frame::ITS.write(self, offset, width, value, refused);
        self.lpis.send_kicks();
    }

    fn refused(&self, refusal: Refusal, detail: FaultDetail) {
        self.events.record(refusal.at(self.frame(), detail));
    }

    const fn frame(&self) -> RegisterFrame {
        RegisterFrame::Its(self.config.base)
    }

    /// Records a mistake at a register.
    fn fault(&self, register: u32, reason: FaultReason, detail: FaultDetail) {
        self.events.record(GuestFault::new(reason, (self.frame(), register), detail));
    }

    /// As [`begin_write`](Self::begin_write), and finishes what it began.
    #[cfg(not(shuttle))]
    #[cfg(test)]
    fn write(&self, offset: u32, width: AccessWidth, value: u64) {
        self.begin_write(offset, width, value);
        self.finish_enabling();
    }

    /// Was the ITS enabled, and does that not hold for every event yet?
    pub(crate) fn is_enabling(&self) -> bool {
        self.lpis.with_kicks_deferred(|control| control.is_admitting(self.index))
    }

    /// Finishes what enabling the ITS began, in time that is in proportion to what is mapped.
    pub(crate) fn finish_enabling(&self) {
        // With no lock held: others go on meanwhile, and a kick may come back to these registers.
        if self.lpis.finish_enabling_its(self.index).is_err() {
            self.give_up_enabling(&mut self.state.lock());
        }
    }

    /// If the heap has no memory for what enabling takes, the ITS is disabled again.
    fn give_up_enabling(&self, state: &mut ItsRegisters) {
        self.lpis.with_kicks_deferred(|control| {
            if control.is_admission_starved(self.index) {
                state.enabled = false;
                state.is_done = false;
                control.set_its_enabled(self.index, false);
            }
        });
    }

    /// Executes a further piece of the queue, if commands are waiting.
    pub(crate) fn poll(&self) {
        self.run(&mut self.state.lock());
        self.lpis.send_kicks();
    }

    /// As [`poll`](Self::poll), if something is left over or waits, and no other thread is at work.
    pub(crate) fn try_poll(&self) {
        if let Some(mut state) = self.state.try_lock()
            && (state.left || state.queue.has_begun())
            && !self.lpis.is_busy()
        {
            self.run(&mut state);
            drop(state);
            self.lpis.send_kicks();
        }
    }

    /// Finishes what was begun. For a machine that stands still.
    pub(crate) fn finish(&self) {
        self.finish_begun(&mut self.state.lock());
    }

    /// The command faults so far.
    pub(crate) fn command_faults(&self) -> CommandFaultLog {
        self.state.lock().faults
    }

    /// A device's write to `GITS_TRANSLATER`: 16 or 32 bits, zero-extended. Lock-free; any thread.
    #[inline]
    pub(crate) fn translate(&self, device: DeviceId, data: u32) -> Delivery {
        match self.lpis.signal(&self.device_table, device.get(), data) {
            Injection::Fresh | Injection::Coalesced => Delivery::Pending,
            Injection::Dropped => self.dropped(device, data),
        }
    }

    #[cold]
    #[inline(never)]
    fn dropped(&self, device: DeviceId, data: u32) -> Delivery {
        let is_mapped = self.lpis.is_mapped(&self.device_table, device.get(), data);
        let reason =
            if is_mapped { FaultReason::DisabledMessage } else { FaultReason::UnmappedMessage };
        let detail = FaultDetail::Message { device, event: EventId::new(data) };
        self.fault(gits::TRANSLATER.offset(), reason, detail);
        Delivery::Blocked
    }
}

impl SignalMsi<DeviceId> for Its {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        if message.address == self.config.doorbell() {
            self.translate(from, message.data)
        } else {
            Delivery::NoDoorbell
        }
    }
}

impl ItsRegisters {
    fn new(config: &ItsConfig) -> Self {
        Self {
            enabled: false,
            queue: Queue::default(),
            tables: TableRegisters::new(config),
            faults: CommandFaultLog::default(),
            left: false,
            is_done: false,
        }
    }
}
