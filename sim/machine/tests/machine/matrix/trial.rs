//! Tries one endpoint on a board and determines the outcome.

use super::board::{CPUS, TrialBoard};
use super::cell::Endpoint;
use super::device::Probed;
use doorbell_hardware::pci::Signaled;
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig, MsiDeviceError, MsiVector};
use msi_types::{Cpu, Delivery, MsiMessage};
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of trials per board. The second trial starts in the state in which the first trial left
/// the board.
const LIVES: usize = 2;

/// The outcome of a trial. If a resource is not released, or a later step of the trial fails, the
/// trial panics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Every message arrived, and all resources have been released.
    Works,
    /// The drivers refused for this reason, and all resources have been released.
    Refused(String),
    /// A first message did not arrive as it should have.
    Lost(String),
}

/// Tries an endpoint on a board.
pub(super) fn attempt(board: &TrialBoard, endpoint: Endpoint) -> Outcome {
    let [first, second] = [(); LIVES].map(|()| {
        let outcome = match Trial::begin(board, endpoint) {
            Ok(trial) => trial.live(),
            Err(refused) => Outcome::Refused(refused.to_string()),
        };
        board.settle();
        board.assert_quiet();
        outcome
    });
    assert_eq!(discriminant(&first), discriminant(&second), "{first:?}, {second:?}");
    first
}

/// Number of handler runs for each slot on each CPU.
struct Runs(Vec<[AtomicU64; CPUS as usize]>);

impl Runs {
    fn read(&self) -> Vec<[u64; CPUS as usize]> {
        let load = |run: &AtomicU64| run.load(Ordering::Relaxed);
        self.0.iter().map(|runs| runs.each_ref().map(load)).collect()
    }
}

/// A working endpoint.
pub(super) struct Trial<'a> {
    board: &'a TrialBoard,
    probed: Probed,
    runs: Arc<Runs>,
    /// Declared before the device, so that handlers are removed before vectors are freed.
    handles: BTreeMap<u16, IrqHandle>,
    device: MsiDevice,
}

impl<'a> Trial<'a> {
    /// Attaches the endpoint, then allocates and requests its vectors.
    pub(super) fn begin(board: &'a TrialBoard, endpoint: Endpoint) -> Result<Self, MsiDeviceError> {
        let probed = board.probe(endpoint);
        let (parent, store) = (Arc::clone(&board.parent), Arc::clone(&probed.found.store));
        let slots = store.slots();
        let config = MsiDeviceConfig::new("endpoint", endpoint.requester(), parent, store);
        let config = probed.copy().into_iter().fold(config, MsiDeviceConfig::with_copy);
        let device = MsiDevice::attach(&board.interrupts, config)?;
        let (most, least) = endpoint.wanted();
        let granted = match device.allocate(probed.found.shape, most..=most) {
            Err(_) if least < most => device.allocate(probed.found.shape, least..=least)?,
            granted => granted?,
        };
        let runs = Arc::new(Runs((0..slots).map(|_| Default::default()).collect()));
        let mut trial = Self { board, probed, runs, handles: BTreeMap::new(), device };
        trial.request(&granted);
        Ok(trial)
    }

    pub(super) fn handle(&self, slot: u16) -> &IrqHandle {
        &self.handles[&slot]
    }

    pub(super) fn signal(&self, slot: u16) -> Signaled {
        self.probed.signal(slot)
    }

    fn request(&mut self, vectors: &[MsiVector]) {
        for MsiVector { slot, .. } in vectors {
            let (runs, index) = (Arc::clone(&self.runs), usize::from(*slot));
            let handle = self.device.request(*slot, "trial", move |context| {
                runs.0[index][context.cpu().index()].fetch_add(1, Ordering::Relaxed);
            });
            self.handles.insert(*slot, handle.unwrap());
        }
    }

    fn live(mut self) -> Outcome {
        if let Err(reason) = self.try_deliver() {
            return Outcome::Lost(reason);
        }
        self.travel();
        self.overtake();
        self.evacuate();
        self.change();
        self.end();
        Outcome::Works
    }

    #[track_caller]
    fn deliver(&self) {
        assert_eq!(self.try_deliver(), Ok(()), "{:?}", self.probed.endpoint);
    }

    /// Makes each slot send once, and checks that its handler runs exactly once, on the right CPU.
    fn try_deliver(&self) -> Result<(), String> {
        for (slot, handle) in &self.handles {
            let to = handle.effective_affinity();
            let mut expected = (self.runs.read(), self.board.strays());
            expected.0[usize::from(*slot)][to.index()] += 1;
            let fired = self.probed.signal(*slot);
            self.board.settle();
            let found = (self.runs.read(), self.board.strays());
            if fired != Signaled::Sent(Delivery::Pending) || found != expected {
                let slot = format!("slot {slot} ({fired:?}) to CPU {to}");
                return Err(format!("{slot}: {found:?}, not {expected:?}"));
            }
        }
        Ok(())
    }

    /// Moves all vectors to each CPU in turn, then back to the first CPU.
    fn travel(&self) {
        for cpu in (0..CPUS.into()).chain([0]).map(Cpu::new) {
            self.handles.values().for_each(|handle| _ = handle.set_affinity(cpu).unwrap());
            assert!(self.handles.values().all(|handle| handle.effective_affinity() == cpu));
            self.deliver();
        }
    }

    /// Checks that a message sent before its vector moves is handled exactly once, either before or
    /// after the move.
    fn overtake(&self) {
        for (slot, handle) in &self.handles {
            let count = handle.count();
            let to = Cpu::new((handle.effective_affinity().get() + 1) % u32::from(CPUS));
            self.probed.signal(*slot);
            handle.set_affinity(to).unwrap();
            self.board.settle();
            assert_eq!(handle.count(), count + 1, "sent before a move of slot {slot}");
        }
        self.deliver();
    }

    /// Takes each CPU offline in turn.
    fn evacuate(&self) {
        for cpu in (0..CPUS.into()).map(Cpu::new) {
            let interrupts = &self.board.interrupts;
            interrupts.cpu_offline(cpu, |one| panic!("{one:?}")).unwrap();
            self.deliver();
            interrupts.cpu_online(cpu, |one| panic!("{one:?}")).unwrap();
        }
    }

    /// Frees one vector, and adds a vector at the same slot and a managed vector at an unused slot.
    /// Then moves the managed vector between its two CPUs. Does nothing if the driver never adds
    /// vectors.
    fn change(&mut self) {
        if !self.probed.endpoint.adds_later() {
            return;
        }
        let last = self.handles.keys().last().copied().unwrap();
        self.handles.remove(&1);
        self.device.free(1).unwrap();
        self.deliver();
        let follows = [Cpu::new(1), Cpu::new(2)];
        let mut granted = self.device.allocate_at(&[1]).unwrap();
        granted.extend(self.device.allocate_managed(last + 1, &follows).unwrap());
        self.request(&granted);
        for cpu in follows {
            self.handles[&(last + 1)].set_affinity(cpu).unwrap();
            self.deliver();
        }
    }

    /// Releases all resources of the trial, and checks that later messages do not reach any
    /// handler.
    fn end(self) {
        let slots: Vec<_> = self.handles.keys().copied().collect();
        let messages: Vec<_> =
            slots.iter().filter_map(|slot| self.device.sent_message(*slot)).collect();
        let Self { board, probed, runs, handles, device } = self;
        drop(handles);
        device.tear_down().unwrap();
        // Without settling first, a late message could refer to a vector that its CPU hasn't
        // cleaned up yet.
        board.settle();
        let before = runs.read();
        for slot in slots {
            assert_eq!(probed.signal(slot), Signaled::Off, "slot {slot} after teardown");
        }
        for message in messages {
            late(board, probed.endpoint, message);
        }
        assert_eq!(before, runs.read(), "a handler ran after teardown");
    }
}

/// Writes a message that the device no longer stores. If an IOMMU maps doorbells, it must block the
/// message.
fn late(board: &TrialBoard, endpoint: Endpoint, message: MsiMessage) {
    let stopped = board.stopped();
    board.devices.write(endpoint, message);
    board.settle();
    if let Some(before) = stopped {
        assert_eq!(board.stopped(), Some(before + 1), "the IOMMU maps the doorbell");
    }
}
