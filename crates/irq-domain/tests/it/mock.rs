//! The fakes. Each panics on what its real counterpart would answer with a hang, a stray write or a lost interrupt.

use irq_domain::{Config, Dispatched, Host, Interrupts, IrqState, MsiDevice, MsiDeviceConfig};
use msi_types::{
    Attachment, BlockRequest, ControllerFault, Cpu, FastMask, Fit, Initially, Isolation, Masking,
    MessageStore, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated, Pending, RequesterId,
    Rewrite, Shape, Slots, StoreError, Trigger, Vector, VectorBlock, WiredParent,
};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

thread_local! {
    static CPU: Cell<Option<u32>> = const { Cell::new(None) };
    static SAVED: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread a CPU while `act` runs.
pub(crate) fn on_cpu<T>(cpu: u32, act: impl FnOnce() -> T) -> T {
    let before = CPU.replace(Some(cpu));
    let result = act();
    CPU.set(before);
    result
}

/// A kernel that checks how interrupts are saved.
#[derive(Debug)]
pub(crate) struct Kernel;

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        assert!(SAVED.get() > 0, "asked for the CPU while it may change");
        CPU.get().map(Cpu::new)
    }

    fn irq_save(&self) -> IrqState {
        IrqState::new(SAVED.replace(SAVED.get() + 1))
    }

    fn irq_restore(&self, state: IrqState) {
        assert_eq!(state.get() + 1, SAVED.get(), "restored out of order");
        SAVED.set(state.get());
    }

    fn relax(&self) {
        assert_eq!(SAVED.get(), 0, "waited with interrupts off");
        std::thread::yield_now();
    }
}

/// How a controller's messages relate to CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The message stays the same wherever it is delivered (ITS).
    Stays,
    /// The address names the CPU: low words differ, high words do not (Direct LPI).
    NamesCpu,
    /// The same, with doorbells 4 GiB apart.
    NamesCpuFarApart,
}

/// A vector at the controller.
#[derive(Debug)]
struct Line {
    cpu: Cpu,
    masked: bool,
    group: (Vector, NonZeroU16),
    moving: bool,
}

#[derive(Debug, Default)]
struct Inside {
    devices: BTreeMap<u32, BTreeSet<Vector>>,
    lines: BTreeMap<Vector, Line>,
    pending: BTreeSet<(Cpu, Vector)>,
    attached: u32,
    outcomes: Vec<MoveOutcome>,
    unreachable: BTreeSet<Cpu>,
}

/// A controller with the vectors 8192 and up.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) kind: Kind,
    pub(crate) capacity: u32,
    /// Counts down at each fallible task operation; the one that finds 0 fails. `usize::MAX`: never.
    pub(crate) fail_in: AtomicUsize,
    inside: Mutex<Inside>,
}

pub(crate) const FIRST: u32 = 8192;
pub(crate) const FAULT: MsiError = MsiError::Controller(ControllerFault {
    kind: "mock",
    base: 0,
    operation: "injected",
    device: None,
    event: None,
    reason: "fault",
});

impl Controller {
    pub(crate) fn new(kind: Kind) -> Arc<Self> {
        Self::with_capacity(kind, 4096)
    }

    pub(crate) fn with_capacity(kind: Kind, capacity: u32) -> Arc<Self> {
        let fail_in = AtomicUsize::new(usize::MAX);
        Arc::new(Self { kind, capacity, fail_in, inside: Mutex::default() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn may_fail(&self) -> Result<(), MsiError> {
        assert_eq!(SAVED.get(), 0, "a task operation with interrupts off");
        count_down(&self.fail_in).then_some(()).ok_or(FAULT)
    }

    fn doorbell(&self, cpu: Cpu) -> u64 {
        match self.kind {
            Kind::Stays => 0x0809_0040,
            Kind::NamesCpu => 0x080a_0040 + u64::from(cpu.get()) * 0x2_0000,
            Kind::NamesCpuFarApart => 0x080a_0040 + (u64::from(cpu.get()) << 32),
        }
    }

    /// A device's message arrives. Panics if it is torn or stray.
    pub(crate) fn signal(&self, message: MsiMessage) {
        let mut inside = self.inside();
        let vector = Vector::new(message.data);
        let line = inside.lines.get(&vector).unwrap_or_else(|| panic!("stray message {message:x?}"));
        let cpu = match self.kind {
            Kind::Stays => line.cpu,
            Kind::NamesCpu | Kind::NamesCpuFarApart => {
                let named = (0..64).map(Cpu::new).find(|cpu| self.doorbell(*cpu) == message.address);
                named.unwrap_or_else(|| panic!("torn message {message:x?}"))
            }
        };
        inside.pending.insert((cpu, vector));
    }

    /// A CPU reads its acknowledge register.
    pub(crate) fn acknowledge(&self, cpu: u32) -> Option<Vector> {
        let mut inside = self.inside();
        let cpu = Cpu::new(cpu);
        let found = inside.pending.iter().copied().find(|(place, vector)| {
            *place == cpu && inside.lines.get(vector).is_some_and(|line| !line.masked)
        })?;
        inside.pending.remove(&found);
        Some(found.1)
    }

    pub(crate) fn is_masked(&self, vector: Vector) -> bool {
        self.inside().lines[&vector].masked
    }

    pub(crate) fn pending_at(&self) -> Vec<(Cpu, Vector)> {
        self.inside().pending.iter().copied().collect()
    }

    pub(crate) fn outcomes(&self) -> Vec<MoveOutcome> {
        self.inside().outcomes.clone()
    }

    pub(crate) fn set_unreachable(&self, cpu: u32) {
        self.inside().unreachable.insert(Cpu::new(cpu));
    }

    /// How many vectors are handed out.
    pub(crate) fn vectors_in_use(&self) -> usize {
        self.inside().lines.len()
    }

    /// How many devices are attached.
    pub(crate) fn devices_attached(&self) -> usize {
        self.inside().devices.len()
    }
}

/// False once, when the counter is at 0.
fn count_down(counter: &AtomicUsize) -> bool {
    match counter.load(Ordering::Relaxed) {
        usize::MAX => true,
        0 => {
            counter.store(usize::MAX, Ordering::Relaxed);
            false
        }
        left => {
            counter.store(left - 1, Ordering::Relaxed);
            true
        }
    }
}

fn find_free(inside: &Inside, capacity: u32, count: u32, alignment: u32) -> Option<u32> {
    let starts = (FIRST..FIRST + capacity).step_by(alignment as usize);
    starts
        .filter(|start| start + count <= FIRST + capacity)
        .find(|start| (*start..start + count).all(|vector| !inside.lines.contains_key(&Vector::new(vector))))
}

impl MsiParent for Controller {
    fn isolation(&self, _: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::SharedDoorbell("mock"))
    }

    fn attach(&self, _: RequesterId, _: u32) -> Result<Attachment, MsiError> {
        self.may_fail()?;
        let mut inside = self.inside();
        inside.attached += 1;
        let cookie = inside.attached;
        inside.devices.insert(cookie, BTreeSet::new());
        Ok(Attachment::new(cookie))
    }

    fn detach(&self, device: Attachment) {
        let vectors = self.inside().devices.remove(&device.cookie()).expect("detached twice");
        assert!(vectors.is_empty(), "detached with vectors");
    }

    fn allocate(&self, device: &Attachment, request: &BlockRequest) -> Result<VectorBlock, MsiError> {
        self.may_fail()?;
        let mut inside = self.inside();
        if inside.unreachable.contains(&request.cpu) {
            return Err(MsiError::NotReachable(request.cpu, "as the test wants"));
        }
        let count = u32::from(request.count.get());
        let alignment = match request.shape {
            Shape::Independent => 1,
            Shape::AlignedGroup => count,
        };
        let wanted = request.count.get();
        let first =
            find_free(&inside, self.capacity, count, alignment).ok_or(MsiError::NoVectors { wanted })?;
        request.fit.check(MsiMessage { address: self.doorbell(request.cpu), data: first + count - 1 })?;
        for vector in (first..first + count).map(Vector::new) {
            let group = match request.shape {
                Shape::AlignedGroup if self.kind != Kind::Stays => (Vector::new(first), request.count),
                _ => (vector, NonZeroU16::MIN),
            };
            let masked = request.initially == Initially::Masked;
            inside.lines.insert(vector, Line { cpu: request.cpu, masked, group, moving: false });
            inside.devices.get_mut(&device.cookie()).expect("not attached").insert(vector);
        }
        Ok(VectorBlock::new(Vector::new(first), request.count))
    }

    fn free(&self, device: &Attachment, block: VectorBlock) {
        let mut inside = self.inside();
        for index in 0..block.count().get() {
            let vector = block.vector(index).unwrap();
            let line = inside.lines.remove(&vector).expect("freed twice");
            assert!(!line.moving, "freed while it moves");
            assert!(inside.devices.get_mut(&device.cookie()).expect("not attached").remove(&vector));
            inside.pending.retain(|(_, pending)| *pending != vector);
        }
    }

    fn compose(&self, block: &VectorBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.may_fail()?;
        let vector = block.vector(index).expect("index past the block");
        let inside = self.inside();
        Ok(MsiMessage { address: self.doorbell(inside.lines[&vector].cpu), data: vector.get() })
    }

    fn begin_move(&self, block: &VectorBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        self.may_fail()?;
        let mut inside = self.inside();
        if inside.unreachable.contains(&to) {
            return Err(MsiError::NotReachable(to, "as the test wants"));
        }
        let vector = block.vector(index).expect("index past the block");
        let line = inside.lines.get_mut(&vector).expect("moved after it was freed");
        assert!(!line.moving, "moved twice at once");
        line.moving = true;
        let (first, count) = line.group;
        let message =
            (self.kind != Kind::Stays).then(|| MsiMessage { address: self.doorbell(to), data: first.get() });
        Ok(Move { first, count, message, from: line.cpu, to })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        let mut inside = self.inside();
        for offset in 0..u32::from(moved.count.get()) {
            let line =
                inside.lines.get_mut(&moved.first.checked_add(offset).unwrap()).expect("freed in a move");
            line.moving = false;
            if outcome == MoveOutcome::Written {
                line.cpu = moved.to;
            }
        }
        inside.outcomes.push(outcome);
        Ok(())
    }

    fn mask(&self, vector: Vector) {
        self.inside().lines.get_mut(&vector).expect("masked after it was freed").masked = true;
    }

    fn unmask(&self, vector: Vector) {
        self.inside().lines.get_mut(&vector).expect("unmasked after it was freed").masked = false;
    }

    fn set_pending(&self, vector: Vector, pending: Pending) {
        let mut inside = self.inside();
        let cpu = inside.lines.get(&vector).expect("set pending after it was freed").cpu;
        match pending {
            Pending::Set => drop(inside.pending.insert((cpu, vector))),
            Pending::Clear => inside.pending.retain(|(_, other)| *other != vector),
        }
    }

    fn describe(&self, vector: Vector, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "  mock controller: vector {vector}")
    }
}

/// The same vectors as a root's wired inputs, 32 to 1019.
#[derive(Debug, Default)]
pub(crate) struct Root {
    pub(crate) lines: Mutex<BTreeMap<Vector, WiredLine>>,
    pub(crate) pending: Mutex<BTreeSet<Vector>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WiredLine {
    pub(crate) masked: bool,
    pub(crate) trigger: Option<Trigger>,
    pub(crate) target: Option<Cpu>,
}

impl Root {
    pub(crate) fn line(&self, vector: u32) -> Option<WiredLine> {
        self.lines.lock().unwrap().get(&Vector::new(vector)).copied()
    }

    fn change(&self, vector: Vector, change: impl FnOnce(&mut WiredLine)) {
        // Private vectors are nobody's claim.
        if vector.get() >= 32 {
            change(self.lines.lock().unwrap().get_mut(&vector).expect("not claimed"));
        }
    }
}

impl WiredParent for Root {
    fn claim(&self, first: Vector, _: NonZeroU16) -> Result<(), MsiError> {
        let mut lines = self.lines.lock().unwrap();
        if !(32..1020).contains(&first.get()) || lines.contains_key(&first) {
            return Err(MsiError::UnknownVector(first));
        }
        lines.insert(first, WiredLine { masked: true, trigger: None, target: None });
        Ok(())
    }

    fn release(&self, first: Vector, _: NonZeroU16) {
        self.lines.lock().unwrap().remove(&first).expect("released twice");
    }

    fn set_trigger(&self, vector: Vector, trigger: Trigger) -> Result<(), MsiError> {
        self.change(vector, |line| {
            assert!(line.masked, "the trigger changes while it can fire");
            line.trigger = Some(trigger);
        });
        Ok(())
    }

    fn set_target(&self, vector: Vector, cpu: Cpu) -> Result<(), MsiError> {
        self.change(vector, |line| line.target = Some(cpu));
        Ok(())
    }

    fn mask(&self, vector: Vector) {
        self.change(vector, |line| line.masked = true);
    }

    fn unmask(&self, vector: Vector) {
        self.change(vector, |line| line.masked = false);
    }

    fn set_pending(&self, vector: Vector, pending: Pending) {
        let mut all = self.pending.lock().unwrap();
        match pending {
            Pending::Set => all.insert(vector),
            Pending::Clear => all.remove(&vector),
        };
    }

    fn is_pending(&self, vector: Vector) -> bool {
        self.pending.lock().unwrap().contains(&vector)
    }
}

/// What kind of store a test wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreKind {
    pub(crate) slots: u16,
    pub(crate) masking: Masking,
    /// The mask bit is usable in hard-IRQ context.
    pub(crate) fast: bool,
    pub(crate) rewrite: Rewrite,
    pub(crate) address_bits: u8,
    /// One message, of which the device makes the others.
    pub(crate) group: bool,
}

impl StoreKind {
    pub(crate) const MSIX: Self = Self {
        slots: 8,
        masking: Masking::PerVector,
        fast: true,
        rewrite: Rewrite::Masked,
        address_bits: 64,
        group: false,
    };
    /// Behind a command queue.
    pub(crate) const SLOW: Self = Self { fast: false, ..Self::MSIX };
    pub(crate) const MSI: Self = Self {
        slots: 8,
        masking: Masking::None,
        fast: false,
        rewrite: Rewrite::LowWordOnly,
        address_bits: 64,
        group: true,
    };
    pub(crate) const MSI_MASKABLE: Self = Self { group: true, ..Self::MSIX };
}

#[derive(Clone, Copy, Debug, Default)]
struct SlotState {
    message: Option<MsiMessage>,
    masked: bool,
    waiting: bool,
}

/// See [`Store::meanwhile`].
pub(crate) struct Hook(pub Box<dyn FnOnce() + Send>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// A device's message store, and the device behind it.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) kind: StoreKind,
    pub(crate) controller: Arc<Controller>,
    /// Counts down at each write; the one that finds 0 fails.
    pub(crate) fail_in: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    pub(crate) enabled: AtomicBool,
    pub(crate) granted: AtomicUsize,
    /// Called once, in the middle of an update: what another CPU does meanwhile.
    pub(crate) meanwhile: Mutex<Option<Hook>>,
    cells: Mutex<Vec<SlotState>>,
}

impl Store {
    pub(crate) fn new(kind: StoreKind, controller: &Arc<Controller>) -> Arc<Self> {
        let masked = kind.masking == Masking::PerVector;
        let cell = SlotState { masked, ..SlotState::default() };
        Arc::new(Self {
            kind,
            controller: controller.clone(),
            fail_in: AtomicUsize::new(usize::MAX),
            writes: AtomicUsize::new(0),
            enabled: AtomicBool::new(false),
            granted: AtomicUsize::new(0),
            meanwhile: Mutex::new(None),
            cells: Mutex::new(vec![cell; usize::from(kind.slots)]),
        })
    }

    fn cells(&self) -> MutexGuard<'_, Vec<SlotState>> {
        self.cells.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn message(&self, slot: u16) -> Option<MsiMessage> {
        self.cells()[usize::from(slot)].message
    }

    pub(crate) fn is_masked(&self, slot: u16) -> bool {
        self.cells()[usize::from(slot)].masked
    }

    /// The device fires: sends its message, or keeps it while masked.
    pub(crate) fn fire(&self, slot: u16) {
        let mut cells = self.cells();
        self.send(&mut cells, slot);
    }

    fn send(&self, cells: &mut [SlotState], slot: u16) {
        assert!(self.enabled.load(Ordering::SeqCst), "fired while it is off");
        let cell = &mut cells[usize::from(slot)];
        cell.waiting = cell.masked;
        if cell.masked {
            return;
        }
        let holder = if self.kind.group { 0 } else { usize::from(slot) };
        let mut message = cells[holder].message.expect("fired without a message");
        if self.kind.group {
            message.data += u32::from(slot);
        }
        self.controller.signal(message);
    }

    fn set_mask(&self, cells: &mut [SlotState], slot: u16, masked: bool) {
        if self.kind.masking == Masking::None {
            return;
        }
        let cell = &mut cells[usize::from(slot)];
        cell.masked = masked;
        if !masked && cell.waiting && self.enabled.load(Ordering::SeqCst) {
            self.send(cells, slot);
        }
    }
}

struct Open<'a> {
    store: &'a Store,
    cells: MutexGuard<'a, Vec<SlotState>>,
    failure: Option<StoreError>,
}

impl Slots for Open<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        let store = self.store;
        store.writes.fetch_add(1, Ordering::Relaxed);
        if self.failure.is_some() {
            return;
        }
        assert!(!store.kind.group || slot == 0, "a group has one message");
        if !count_down(&store.fail_in) {
            self.failure = Some(StoreError { slot, reason: "injected" });
            return;
        }
        let cell = &mut self.cells[usize::from(slot)];
        if store.enabled.load(Ordering::SeqCst) && cell.message.is_some_and(|old| old != message) {
            let old = cell.message.unwrap();
            match store.kind.rewrite {
                Rewrite::Masked => assert!(cell.masked, "rewritten while it can fire"),
                Rewrite::LowWordOnly => {
                    assert_eq!(
                        (old.data, old.address_high()),
                        (message.data, message.address_high()),
                        "torn"
                    );
                }
                Rewrite::Never => panic!("rewritten"),
                Rewrite::Atomic64 => {}
            }
        }
        cell.message = Some(message);
    }

    fn mask(&mut self, slot: u16) {
        self.store.set_mask(&mut self.cells, slot, true);
    }

    fn unmask(&mut self, slot: u16) {
        self.store.set_mask(&mut self.cells, slot, false);
    }
}

impl MessageStore for Store {
    fn slots(&self) -> u16 {
        self.kind.slots
    }

    fn fit(&self) -> Fit {
        Fit { address_bits: self.kind.address_bits, data_bits: 32, rewrite: self.kind.rewrite }
    }

    fn masking(&self) -> Masking {
        self.kind.masking
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn Slots)) -> Result<(), StoreError> {
        assert_eq!(SAVED.get(), 0, "updated with interrupts off");
        let mut open = Open { store: self, cells: self.cells(), failure: None };
        change(&mut open);
        let failure = open.failure;
        drop(open);
        let hook = self.meanwhile.lock().unwrap().take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        failure.map_or(Ok(()), Err)
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        assert_eq!(SAVED.get(), 0, "switched with interrupts off");
        // Only turning on can fail: a failure to turn off is the device's end.
        if enabled && !count_down(&self.fail_in) {
            return Err(StoreError { slot: 0, reason: "injected" });
        }
        self.enabled.store(enabled, Ordering::SeqCst);
        Ok(())
    }

    fn grant(&self, vectors: NonZeroU16) -> Result<(), StoreError> {
        assert!(!self.enabled.load(Ordering::SeqCst), "granted while it is on");
        self.granted.store(usize::from(vectors.get()), Ordering::Relaxed);
        Ok(())
    }

    fn fast_mask(&self) -> Option<&dyn FastMask> {
        self.kind.fast.then_some(self)
    }
}

impl FastMask for Store {
    fn mask(&self, slot: u16) {
        self.set_mask(&mut self.cells(), slot, true);
    }

    fn unmask(&self, slot: u16) {
        self.set_mask(&mut self.cells(), slot, false);
    }

    fn is_pending(&self, slot: u16) -> bool {
        self.cells()[usize::from(slot)].waiting
    }
}

/// A machine of four CPUs, all on line, with one controller.
pub(crate) struct Machine {
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) controller: Arc<Controller>,
    pub(crate) root: Arc<Root>,
}

pub(crate) const CPUS: u32 = 4;

impl Machine {
    pub(crate) fn new(kind: Kind) -> Self {
        Self::with_controller(Controller::new(kind))
    }

    pub(crate) fn with_controller(controller: Arc<Controller>) -> Self {
        let root = Arc::new(Root::default());
        let cpus = NonZeroU16::new(4).unwrap();
        let interrupts = Interrupts::new(Config::new(cpus, Arc::new(Kernel)).with_wired(root.clone()));
        for cpu in 1..CPUS {
            interrupts.cpu_online(Cpu::new(cpu)).unwrap();
        }
        Self { interrupts, controller, root }
    }

    pub(crate) fn store(&self, kind: StoreKind) -> Arc<Store> {
        Store::new(kind, &self.controller)
    }

    pub(crate) fn attach(&self, store: &Arc<Store>) -> MsiDevice {
        self.try_attach(store).unwrap()
    }

    pub(crate) fn try_attach(&self, store: &Arc<Store>) -> Result<MsiDevice, irq_domain::MsiDeviceError> {
        let config = MsiDeviceConfig {
            name: "device",
            requester: RequesterId::pci(1, 0, 0),
            parent: self.controller.clone(),
            store: store.clone(),
        };
        MsiDevice::attach(&self.interrupts, config)
    }

    /// Takes what is pending on `cpu`, as its trap loop would, until nothing is.
    pub(crate) fn take_interrupts(&self, cpu: u32) -> Vec<(Vector, Dispatched)> {
        let mut taken = Vec::new();
        while let Some(vector) = self.controller.acknowledge(cpu) {
            taken.push((vector, on_cpu(cpu, || self.interrupts.dispatch(Cpu::new(cpu), vector))));
        }
        taken
    }

    /// Takes everything everywhere, until nothing is pending.
    pub(crate) fn settle(&self) {
        while (0..CPUS).any(|cpu| !self.take_interrupts(cpu).is_empty()) {}
    }
}
