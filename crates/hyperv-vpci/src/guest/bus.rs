//! The virtual bus: opening, polling, and requests to the host.

use super::function_table::{Completion, Function, FunctionId, FunctionState};
use super::interrupt_table::InterruptTable;
use super::link::Link;
use super::vectors::UNNAMED;
use super::{BusEvent, Faults, Kernel, Vectors, VpciError, Wait};
use crate::channel::{Channel, Idle};
use crate::protocol::reply::BarsReply;
use crate::protocol::{
    AssignedResources, BARS, DeviceDescription, HIGHEST_PROCESSOR, Request, ResourcesForm, SLOTS,
    Slot, Status, Version,
};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::lock::{IrqLock, TaskLock};
use msi_types::{Cpu, MsiError};

/// Bus configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BusConfig {
    /// Guest physical address of the configuration window.
    pub(crate) window: u64,
    /// The bus number that the kernel assigned. The number is part of the functions' requester IDs.
    pub(crate) number: u8,
    /// Maximum number of vectors for all functions together. Memory for them is allocated when the
    /// bus is opened.
    pub(crate) vectors: u16,
}

impl BusConfig {
    /// Creates a configuration with these values.
    pub const fn new(window: u64, number: u8, vectors: u16) -> Self {
        Self { window, number, vectors }
    }
}

/// A virtual PCI bus, and the [`MsiParent`](msi_types::MsiParent) for its functions. Synchronizes
/// internally.
///
/// ```
/// use hyperv_vpci::channel::Channel;
/// use hyperv_vpci::guest::{Bus, BusConfig, Kernel, SpiDomain, Vectors};
/// use msi_types::WiredParent;
/// use std::{error::Error, sync::Arc};
///
/// /// Opens a bus whose configuration window is at `window`, and lists its functions.
/// fn probe<K: Kernel + 'static>(
///     kernel: Arc<K>,
///     gic: Arc<dyn WiredParent>,
///     channel: Box<dyn Channel>,
///     window: u64,
/// ) -> Result<Bus, Box<dyn Error>> {
///     let vectors = Vectors::Spis(Arc::new(SpiDomain::new(gic, kernel.clone())?));
///     let bus = Bus::open(BusConfig::new(window, 0, 64), channel, vectors, kernel)?;
///     for function in bus.functions()? {
///         println!("{:04x}:{:04x} in slot {}", function.vendor, function.device, function.slot);
///     }
///     Ok(bus)
/// }
/// ```
///
/// [`kernel.rs`] connects both ends.
///
/// [`kernel.rs`]: https://github.com/doorbell-rs/doorbell/blob/main/crates/hyperv-vpci/examples/kernel.rs
pub struct Bus {
    pub(super) config: BusConfig,
    pub(super) version: Version,
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) vectors: Vectors,
    pub(super) link: TaskLock<Link>,
    pub(super) interrupts: IrqLock<InterruptTable>,
    /// Number of unmasks for which the hypercall was refused.
    pub(super) refused_unmasks: AtomicU32,
}

/// Maximum number of polls between two checks of the kernel's clock. Without a limit, a host that
/// never stops sending could delay the check indefinitely.
const LOOKS: usize = 16;

/// Outcome of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// The host answered.
    Answered(Completion),
    /// The host did not answer, for this reason. The caller must abandon the request with this
    /// transaction ID.
    Unanswered(u64, VpciError),
}

impl Bus {
    /// Opens a bus: negotiates the version with the host, turns the bus on and adds its functions.
    /// Call [`poll`](Self::poll) afterwards, which assigns resources to the remaining functions.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns [`VpciError`] if the host or the channel fails. The channel is then dropped.
    pub fn open(
        config: BusConfig,
        channel: Box<dyn Channel>,
        vectors: Vectors,
        kernel: Arc<dyn Kernel>,
    ) -> Result<Self, VpciError> {
        let link = TaskLock::new(Link::new(channel, config.vectors)?);
        let interrupts = InterruptTable::new(config.vectors).map_err(|_| VpciError::NoMemory)?;
        let interrupts = IrqLock::new(interrupts);
        let version = Version::V1_2;
        let refused_unmasks = AtomicU32::new(0);
        let mut bus = Self { config, version, kernel, vectors, link, interrupts, refused_unmasks };
        bus.version = bus.negotiate(&Version::OFFERED)?;
        bus.query_relations()?;
        bus.power_on()?;
        let _ = bus.poll()?;
        match bus.with_link(|link| link.idle) {
            Idle::Sleep => Ok(bus),
            Idle::Busy => Err(VpciError::BadAnswer {
                operation: "open",
                reason: "the host never stops sending",
            }),
        }
    }

    /// Handles received packets and assigns resources to new functions. The kernel must call this
    /// when the channel signals. It must also call it again on [`Idle::Busy`], because packets or
    /// functions are left, and the host won't send another signal for them. After [`Idle::Sleep`],
    /// the next packet raises a signal. If the host doesn't answer for a function, the call returns
    /// after that function, so it times out at most once. It also returns after a function if the
    /// host never stops sending.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the channel failed, or if the bus is closed or suspended. If the host
    /// refuses resources for a function, the function is skipped without an error.
    pub fn poll(&self) -> Result<Idle, VpciError> {
        let _ = self.look(0, &mut |_| Ok(None::<()>))?;
        for _ in 0..SLOTS {
            let listed = self.with_link(|link| link.functions.take_listed());
            let Some(id) = listed else { break };
            let assigned = self.assign(id);
            let state = assigned.map_or(FunctionState::Failed, FunctionState::Ready);
            let idle = self.with_link(|link| {
                link.functions.set_state(id, state);
                link.idle
            });
            if idle == Idle::Busy || matches!(assigned, Err(VpciError::Silent(_))) {
                break;
            }
        }
        self.with_link(|link| match link.end() {
            Some(end) => Err(end),
            None if link.functions.has_listed() => Ok(Idle::Busy),
            None => Ok(link.idle),
        })
    }

    pub(super) fn assign(&self, id: FunctionId) -> Result<[u32; BARS], VpciError> {
        let operation = "query resources";
        let answer = self.ask(operation, &Request::QueryResources(id.slot), Some(id))?;
        let malformed = |error| VpciError::Protocol { operation, error };
        let refused = |status| VpciError::Refused { operation, status };
        let BarsReply(bars) =
            BarsReply::parse(answer.bytes()).map_err(malformed)?.map_err(refused)?;
        let operation = "assign resources";
        let assigned = AssignedResources::new(id.slot, ResourcesForm::V2);
        match self.ask_status(operation, &Request::AssignResources(assigned), Some(id))? {
            status if status.is_success() => Ok(bars),
            status => Err(VpciError::Refused { operation, status }),
        }
    }

    /// Returns the next function event, if any.
    ///
    /// Context: task; may sleep.
    pub fn next_event(&self) -> Option<BusEvent> {
        self.with_link(|link| link.functions.next_event())
    }

    /// Returns the functions that are present and have their resources, in slot order.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns [`VpciError::NoMemory`] if the kernel's heap is exhausted.
    pub fn functions(&self) -> Result<Vec<DeviceDescription>, VpciError> {
        self.with_link(|link| {
            let mut functions = Vec::new();
            functions.try_reserve_exact(SLOTS).map_err(|_| VpciError::NoMemory)?;
            let ready = |function: &&Function| matches!(function.state, FunctionState::Ready(_));
            let list = link.functions.iter().filter(ready);
            functions.extend(list.map(|function| function.description));
            Ok(functions)
        })
    }

    /// Returns the values that a function's base address registers return after all ones were
    /// written to them.
    ///
    /// Context: task; may sleep.
    pub fn bars(&self, slot: Slot) -> Option<[u32; BARS]> {
        self.with_link(|link| match link.functions.get(slot)?.state {
            FunctionState::Ready(bars) => Some(bars),
            FunctionState::Listed
            | FunctionState::Assigning
            | FunctionState::Failed
            | FunctionState::Suspended(_) => None,
        })
    }

    /// Tells the host that an ejected function is no longer in use. The function's driver must have
    /// freed all of its interrupts.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns [`VpciError::NoFunction`] if the slot is empty, or if the function whose ejection
    /// was reported was removed, even if another one is in its slot. Returns another error if the
    /// host doesn't read the messages or the channel fails.
    pub fn eject_complete(&self, slot: Slot) -> Result<(), VpciError> {
        let ejected = self.with_link(|link| link.functions.ejected(slot));
        let about = Some(ejected.ok_or(VpciError::NoFunction(slot))?);
        // The host must receive the deletions of the function's messages before the ejection, and
        // the tasks that requested the deletions must have received their answers.
        let operation = "complete ejection";
        self.wait(operation, |link| Ok((!link.deletions.is_pending(slot)).then_some(())))?;
        self.notify("release resources", &Request::ReleaseResources(slot), about)?;
        self.wait(operation, |link| {
            let was_sent = link.notify(operation, &Request::EjectionComplete(slot), about)?;
            Ok(was_sent.then(|| link.functions.forget(slot)))
        })?;
        Ok(())
    }

    /// Returns the negotiated protocol version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Returns the number of faults by the host and the hypervisor so far.
    ///
    /// Context: task; may sleep.
    pub fn faults(&self) -> Faults {
        let refused_unmasks = self.refused_unmasks.load(Ordering::SeqCst);
        Faults { refused_unmasks, ..self.with_link(|link| link.faults()) }
    }

    /// Sends a request whose answer is a status, and returns the status.
    pub(super) fn ask_status(
        &self,
        operation: &'static str,
        request: &Request,
        about: Option<FunctionId>,
    ) -> Result<Status, VpciError> {
        let answer = self.ask(operation, request, about)?;
        let malformed = |error| VpciError::Protocol { operation, error };
        Status::parse(answer.bytes()).map_err(malformed)
    }

    /// Sends a request and returns its answer. Abandons the request if there is none.
    fn ask(
        &self,
        operation: &'static str,
        request: &Request,
        about: Option<FunctionId>,
    ) -> Result<Completion, VpciError> {
        match self.request(operation, request, about)? {
            Outcome::Answered(completion) => Ok(completion),
            Outcome::Unanswered(id, error) => {
                self.with_link(|link| link.abandon(id, None));
                Err(error)
            }
        }
    }

    /// Sends a request and waits for its answer. If `about` refers to a function, the request is
    /// not sent once that function was removed, the wait also ends when it is removed, and a later
    /// answer doesn't count, because the host has deleted whatever it granted.
    pub(super) fn request(
        &self,
        operation: &'static str,
        request: &Request,
        about: Option<FunctionId>,
    ) -> Result<Outcome, VpciError> {
        let id = self.wait(operation, |link| link.begin(operation, request, about))?;
        let answered = self.wait(operation, |link| {
            if let (Err(gone), None) = (link.check_present(about), link.end()) {
                return Ok(Some(Outcome::Unanswered(id, gone)));
            }
            Ok(link.take(id)?.map(Outcome::Answered))
        });
        match answered {
            Err(error @ VpciError::Silent(_)) => Ok(Outcome::Unanswered(id, error)),
            other => other,
        }
    }

    pub(super) fn notify(
        &self,
        operation: &'static str,
        request: &Request,
        about: Option<FunctionId>,
    ) -> Result<(), VpciError> {
        self.wait(operation, |link| Ok(link.notify(operation, request, about)?.then_some(())))
    }

    /// Handles received packets until `done` returns a result or the kernel's clock ends the wait.
    pub(super) fn wait<T>(
        &self,
        operation: &'static str,
        mut done: impl FnMut(&mut Link) -> Result<Option<T>, VpciError>,
    ) -> Result<T, VpciError> {
        if !self.kernel.may_wait() {
            return Err(VpciError::NotInTask(operation));
        }
        self.with_link(|link| link.waiting += 1);
        let result = self.wait_turns(operation, &mut done);
        self.with_link(|link| link.waiting -= 1);
        result
    }

    fn wait_turns<T>(
        &self,
        operation: &'static str,
        done: &mut impl FnMut(&mut Link) -> Result<Option<T>, VpciError>,
    ) -> Result<T, VpciError> {
        let mut turn = 0;
        loop {
            // From here on, any wake-up must end the wait, because the check below might miss the
            // event that caused the wake-up.
            let seen = self.kernel.wake_ups();
            let (result, idle) = self.look(1, done)?;
            if let Some(result) = result {
                return Ok(result);
            }
            // The host won't signal for packets that are left, so make the wait return immediately.
            let seen = if idle == Idle::Busy { seen.wrapping_sub(1) } else { seen };
            if self.kernel.wait(seen, turn) == Wait::GiveUp {
                // Check once more: the answer may have arrived while we weren't scheduled.
                return self.look(1, done)?.0.ok_or(VpciError::Silent(operation));
            }
            turn = turn.saturating_add(1);
        }
    }

    /// Polls the channel until it is re-armed, up to [`LOOKS`] times, and calls `done` until it
    /// returns a result. Fails if the connection to the host ends first. `own` must be 1 if the
    /// calling task is counted as waiting, otherwise 0.
    fn look<T>(
        &self,
        own: u32,
        done: &mut impl FnMut(&mut Link) -> Result<Option<T>, VpciError>,
    ) -> Result<(Option<T>, Idle), VpciError> {
        let (mut result, mut idle) = (None, Idle::Busy);
        for _ in 0..LOOKS {
            idle = self.with_link_as(own, |link| {
                link.poll(&self.vectors);
                if result.is_none() {
                    result = done(link)?;
                }
                match (&result, link.end()) {
                    (None, Some(end)) => Err(end),
                    _ => Ok(link.idle),
                }
            })?;
            if idle == Idle::Sleep {
                break;
            }
        }
        Ok((result, idle))
    }

    /// Returns a CPU's VP index, if the protocol can encode it.
    pub(super) fn processor(&self, cpu: Cpu) -> Result<u16, MsiError> {
        let unknown = MsiError::NotReachable(cpu, "the hypervisor has no VP index for it");
        let processor = self.kernel.processor(cpu).ok_or(unknown)?;
        if processor > HIGHEST_PROCESSOR {
            return Err(MsiError::NotReachable(cpu, UNNAMED));
        }
        Ok(processor)
    }

    pub(super) fn with_link<R>(&self, f: impl FnOnce(&mut Link) -> R) -> R {
        self.with_link_as(0, f)
    }

    /// Calls `f` with the link. Then forgets the messages of functions that were removed, so that
    /// no successor is retargeted by them, and wakes other tasks if something happened that they
    /// may be waiting for.
    fn with_link_as<R>(&self, own: u32, f: impl FnOnce(&mut Link) -> R) -> R {
        let (result, wakes) = self.link.with(&*self.kernel, |link| {
            let result = f(link);
            if link.functions.take_removed() {
                let functions = &link.functions;
                self.with_interrupts(|table| table.forget_messages(|id| !functions.is_present(id)));
            }
            (result, link.take_news(own))
        });
        if wakes {
            self.kernel.wake();
        }
        result
    }

    pub(super) fn with_interrupts<R>(&self, f: impl FnOnce(&mut InterruptTable) -> R) -> R {
        self.interrupts.with(&*self.kernel, f)
    }
}

/// Returns the functions that match the filter, in slot order.
pub(super) fn listed(
    link: &Link,
    filter: impl Fn(&Function) -> bool,
) -> Result<Vec<FunctionId>, VpciError> {
    let mut ids = Vec::new();
    ids.try_reserve_exact(SLOTS).map_err(|_| VpciError::NoMemory)?;
    let chosen = link.functions.iter().filter(|function| filter(function));
    ids.extend(chosen.map(|function| function.id));
    Ok(ids)
}

msi_types::debug_by!(
    Bus as "Bus",
    |it| {config: it.config, version: it.version, vectors: it.vectors}
);
