//! The Interrupt Translation Service (IHI 0069 §5): registers, command queue and doorbell.
//!
//! The ITS executes commands during register accesses: a write to `GITS_CWRITER` or `GITS_CTLR`, or
//! a read of `GITS_CREADR`, does up to [`ItsConfig::work_per_access`] units of work. Therefore,
//! neither a full queue nor a command that affects all mappings delays a vCPU for long. The ITS
//! continues when the guest polls `GITS_CREADR`, and when a vCPU is about to sleep or to enter the
//! guest ([`Vgic::poll`](crate::Vgic::poll)). A command is consumed only when it is complete; until
//! then, `GITS_CREADR` doesn't move past it.
//!
//! A write that sets `GITS_CTLR.Enabled` visits all mappings, in bounded pieces
//! ([`Vgic::write`](crate::Vgic::write)).
//!
//! # Implementation choices
//!
//! | left open by the architecture | behavior of the model |
//! |---|---|
//! | a command error | recorded ([`Vgic::command_faults`](crate::Vgic::command_faults), and counted in [`Vgic::events`](crate::Vgic::events)); then the command is skipped, or the queue stalls until `GITS_CWRITER.Retry`: [`ErrorPolicy`]. The model never raises an SError (`SEIS` = 0), and never substitutes a valid operand for an invalid one |
//! | a queue outside guest memory | stalls, regardless of the policy |
//! | nonzero bits 15:12 of `GITS_CBASER` | treated as zero; recorded when `GITS_CTLR.Enabled` is set ([`FaultReason::UnalignedQueue`]) |
//! | a table that is not aligned to its page size, or not in memory | recorded when `GITS_CTLR.Enabled` is set ([`FaultReason::UnalignedItsTable`], [`FaultReason::ItsTable`]). Commands don't fail because of it, because the model keeps mappings in host memory |
//! | `GITS_CWRITER` beyond the queue | the write is ignored |
//! | `GITS_BASER<n>` or `GITS_CBASER` written before `GITS_CTLR.Quiescent` was read as 1 | accepted and recorded ([`FaultReason::ItsNotQuiescent`]) |
//! | a device's interrupt translation table that is not in memory | recorded at MAPD ([`FaultReason::TranslationTable`]), which succeeds |
//! | MAPD, MAPC, MAPTI, MAPI of an existing mapping with the same operands | no effect: pending LPIs stay, as with MAPTI in Linux's KVM (`vgic_its_cmd_handle_mapi`) |
//! | MAPD, MAPTI, MAPI of an existing mapping with other operands | replaces the mapping and discards its pending state |
//! | a command for virtual LPIs (GICv4) | a command error |
//! | MAPTI to an unmapped collection | accepted; messages are dropped until MAPC |
//! | MAPD, MAPC with V = 0 of an unmapped device or collection | no error |
//! | DISCARD while the collection is unmapped | works |
//! | MAPC to another redistributor, MOVI | pending state moves with the mapping. MOVALL moves pending state only, and changes no mapping |
//! | an identifier whose first-level table entry becomes invalid | remains mapped |
//! | a table that loses `Valid` while the ITS is disabled | loses its mappings |
//! | two events on one LPI | they have one configuration, as in Linux's KVM (`vgic_add_lpi`): a command that rereads it for one event rereads it for all. Both can be pending, so the LPI may be delivered twice. CLEAR clears the LPI at the event's redistributor; DISCARD leaves it to the other event |
//! | a mapping beyond the model's budget | the command fails with its own reason ([`CommandFault::NoRoom`]) |
//! | an exhausted heap | a command that maps, moves or invalidates an event, or maps a device, fails in the same way ([`CommandFault::OutOfMemory`]). A command that affects other mappings stops the queue until a poll can allocate the memory. `GITS_CTLR.Enabled` stays 0 |

mod commands;
mod execution;
mod explanation;
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
pub(crate) use saved::{check_collection, check_device};
pub(crate) use targets::Targets;

use crate::config::ConfigError;
use crate::frames::registers::{Frame, Refusal};
use crate::lpi::{
    Control, DeviceTable, EntryRef, Injection, ItsIndex, LpiCore, NextStep, NoRoom, NodeLink,
    Pended, Signaled, why_dropped,
};
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::monitor::{AccessWidth, DirectInjection, Progress};
use crate::sync::lock::{Mutex, MutexGuard, Reading};
use crate::sync::set_once::SetOnce;
use alloc::sync::Arc;
use doorbell_fallible::{OutOfMemory, try_arc};
use gic_arch::gits;
use msi_types::explain::TableRegister;
use msi_types::{Delivery, DeviceId, EventId, MsiMessage, SignalMsi};
use queue::Queue;
use tables::TableRegisters;

/// One ITS in a virtual GIC.
pub(crate) struct Its {
    config: ItsConfig,
    /// Address to which devices send messages.
    doorbell: u64,
    index: ItsIndex,
    targets: Targets,
    device_table: Arc<DeviceTable>,
    lpis: Arc<LpiCore>,
    events: Arc<EventLog>,
    state: Mutex<ItsRegisters>,
    /// Hardware that injects messages directly, if any.
    direct: SetOnce<Arc<dyn DirectInjection>>,
}

/// Register values, and the progress of work that register writes have requested.
struct ItsRegisters {
    enabled: bool,
    queue: Queue,
    tables: TableRegisters,
    faults: CommandFaultLog,
    ignored: IgnoredWrites,
    /// `true` if the ITS was disabled, and the guest has not read `Quiescent` as 1 since.
    awaits_quiescence: bool,
    /// The last write to a base register while `awaits_quiescence` was set.
    hasty: Option<(TableRegister, u64)>,
    /// Number of completed commands.
    commands: u64,
    /// `true` if a restore has set the queue, which may have wrapped before.
    has_past: bool,
    /// `true` if work remained after the last access.
    left: bool,
    /// `true` if, after the last access, no work remained and no command was waiting.
    is_done: bool,
}

/// ITS whose registers are locked against changes.
pub(crate) struct LockedIts<'a> {
    its: &'a Its,
    state: MutexGuard<'a, ItsRegisters>,
}

/// For each register, the value of the last write if it was ignored because the ITS was enabled.
#[derive(Clone, Copy, Debug, Default)]
struct IgnoredWrites {
    cbaser: Option<u64>,
    baser: [Option<u64>; 2],
}

msi_types::debug_by!(Its as "Its", |it| {config: it.config});

impl Its {
    /// Creates an ITS in its reset state: disabled, without mappings. `targets` maps RDbase
    /// operands, encoded as `config` selects, to the vCPUs in `lpis`.
    ///
    /// # Errors
    /// `config` is invalid, the machine has too many ITSes, or the heap is exhausted.
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
        let (doorbell, direct) = (config.doorbell(), SetOnce::new());
        Ok(Self { config, doorbell, index, targets, device_table, lpis, events, state, direct })
    }

    /// Locks the registers.
    pub(crate) fn lock(&self) -> LockedIts<'_> {
        LockedIts { its: self, state: self.state.lock() }
    }

    /// Returns the ITS's base address, which identifies the ITS in a saved state.
    pub(crate) fn base(&self) -> u64 {
        self.config.base
    }

    /// Returns the LPI core's index of this ITS.
    pub(crate) fn index(&self) -> ItsIndex {
        self.index
    }

    /// Returns the address of `GITS_TRANSLATER`.
    pub(crate) const fn doorbell(&self) -> u64 {
        self.config.doorbell()
    }

    /// Resets the ITS: disables it, removes all mappings and discards its devices' pending state.
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

    /// Reads a register in either frame. A refused access reads as zero.
    pub(crate) fn read(&self, offset: u32, width: AccessWidth) -> u64 {
        let refused = &mut |refusal: Refusal| self.refused(refusal, FaultDetail::None);
        let value = Frame::ITS.read(self, offset, width, refused);
        self.lpis.send_kicks();
        value
    }

    /// Writes a register in either frame. A refused access is ignored. A write that enables the ITS
    /// only starts the work; [`finish_enabling`](Self::finish_enabling) completes it.
    pub(crate) fn begin_write(&self, offset: u32, width: AccessWidth, value: u64) {
        let refused = &mut |refusal: Refusal| self.refused(refusal, FaultDetail::Value(value));
        Frame::ITS.write(self, offset, width, value, refused);
        self.lpis.send_kicks();
    }

    fn refused(&self, refusal: Refusal, detail: FaultDetail) {
        self.events.record(refusal.at(self.frame(), detail));
    }

    /// Returns the command state for reading.
    fn read_lpis(&self) -> Reading<'_, Control> {
        self.lpis.read(self.index.get().into())
    }

    const fn frame(&self) -> RegisterFrame {
        RegisterFrame::Its(self.config.base)
    }

    /// Records a guest error at a register.
    fn fault(&self, register: u32, reason: FaultReason, detail: FaultDetail) {
        let fault = || GuestFault::new(reason, (self.frame(), register), detail);
        self.events.record_with(reason, fault);
    }

    /// Writes a register as [`begin_write`](Self::begin_write) does, and finishes enabling the ITS.
    #[cfg(not(shuttle))]
    #[cfg(test)]
    fn write(&self, offset: u32, width: AccessWidth, value: u64) {
        self.begin_write(offset, width, value);
        self.finish_enabling();
    }

    /// Returns `true` if the ITS is being enabled: the guest set `Enabled`, but some events can't
    /// be delivered yet.
    pub(crate) fn is_enabling(&self) -> bool {
        self.read_lpis().is_admitting(self.index)
    }

    /// Finishes enabling the ITS, in time proportional to the number of mappings.
    pub(crate) fn finish_enabling(&self) {
        // We must not hold a lock here: other threads have to keep running, and a kick may access
        // these registers.
        if self.lpis.finish_enabling_its(self.index).is_err() {
            self.give_up_enabling(&mut self.state.lock());
        }
    }

    /// Disables the ITS again if there is not enough memory to enable it.
    fn give_up_enabling(&self, state: &mut ItsRegisters) {
        self.lpis.with_kicks_deferred(|control| {
            if control.is_admission_starved(self.index) {
                state.enabled = false;
                state.is_done = false;
                control.set_its_enabled(self.index, false);
            }
        });
    }

    /// Executes the next piece of the queue, if work is left or a command has begun, or if
    /// `has_ended_recall` is set and a command may have waited for that. Returns `false` without
    /// doing so if another thread is already doing it.
    pub(crate) fn try_poll(&self, has_ended_recall: bool) -> bool {
        let Some(mut state) = self.state.try_lock() else { return false };
        if !(has_ended_recall || state.left || state.queue.has_begun()) {
            return true;
        }
        let is_free = !self.lpis.is_busy();
        if is_free {
            self.run(&mut state);
            drop(state);
            self.lpis.send_kicks();
        }
        is_free
    }

    /// Finishes all work in progress. All vCPUs must be paused.
    pub(crate) fn finish(&self) {
        self.finish_begun(&mut self.state.lock());
    }

    /// Returns the command faults so far.
    pub(crate) fn command_faults(&self) -> CommandFaultLog {
        self.state.lock().faults
    }

    /// Handles a device's 16-bit or 32-bit write to `GITS_TRANSLATER`, zero-extended. Lock-free;
    /// may be called on any thread.
    #[inline]
    pub(crate) fn translate(&self, device: DeviceId, data: u32) -> Delivery {
        match self.lpis.signal(&self.device_table, device.get(), data) {
            Ok(signaled) => self.delivery(device, data, signaled),
            Err(NextStep::ByNode(node)) => self.translate_by_node(device, data, node),
            Err(NextStep::Far) => self.translate_far(device, data),
        }
    }

    /// Completes a message.
    #[inline]
    fn delivery(&self, device: DeviceId, data: u32, signaled: Signaled) -> Delivery {
        match signaled {
            Signaled::Coalesced => Delivery::Pending,
            Signaled::Fresh(pended) => Self::notify(&self.lpis, pended),
            Signaled::Dropped => self.dropped(device, data),
        }
    }

    /// Returns the entry of the event that a message signals, if the message is for this ITS and
    /// the fast path covers it. Lock-free; may be called on any thread.
    #[inline]
    pub(crate) fn find(&self, device: DeviceId, message: MsiMessage) -> Option<EntryRef> {
        let is_ours = message.address == self.doorbell;
        is_ours.then(|| LpiCore::find(&self.device_table, device.get(), message.data))?
    }

    /// Completes a message that has made its LPI pending. Callers end in a jump to this function,
    /// so that the fast path of a message needs no stack.
    #[inline(never)]
    fn notify(lpis: &LpiCore, pended: Pended) -> Delivery {
        match lpis.notify(pended) {
            Injection::Fresh | Injection::Coalesced => Delivery::Pending,
            Injection::Dropped => Delivery::Blocked,
        }
    }

    #[inline(never)]
    fn translate_by_node(&self, device: DeviceId, data: u32, node: NodeLink<'_>) -> Delivery {
        match self.lpis.signal_by_node(node, data) {
            Some(signaled) => self.delivery(device, data, signaled),
            None => self.translate_far(device, data),
        }
    }

    #[cold]
    #[inline(never)]
    fn translate_far(&self, device: DeviceId, data: u32) -> Delivery {
        let signaled = self.lpis.signal_far(&self.device_table, device.get(), data);
        self.delivery(device, data, signaled)
    }

    /// Records why a message was dropped. Lock-free.
    #[cold]
    #[inline(never)]
    fn dropped(&self, device: DeviceId, data: u32) -> Delivery {
        let reason = why_dropped(&self.lpis, &self.device_table, device.get(), data);
        let detail = FaultDetail::Message { device, event: EventId::new(data) };
        self.fault(gits::TRANSLATER.offset(), reason, detail);
        Delivery::Blocked
    }
}

impl SignalMsi<DeviceId> for Its {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        if message.address == self.doorbell {
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
            ignored: IgnoredWrites::default(),
            awaits_quiescence: false,
            hasty: None,
            commands: 0,
            has_past: false,
            left: false,
            is_done: false,
        }
    }
}
