//! CPUs with local APICs that hold one request per vector, and devices that check how they are
//! rewritten.

use core::num::NonZeroU16;
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, MsiError, MsiMessage, MsiParent,
    RequesterId, Rewrite, Shape,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use x86_irq::message::{ApicMessage, DeliveryMode, DestinationFormat};
use x86_irq::{
    Apic, ApicId, ApicVector, Arrival, Cleanup, CpuVector, IrqState, LocalCpu, VectorDomain,
    VectorDomainConfig,
};

/// Sender of a request that waits at an APIC: a device by its serial number, or the kernel by the
/// slot it meant.
pub(crate) type Sender = u32;

#[derive(Default)]
struct State {
    /// By CPU: what waits, and who sent it.
    requests: Vec<BTreeMap<ApicVector, BTreeSet<Sender>>>,
    online: Vec<bool>,
    /// The CPU on which the kernel's code runs.
    current: Option<Cpu>,
    cleanups: BTreeSet<Cpu>,
    saved: usize,
    resent: u32,
}

/// The APICs.
#[derive(Default)]
pub(crate) struct ApicBank(Mutex<State>);

/// An interprocessor interrupt: nobody's in particular.
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

/// APIC IDs are not CPU numbers.
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
        unreachable!("one thread waits for nobody");
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Apic for ApicBank {
    fn send(&self, to: ApicId, vector: ApicVector) {
        self.state().resent += 1;
        assert!(
            self.request(to, vector, KERNEL),
            "an interprocessor interrupt to a CPU that is off line"
        );
    }

    fn is_requested(&self, cpu: Cpu, vector: ApicVector) -> Option<bool> {
        let state = self.state();
        (state.current == Some(cpu)).then(|| state.requests[cpu.index()].contains_key(&vector))
    }

    fn request_cleanup(&self, cpu: Cpu) {
        let mut state = self.state();
        assert!(state.online[cpu.index()], "nobody cleans up there");
        state.cleanups.insert(cpu);
    }
}

/// The machine.
pub(crate) struct Board {
    pub(crate) apics: Arc<ApicBank>,
    pub(crate) domain: Arc<VectorDomain>,
    cpus: u32,
}

/// End of a message's interrupt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    pub(crate) place: CpuVector,
    pub(crate) arrival: Arrival,
    pub(crate) from: BTreeSet<Sender>,
}

impl Board {
    /// All CPUs on line, 12 vectors each.
    pub(crate) fn new(cpus: u16) -> Self {
        let board = Self::off_line(cpus, DestinationFormat::Xapic);
        board.cpus().for_each(|cpu| board.online(cpu));
        board
    }

    /// All CPUs off line.
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

    /// The APIC forgets what waits when it is turned off.
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

    /// A write to the bus. False if nobody took it.
    pub(crate) fn write(&self, message: MsiMessage, from: Sender) -> bool {
        let decoded =
            ApicMessage::decode(message, DestinationFormat::Xapic).expect("a message to an APIC");
        let DeliveryMode::Fixed(vector) = decoded.delivery else {
            panic!("{decoded:?} is not fixed")
        };
        self.apics.request(decoded.destination, vector, from)
    }

    /// The CPU takes everything that waits, the highest vector first.
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

    /// The CPU cleans up, if it was asked to.
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
    /// The only CPUs for its interrupt, if it is managed.
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

    /// With a managed interrupt.
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

    /// Stores a new message, if the device can do that.
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
