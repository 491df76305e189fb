//! Tries one endpoint on a board and determines the outcome.

use crate::board::TrialBoard;
use crate::cell::{Endpoint, Outcome};
use crate::device::Probed;
use crate::root::CPUS;
use doorbell_hardware::pci::Signaled;
use irq_domain::{IrqHandle, MoveError, MsiDevice, MsiDeviceConfig, MsiDeviceError, RequestError};
use msi_types::{Cpu, Delivery, MsiMessage};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of trials per board. The second trial starts in the state in which the first trial left
/// the board.
const LIVES: usize = 2;

/// The reason why a trial ended early.
#[derive(Debug)]
pub(crate) enum TrialError {
    /// The drivers refused the request.
    Refused(String),
    /// A guarantee was violated.
    Broken(String),
}

impl From<MsiDeviceError> for TrialError {
    fn from(error: MsiDeviceError) -> Self {
        match error {
            MsiDeviceError::Store(error) => Self::Broken(error.to_string()),
            refused => Self::Refused(refused.to_string()),
        }
    }
}

impl From<RequestError> for TrialError {
    fn from(error: RequestError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<MoveError> for TrialError {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Controller(refused) => Self::Refused(refused.to_string()),
            error => Self::Broken(error.to_string()),
        }
    }
}

/// Tries an endpoint on a board.
pub(crate) fn attempt(board: &TrialBoard, endpoint: Endpoint) -> Outcome {
    let result = (0..LIVES).try_for_each(|_| {
        let life = live(board, endpoint);
        board.settle();
        // All resources must be released, even if the drivers refused the endpoint.
        board.check_quiet().map_err(TrialError::Broken).and(life)
    });
    match result {
        Ok(()) => Outcome::Works,
        Err(TrialError::Refused(reason)) => Outcome::Refused(reason),
        Err(TrialError::Broken(reason)) => Outcome::Broken(reason),
    }
}

fn live(board: &TrialBoard, endpoint: Endpoint) -> Result<(), TrialError> {
    let mut trial = Trial::begin(board, endpoint)?;
    trial.deliver()?;
    trial.travel()?;
    trial.overtake()?;
    trial.evacuate()?;
    trial.change()?;
    trial.end()
}

/// Number of handler runs for each slot on each CPU.
struct Runs(Vec<[AtomicU64; CPUS as usize]>);

impl Runs {
    fn new(slots: u16) -> Self {
        Self((0..slots).map(|_| Default::default()).collect())
    }

    fn count(&self, slot: u16, cpu: Cpu) {
        if let Some(runs) = self.0.get(usize::from(slot)).and_then(|runs| runs.get(cpu.index())) {
            runs.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Vec<[u64; CPUS as usize]> {
        let load = |run: &AtomicU64| run.load(Ordering::Relaxed);
        self.0.iter().map(|runs| runs.each_ref().map(load)).collect()
    }
}

/// A working endpoint.
pub(crate) struct Trial<'a> {
    board: &'a TrialBoard,
    probed: Probed,
    runs: Arc<Runs>,
    /// Declared before the device, so that handlers are removed before vectors are freed.
    handles: BTreeMap<u16, IrqHandle>,
    device: MsiDevice,
}

impl<'a> Trial<'a> {
    /// Attaches the endpoint, then allocates and requests its vectors.
    pub(crate) fn begin(board: &'a TrialBoard, endpoint: Endpoint) -> Result<Self, TrialError> {
        let probed = board.probe(endpoint).map_err(TrialError::Broken)?;
        let config = MsiDeviceConfig::new(
            "endpoint",
            endpoint.requester(),
            Arc::clone(&board.parent),
            Arc::clone(&probed.found.store),
        );
        let config = probed.copy().into_iter().fold(config, MsiDeviceConfig::with_copy);
        let device = MsiDevice::attach(&board.interrupts, config)?;
        Self::start(board, probed, device)
    }

    fn start(board: &'a TrialBoard, probed: Probed, device: MsiDevice) -> Result<Self, TrialError> {
        let (most, least) = probed.wanted();
        let all = device.allocate(probed.found.shape, most..=most);
        let granted = match all {
            Err(_) if least < most => device.allocate(probed.found.shape, least..=least)?,
            granted => granted?,
        };
        if let Some(rings) = &probed.rings {
            // The domain supplies a separate address and data for each vector.
            let vectors = u16::try_from(granted.len()).unwrap_or(u16::MAX);
            rings.share(vectors, |slot| device.sent_message(slot));
        }
        let runs = Arc::new(Runs::new(probed.found.store.slots()));
        let mut trial = Self { board, probed, runs, handles: BTreeMap::new(), device };
        granted.iter().try_for_each(|vector| trial.request(vector.slot))?;
        Ok(trial)
    }

    fn request(&mut self, slot: u16) -> Result<(), TrialError> {
        let runs = Arc::clone(&self.runs);
        let handle =
            self.device.request(slot, "trial", move |context| runs.count(slot, context.cpu()))?;
        self.handles.insert(slot, handle);
        Ok(())
    }

    /// Makes each sender send once, and checks that its vector's handler runs exactly once, on the
    /// right CPU.
    pub(crate) fn deliver(&self) -> Result<(), TrialError> {
        let slots: Vec<_> = self.handles.keys().copied().collect();
        for (sender, slot) in self.probed.senders(&slots) {
            let to = self.handles.get(&slot).map(IrqHandle::effective_affinity);
            let to =
                to.ok_or_else(|| TrialError::Broken(format!("sender {sender} has no vector")))?;
            let mut expected = self.runs.read();
            if let Some(run) =
                expected.get_mut(usize::from(slot)).and_then(|runs| runs.get_mut(to.index()))
            {
                *run += 1;
            }
            let strays = self.board.strays();
            let fired = self.probed.signal(sender);
            self.board.settle();
            let found = self.runs.read();
            if fired != Signaled::Sent(Delivery::Pending)
                || found != expected
                || self.board.strays() != strays
            {
                let reason =
                    format!("sender {sender} ({fired:?}) to CPU {to}: {found:?}, not {expected:?}");
                return Err(TrialError::Broken(reason));
            }
        }
        Ok(())
    }

    /// Moves all vectors to each CPU in turn, then back to the first CPU.
    pub(crate) fn travel(&self) -> Result<(), TrialError> {
        for cpu in (0..CPUS.into()).chain([0]).map(Cpu::new) {
            for handle in self.handles.values() {
                handle.set_affinity(cpu)?;
            }
            if let Some(handle) =
                self.handles.values().find(|handle| handle.effective_affinity() != cpu)
            {
                return Err(TrialError::Broken(format!(
                    "IRQ {} is not at CPU {cpu}",
                    handle.irq()
                )));
            }
            self.deliver()?;
        }
        Ok(())
    }

    /// Checks that a message sent before its vector moves is handled exactly once, either before or
    /// after the move.
    fn overtake(&self) -> Result<(), TrialError> {
        let slots: Vec<_> = self.handles.keys().copied().collect();
        for (sender, slot) in self.probed.senders(&slots) {
            let Some(handle) = self.handles.get(&slot) else { continue };
            let count = handle.count();
            let to = Cpu::new((handle.effective_affinity().get() + 1) % u32::from(CPUS));
            self.probed.signal(sender);
            handle.set_affinity(to)?;
            self.board.settle();
            if handle.count() != count + 1 {
                let reason =
                    format!("sent before a move: {} runs, not one", handle.count() - count);
                return Err(TrialError::Broken(reason));
            }
        }
        self.deliver()
    }

    /// Takes each CPU offline in turn.
    fn evacuate(&self) -> Result<(), TrialError> {
        for cpu in (0..CPUS.into()).map(Cpu::new) {
            let mut stranded = None;
            let known = self.board.interrupts.cpu_offline(cpu, |one| stranded = Some(one.error));
            known.map_err(|error| TrialError::Broken(error.to_string()))?;
            stranded.map_or(Ok(()), Err)?;
            self.deliver()?;
            let known = self.board.interrupts.cpu_online(cpu, |_| {});
            known.map_err(|error| TrialError::Broken(error.to_string()))?;
        }
        Ok(())
    }

    /// Frees one vector, and adds a vector at the same slot and a managed vector at an unused slot.
    /// Then moves the managed vector between its two CPUs. Does nothing if the driver never adds
    /// vectors.
    pub(crate) fn change(&mut self) -> Result<(), TrialError> {
        if !self.probed.adds_later() {
            return Ok(());
        }
        let last = self.handles.keys().last().copied().unwrap_or_default();
        self.handles.remove(&1);
        self.device.free(1)?;
        self.deliver()?;
        let follows = [Cpu::new(1), Cpu::new(2)];
        let mut granted = self.device.allocate_at(&[1])?;
        granted.extend(self.device.allocate_managed(last + 1, &follows)?);
        granted.iter().try_for_each(|vector| self.request(vector.slot))?;
        for cpu in follows {
            self.handles.get(&(last + 1)).map(|handle| handle.set_affinity(cpu)).transpose()?;
            self.deliver()?;
        }
        Ok(())
    }

    /// Releases all resources of the trial, and checks that later messages do not reach any
    /// handler.
    pub(crate) fn end(self) -> Result<(), TrialError> {
        let slots: Vec<_> = self.handles.keys().copied().collect();
        let messages: Vec<_> =
            slots.iter().filter_map(|slot| self.device.sent_message(*slot)).collect();
        let Self { board, probed, runs, handles, device } = self;
        drop(handles);
        device.tear_down().map_err(|error| TrialError::Broken(error.to_string()))?;
        // Without settling first, a late message could refer to a vector that its CPU hasn't
        // cleaned up yet.
        board.settle();
        let before = runs.read();
        for sender in slots {
            if probed.signal(sender) != Signaled::Off {
                return Err(TrialError::Broken(format!("sender {sender} sent after teardown")));
            }
        }
        messages.iter().try_for_each(|message| late(board, &probed, *message))?;
        let after = runs.read();
        if before == after {
            Ok(())
        } else {
            Err(TrialError::Broken("a handler ran after teardown".to_owned()))
        }
    }
}

/// Writes a message that the device no longer stores. If an IOMMU maps doorbells, it must block the
/// message.
fn late(board: &TrialBoard, probed: &Probed, message: MsiMessage) -> Result<(), TrialError> {
    let stopped = board.stopped();
    board.devices().write(probed.endpoint, message);
    board.settle();
    match stopped {
        Some(before) if board.stopped() != Some(before + 1) => Err(TrialError::Broken(
            "the IOMMU let a message pass whose doorbell is unmapped".to_owned(),
        )),
        _ => Ok(()),
    }
}
