//! Test machine: local APICs record one request per vector, and devices check how their messages
//! are rewritten.

use core::num::NonZeroU16;
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, MoveOutcome, MsiError, MsiMessage,
    MsiParent, RequesterId, Rewrite, Shape, Surroundings,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use x86_irq::message::{ApicMessage, DeliveryMode, DestinationFormat};
use x86_irq::{
    Apic, ApicId, ApicVector, Arrival, Cleanup, CpuVector, IrqState, LocalCpu, VectorDomain,
    VectorDomainConfig,
};

/// Sender of a request pending at an APIC: a device's serial number, or [`KERNEL`].
pub(crate) type Sender = u32;

#[derive(Default)]
struct State {
    /// Pending requests and their senders, by CPU.
    requests: Vec<BTreeMap<ApicVector, BTreeSet<Sender>>>,
    online: Vec<bool>,
    /// CPU on which the kernel's code runs.
    current: Option<Cpu>,
    cleanups: BTreeSet<Cpu>,
    saved: usize,
    resent: u32,
}

/// The APICs.
#[derive(Default)]
pub(crate) struct ApicBank(Mutex<State>);

/// Sender of all interprocessor interrupts.
const KERNEL: Sender = u32::MAX;

impl ApicBank {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test thread panicked")
    }

    fn request(&self, id: ApicId, vector: ApicVector, from: Sender) -> bool {
        let cpu = cpu_of(id);
        let mut state = self.state();
        if !state.online[cpu.index()] {
            return false;
        }
        state.requests[cpu.index()].entry(vector).or_default().insert(from);
        true
    }
}

/// Returns an APIC ID that differs from the CPU number.
pub(crate) fn id_of(cpu: Cpu) -> ApicId {
    ApicId::new(2 * cpu.get() + 1)
}

fn cpu_of(id: ApicId) -> Cpu {
    Cpu::new((id.get() - 1) / 2)
}

impl LocalCpu for ApicBank {
    fn irq_save(&self) -> IrqState {
        let mut state = self.state();
        state.saved += 1;
        assert_eq!(state.saved, 1, "one lock at a time");
        IrqState::new(state.saved)
    }

    fn irq_restore(&self, was: IrqState) {
        let mut state = self.state();
        assert_eq!(was.get(), state.saved);
        state.saved -= 1;
    }

    fn relax(&self) {
        unreachable!("a single thread never has to wait");
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Apic for ApicBank {
    fn send(&self, to: ApicId, vector: ApicVector) {
        self.state().resent += 1;
        assert!(self.request(to, vector, KERNEL), "an interprocessor interrupt to an offline CPU");
    }

    fn is_requested(&self, cpu: Cpu, vector: ApicVector) -> Option<bool> {
        let state = self.state();
        (state.current == Some(cpu)).then(|| state.requests[cpu.index()].contains_key(&vector))
    }

    fn request_cleanup(&self, cpu: Cpu) {
        let mut state = self.state();
        assert!(state.online[cpu.index()], "an offline CPU cannot clean up");
        state.cleanups.insert(cpu);
    }
}

/// The machine.
pub(crate) struct Board {
    pub(crate) apics: Arc<ApicBank>,
    pub(crate) domain: Arc<VectorDomain>,
    cpus: u32,
}

/// Record of an interrupt that a CPU has taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) place: CpuVector,
    pub(crate) arrival: Arrival,
    pub(crate) from: BTreeSet<Sender>,
}

impl Board {
    /// Creates a board with all CPUs online and 12 vectors per CPU.
    pub(crate) fn new(cpus: u16) -> Self {
        let board = Self::off_line(cpus, DestinationFormat::Xapic);
        board.cpus().for_each(|cpu| board.online(cpu));
        board
    }

    /// Creates a board with all CPUs offline.
    pub(crate) fn off_line(cpus: u16, destinations: DestinationFormat) -> Self {
        let apics = Arc::new(ApicBank::default());
        *apics.state() = State {
            requests: vec![BTreeMap::new(); cpus.into()],
            online: vec![false; cpus.into()],
            ..State::default()
        };
        let vector = |number| ApicVector::new(number).unwrap();
        let config = VectorDomainConfig::new(NonZeroU16::new(cpus).unwrap(), apics.clone())
            .with_destinations(destinations)
            .with_surroundings(Surroundings::BareMetal, 0)
            .with_window(vector(0x20)..=vector(0x2b))
            .with_hwirqs(NonZeroU16::new(20).unwrap());
        Self { apics, domain: Arc::new(VectorDomain::new(config).unwrap()), cpus: cpus.into() }
    }

    pub(crate) fn cpus(&self) -> impl Iterator<Item = Cpu> + use<> {
        (0..self.cpus).map(Cpu::new)
    }

    pub(crate) fn is_online(&self, cpu: Cpu) -> bool {
        self.apics.state().online[cpu.index()]
    }

    pub(crate) fn online(&self, cpu: Cpu) {
        self.online_as(cpu, id_of(cpu));
    }

    pub(crate) fn online_as(&self, cpu: Cpu, id: ApicId) {
        self.apics.state().online[cpu.index()] = true;
        self.domain.online(cpu, id).unwrap();
    }

    /// Turns the APIC off. The APIC loses its pending requests.
    pub(crate) fn offline(&self, cpu: Cpu) -> x86_irq::Offline {
        self.apics.state().current = Some(cpu);
        let left = self.domain.offline(cpu).unwrap();
        let mut state = self.apics.state();
        state.current = None;
        state.online[cpu.index()] = false;
        state.requests[cpu.index()].clear();
        state.cleanups.remove(&cpu);
        left
    }

    /// Writes to the bus. Returns `false` if no APIC accepted the message.
    pub(crate) fn write(&self, message: MsiMessage, from: Sender) -> bool {
        let decoded =
            ApicMessage::decode(message, DestinationFormat::Xapic).expect("a message to an APIC");
        let DeliveryMode::Fixed(vector) = decoded.delivery else {
            panic!("{decoded:?} is not fixed")
        };
        self.apics.request(decoded.destination, vector, from)
    }

    /// Lets the CPU serve all pending requests, the highest vector first.
    pub(crate) fn run(&self, cpu: Cpu) -> Vec<Taken> {
        let mut taken = Vec::new();
        loop {
            let mut state = self.apics.state();
            let Some((vector, from)) = state.requests[cpu.index()].pop_last() else { return taken };
            state.current = Some(cpu);
            drop(state);
            let arrival = self.domain.arrive(cpu, vector);
            self.apics.state().current = None;
            taken.push(Taken { place: CpuVector { cpu, vector }, arrival, from });
        }
    }

    /// Lets the CPU clean up, if it was asked to.
    pub(crate) fn clean_up(&self, cpu: Cpu) {
        let mut state = self.apics.state();
        if !state.cleanups.remove(&cpu) {
            return;
        }
        state.current = Some(cpu);
        drop(state);
        let again = self.domain.clean_up(cpu);
        let mut state = self.apics.state();
        state.current = None;
        if again == Cleanup::Again {
            assert!(!state.requests[cpu.index()].is_empty());
            state.cleanups.insert(cpu);
        }
    }

    pub(crate) fn resent(&self) -> u32 {
        self.apics.state().resent
    }

    pub(crate) fn cleanup_is_due(&self, cpu: Cpu) -> bool {
        self.apics.state().cleanups.contains(&cpu)
    }
}

/// A device with one vector.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) serial: Sender,
    pub(crate) attachment: Attachment,
    pub(crate) block: HwIrqBlock,
    pub(crate) message: MsiMessage,
    pub(crate) rewrite: Rewrite,
    /// The CPUs of its interrupt, if it is managed.
    pub(crate) among: Option<Vec<Cpu>>,
}

impl Device {
    pub(crate) fn new(
        parent: &dyn MsiParent,
        serial: Sender,
        rewrite: Rewrite,
        cpu: Cpu,
    ) -> Result<Self, MsiError> {
        Self::with(parent, serial, (rewrite, cpu), None)
    }

    /// Creates a device with a managed interrupt.
    pub(crate) fn managed(
        parent: &dyn MsiParent,
        serial: Sender,
        rewrite: Rewrite,
        cpu: Cpu,
        among: &[Cpu],
    ) -> Result<Self, MsiError> {
        Self::with(parent, serial, (rewrite, cpu), Some(among.to_vec()))
    }

    fn with(
        parent: &dyn MsiParent,
        serial: Sender,
        (rewrite, cpu): (Rewrite, Cpu),
        among: Option<Vec<Cpu>>,
    ) -> Result<Self, MsiError> {
        let attachment = parent.attach(RequesterId::new(serial), 1)?;
        let request = request(1, Shape::Independent, rewrite, cpu);
        let allocated = match &among {
            Some(among) => parent.allocate_managed(&attachment, &request, among),
            None => parent.allocate(&attachment, &request),
        };
        let block = match allocated {
            Ok(block) => block,
            Err(error) => {
                parent.detach(attachment);
                return Err(error);
            }
        };
        let message = parent.compose(&block, 0)?;
        Ok(Self { serial, attachment, block, message, rewrite, among })
    }

    pub(crate) fn vector(&self) -> HwIrq {
        self.block.first()
    }

    /// Stores a new message, if the device is capable of the change.
    pub(crate) fn store(&mut self, new: MsiMessage) {
        let old = self.message;
        match self.rewrite {
            Rewrite::Masked | Rewrite::Atomic64 => {}
            Rewrite::AddressOnly => assert_eq!(old.data, new.data, "torn"),
            Rewrite::LowWordOnly => {
                assert_eq!((old.address_high(), old.data), (new.address_high(), new.data), "torn");
            }
            Rewrite::Never => assert_eq!(old, new, "torn"),
        }
        self.message = new;
    }

    pub(crate) fn free(self, parent: &dyn MsiParent) {
        parent.free(&self.attachment, self.block);
        parent.detach(self.attachment);
    }
}

pub(crate) fn request(count: u16, shape: Shape, rewrite: Rewrite, cpu: Cpu) -> BlockRequest {
    BlockRequest::new(
        NonZeroU16::new(count).unwrap(),
        Fit::new(rewrite).with_address_bits(32).with_data_bits(16),
        cpu,
    )
    .with_shape(shape)
}

/// Moves a device's interrupt, and stores its new message.
pub(crate) fn relocate(board: &Board, device: &mut Device, to: Cpu) -> Result<(), MsiError> {
    let moved = board.domain.begin_move(&device.block, 0, to)?;
    moved.message.into_iter().for_each(|message| device.store(message));
    board.domain.end_move(moved, MoveOutcome::Written)
}

/// Local APICs without pending requests, which call a function when a CPU is asked to clean up.
pub(crate) struct QuietApics<F>(pub(crate) F);

impl<F: Fn(Cpu) + Send + Sync> LocalCpu for QuietApics<F> {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn relax(&self) {
        unreachable!("a single thread never has to wait");
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl<F: Fn(Cpu) + Send + Sync> Apic for QuietApics<F> {
    fn send(&self, _: ApicId, _: ApicVector) {}

    fn is_requested(&self, _: Cpu, _: ApicVector) -> Option<bool> {
        Some(false)
    }

    fn request_cleanup(&self, cpu: Cpu) {
        self.0(cpu);
    }
}
