//! A board with a guest and its host. Each sleeps until the other signals.

use crate::gic::Gic;
use crate::signals::{Bell, EndSignals};
use crate::tamper::{Fate, Tamper, Tampered};
use doorbell_test_support::with_allocations;
use hyperv_vpci::channel::{Channel, PacketKind};
use hyperv_vpci::guest::{Bus, BusConfig, Faults, Kernel, SpiDomain, Vectors, VpciError, Wait};
use hyperv_vpci::host::{
    FunctionInterrupts, Host, HostConfig, HostError, HostFunction, Injection, Served,
};
use hyperv_vpci::protocol::{DeviceDescription, Request, Slot, Version};
use hyperv_vpci::ring::{HeapRing, RingChannel};
use msi_types::{
    Attachment, BlockRequest, Cpu, Delivery, Fit, HwIrqBlock, IrqState, LocalCpu, MsiError,
    MsiMessage, MsiParent, NoIdentity, Rewrite, Shape, SignalMsi, TaskContext,
};
use std::num::{NonZeroU8, NonZeroU16};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

pub(crate) const CPUS: u16 = 4;
/// VP index for x86 machines, which does not fit a mask of 64 processors.
pub(crate) const FAR: u16 = 200;
/// Number of VP indices of an x86 host.
pub(crate) const PROCESSORS: u16 = 256;
pub(crate) const BUS: u8 = 5;
pub(crate) const SLOT: Slot = Slot::new(0, 0);
pub(crate) const OTHER: Slot = Slot::new(1, 0);
/// Address of messages, at which no doorbell exists.
pub(crate) const ADDRESS: u64 = 0xfeed_0000;
pub(crate) const INSTANCE: [u8; 16] = *b"a bus's instance";

/// Number of wake-ups until a wait times out.
const PATIENCE: u32 = 256;

pub(crate) type Ring = RingChannel<HeapRing, Bell>;

/// Creates the guest's and the host's end of a channel. The test drives both.
pub(crate) fn channel() -> (Ring, Ring) {
    channel_with(4, Bell::Nobody, Bell::Nobody)
}

/// Creates both ends of a channel with rings of `pages` pages. The guest signals `to_host`, and the
/// host signals `to_guest`.
pub(crate) fn channel_with(pages: u8, to_host: Bell, to_guest: Bell) -> (Ring, Ring) {
    let pages = NonZeroU8::new(pages).expect("the count is not 0");
    let rings = [0, 1].map(|_| HeapRing::new(pages).expect("the heap has room"));
    let [there, back] = rings;
    let end = |out: &HeapRing, inp: &HeapRing, peer| {
        RingChannel::new(out.clone(), inp.clone(), peer).expect("new rings")
    };
    (end(&there, &back, to_host), end(&back, &there, to_guest))
}

/// Returns counts of faults that are 0 except for what `count` sets.
pub(crate) fn faults(count: impl FnOnce(&mut Faults)) -> Faults {
    let mut faults = Faults::default();
    count(&mut faults);
    faults
}

pub(crate) struct HostSide {
    pub(crate) host: Host,
    pub(crate) channel: Tampered<Ring>,
}

impl HostSide {
    pub(crate) fn serve(&mut self) -> Result<Served, HostError> {
        self.host.serve(&mut self.channel)
    }

    /// Removes the function in `slot` and offers another one there.
    pub(crate) fn replace(&mut self, slot: Slot, serial: u32) -> Arc<FunctionInterrupts> {
        self.host.remove(slot).unwrap();
        let mut function = function(slot);
        function.description.serial = serial;
        self.host.offer(function).unwrap()
    }
}

/// Action that runs once, before the host next serves requests.
type Meanwhile = Box<dyn FnOnce(&mut HostSide) + Send>;

/// Host that its own thread and the test's thread share.
pub(crate) struct HostThread {
    pub(crate) side: Mutex<HostSide>,
    pub(crate) signals: Arc<EndSignals>,
    meanwhile: Mutex<Option<Meanwhile>>,
    /// `true` while the host's thread must not serve.
    is_stalled: AtomicBool,
    /// Number of allocations that the host may make each time it serves, if limited.
    host_allocations: Mutex<Option<u32>>,
}

impl HostThread {
    /// Runs the host's thread.
    fn run(&self) {
        while self.signals.host_sleeps() {
            if self.is_stalled.load(Ordering::SeqCst) {
                continue;
            }
            let mut side = self.side.lock().unwrap();
            if let Some(act) = self.meanwhile.lock().unwrap().take() {
                act(&mut side);
            }
            let limit = *self.host_allocations.lock().unwrap();
            let mut serve = || match limit {
                Some(allocations) => with_allocations(allocations, || side.serve()),
                None => side.serve(),
            };
            // Errors are ignored: the guest notices them when its waits time out.
            while serve() == Ok(Served::More) {}
        }
    }

    pub(crate) fn meanwhile(&self, act: impl FnOnce(&mut HostSide) + Send + 'static) {
        self.signals.settle();
        *self.meanwhile.lock().unwrap() = Some(Box::new(act));
    }

    /// Changes the host, and lets it send what it has for the guest.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Host) -> R) -> R {
        let mut side = self.side.lock().unwrap();
        let changed = change(&mut side.host);
        side.serve().unwrap();
        changed
    }

    /// Sends a packet as the host.
    pub(crate) fn send(&self, kind: PacketKind, payload: &[u8]) {
        self.side.lock().unwrap().channel.inner.send(kind, payload).unwrap();
    }

    /// Stops the host's thread from serving.
    pub(crate) fn stall(&self) {
        self.signals.settle();
        self.is_stalled.store(true, Ordering::SeqCst);
    }

    pub(crate) fn go_on(&self) {
        self.is_stalled.store(false, Ordering::SeqCst);
        self.side.lock().unwrap().serve().unwrap();
    }

    pub(crate) fn limit_host(&self, allocations: Option<u32>) {
        self.signals.settle();
        *self.host_allocations.lock().unwrap() = allocations;
    }
}

/// Guest kernel whose waits sleep until the host signals.
pub(crate) struct TestKernel {
    host: Arc<HostThread>,
    pub(crate) may_wait: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

impl TestKernel {
    fn new(side: HostSide, signals: Arc<EndSignals>) -> Self {
        let (meanwhile, is_stalled, host_allocations) = Default::default();
        let side = side.into();
        let host = Arc::new(HostThread { side, signals, meanwhile, is_stalled, host_allocations });
        let served = host.clone();
        let thread = Some(std::thread::spawn(move || served.run()));
        Self { host, may_wait: AtomicBool::new(true), thread }
    }
}

impl Deref for TestKernel {
    type Target = HostThread;

    fn deref(&self) -> &HostThread {
        &self.host
    }
}

impl Drop for TestKernel {
    fn drop(&mut self) {
        self.signals.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

impl TaskContext for TestKernel {
    fn may_wait(&self) -> bool {
        self.may_wait.load(Ordering::SeqCst)
    }
}

impl LocalCpu for TestKernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn yield_now(&self) {}
}

impl Kernel for TestKernel {
    fn wake_ups(&self) -> u32 {
        self.signals.wake_ups()
    }
    fn wake(&self) {
        self.signals.wake();
    }
    fn wait(&self, seen: u32, turn: u32) -> Wait {
        assert!(self.may_wait(), "the guest waits in atomic context");
        if self.signals.guest_waits(seen) && turn < PATIENCE { Wait::Again } else { Wait::GiveUp }
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok().filter(|index| *index < CPUS || *index == FAR)
    }
}

pub(crate) struct Board {
    pub(crate) gic: Arc<Gic>,
    pub(crate) domain: Arc<SpiDomain>,
    pub(crate) kernel: Arc<TestKernel>,
    pub(crate) tamper: Tamper,
    /// Senders of the device models in [`SLOT`] and [`OTHER`].
    pub(crate) devices: Vec<Arc<FunctionInterrupts>>,
    pub(crate) bus: Bus,
}

/// Creates a GIC, and the vectors of a guest that uses its SPIs.
pub(crate) fn spis() -> (Arc<Gic>, Vectors) {
    let gic = Arc::new(Gic::new(1020, CPUS.into()));
    let domain = SpiDomain::new(gic.clone(), Arc::new(Idle)).unwrap();
    (gic, Vectors::Spis(Arc::new(domain)))
}

pub(crate) fn function(slot: Slot) -> HostFunction {
    let description =
        DeviceDescription { vendor: 0x1414, device: 7, serial: 9, slot, ..Default::default() };
    HostFunction::new(description, [0xffff_0000, 0, 0, 0, 0, 0])
}

pub(crate) fn host_config(highest: Version) -> HostConfig {
    HostConfig::new(CPUS, ADDRESS, INSTANCE).with_highest(highest)
}

pub(crate) fn config() -> BusConfig {
    BusConfig::new(0x1000_0000, BUS, 512)
}

/// Creates a host that waits for its guest, and the guest's end of the channel.
pub(crate) fn prepare(
    highest: Version,
    injection: Injection,
    tamper: &Tamper,
) -> (Arc<TestKernel>, Vec<Arc<FunctionInterrupts>>, Ring) {
    prepare_over(4, highest, injection, tamper)
}

/// Like [`prepare`], with rings of `pages` pages.
fn prepare_over(
    pages: u8,
    highest: Version,
    injection: Injection,
    tamper: &Tamper,
) -> (Arc<TestKernel>, Vec<Arc<FunctionInterrupts>>, Ring) {
    let signals = Arc::new(EndSignals::default());
    let (to_host, to_guest) = (Bell::Host(signals.clone()), Bell::Guest(signals.clone()));
    let (guest, inner) = channel_with(pages, to_host, to_guest);
    let config = match injection {
        Injection::Spi(_) => host_config(highest),
        Injection::Apic { .. } => {
            HostConfig::new(PROCESSORS, ADDRESS, INSTANCE).with_highest(highest)
        }
    };
    let mut host = Host::new(config, injection).unwrap();
    let devices = [SLOT, OTHER].map(|slot| host.offer(function(slot)).unwrap()).to_vec();
    let side = HostSide { host, channel: Tampered { inner, tamper: tamper.clone() } };
    (Arc::new(TestKernel::new(side, signals)), devices, guest)
}

pub(crate) fn open(
    highest: Version,
    injection: Injection,
    vectors: Vectors,
    tamper: &Tamper,
) -> (Arc<TestKernel>, Vec<Arc<FunctionInterrupts>>, Result<Bus, VpciError>) {
    let (kernel, devices, guest) = prepare(highest, injection, tamper);
    let bus = Bus::open(config(), Box::new(guest), vectors, kernel.clone());
    (kernel, devices, bus)
}

/// Opens another channel to the host of a suspended board, after `change` modified the host.
pub(crate) fn channel_to(board: &Board, change: impl FnOnce(&mut Host)) -> Ring {
    let signals = board.kernel.signals.clone();
    signals.settle();
    let (guest, inner) = channel_with(4, Bell::Host(signals.clone()), Bell::Guest(signals));
    let mut side = board.kernel.side.lock().unwrap();
    side.channel.inner = inner;
    change(&mut side.host);
    guest
}

impl Board {
    pub(crate) fn new() -> Self {
        Self::with(Version::V1_4, Arc::new(Gic::new(1020, CPUS.into())))
    }

    pub(crate) fn with(highest: Version, gic: Arc<Gic>) -> Self {
        let domain = Arc::new(SpiDomain::new(gic.clone(), Arc::new(Idle)).unwrap());
        Self::under(highest, gic, domain)
    }

    pub(crate) fn under(highest: Version, gic: Arc<Gic>, domain: Arc<SpiDomain>) -> Self {
        let tamper = Tamper::default();
        let injection = Injection::Spi(gic.clone());
        let vectors = Vectors::Spis(domain.clone());
        let (kernel, devices, bus) = open(highest, injection, vectors, &tamper);
        assert_eq!(kernel.signals.waits_in_vain(), 0, "the host did not signal");
        kernel.signals.settle();
        tamper.heard();
        Self { gic, domain, kernel, tamper, devices, bus: bus.expect("the bus opens") }
    }

    /// Creates a board whose function in [`SLOT`] is attached.
    pub(crate) fn with_device() -> (Self, Attachment) {
        let board = Self::new();
        let device = board.attach(SLOT);
        (board, device)
    }

    /// Creates a board whose function in [`SLOT`] has a vector. Returns the vector's message.
    pub(crate) fn with_vector() -> (Self, Attachment, HwIrqBlock, MsiMessage) {
        let (board, device, block) = Self::with_block();
        let message = board.bus.compose(&block, 0).unwrap();
        (board, device, block, message)
    }

    /// Creates a board whose function in [`SLOT`] has a vector without a message.
    pub(crate) fn with_block() -> (Self, Attachment, HwIrqBlock) {
        let (board, device) = Self::with_device();
        let block = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
        (board, device, block)
    }

    pub(crate) fn attach(&self, slot: Slot) -> Attachment {
        self.bus.attach(slot.requester(BUS), 64).expect("the function is present")
    }

    /// Allocates and unmasks a vector for CPU 0, and returns it with its message.
    pub(crate) fn vector(&self, device: &Attachment) -> (HwIrqBlock, MsiMessage) {
        let block = self.bus.allocate(device, &request(1, Shape::Independent)).unwrap();
        let message = self.bus.compose(&block, 0).unwrap();
        (block, message)
    }

    pub(crate) fn send(&self, message: MsiMessage) -> Delivery {
        self.devices[0].signal_msi(NoIdentity, message)
    }

    /// Returns the guest's requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.kernel.signals.settle();
        let heard = self.tamper.heard().into_iter();
        heard.map(|(_, message)| Request::parse(&message).expect("a valid request")).collect()
    }

    /// Returns the number of requests since the last call that expect a completion.
    pub(crate) fn asked(&self) -> usize {
        self.kernel.signals.settle();
        let heard = self.tamper.heard();
        heard.iter().filter(|(kind, _)| matches!(kind, PacketKind::Request(_))).count()
    }

    /// Returns the number of vectors for which the host has messages.
    pub(crate) fn mapped(&self) -> u32 {
        self.kernel.signals.settle();
        let side = self.kernel.side.lock().unwrap();
        side.host.vectors(SLOT) + side.host.vectors(OTHER)
    }

    /// Delivers the host's delayed answers and polls the guest.
    pub(crate) fn let_go(&self) {
        self.tamper.set(Fate::Sent);
        self.kernel.side.lock().unwrap().channel.let_go();
        self.hear();
        self.kernel.signals.settle();
    }

    /// Opens a bus with up to 16 vectors over rings of one page. `wrap` wraps the guest's end.
    pub(crate) fn over(wrap: impl FnOnce(Ring, &Arc<Gic>) -> Box<dyn Channel>) -> Self {
        let gic = Arc::new(Gic::new(1020, CPUS.into()));
        let domain = Arc::new(SpiDomain::new(gic.clone(), Arc::new(Idle)).unwrap());
        let tamper = Tamper::default();
        let injection = Injection::Spi(gic.clone());
        let (kernel, devices, guest) = prepare_over(1, Version::V1_4, injection, &tamper);
        let (channel, vectors) = (wrap(guest, &gic), Vectors::Spis(domain.clone()));
        let config = BusConfig::new(0x1000_0000, BUS, 16);
        let bus = Bus::open(config, channel, vectors, kernel.clone()).expect("the bus opens");
        kernel.signals.settle();
        tamper.heard();
        Self { gic, domain, kernel, tamper, devices, bus }
    }

    /// Polls the guest whenever the host signals, until both sleep.
    pub(crate) fn rest(&self) {
        while self.kernel.signals.guest_sleeps() {
            assert_eq!(self.bus.poll(), Ok(hyperv_vpci::channel::Idle::Sleep));
        }
    }

    /// Replaces the function in [`SLOT`], and lets the guest hear of it.
    pub(crate) fn replace(&self, serial: u32) -> Arc<FunctionInterrupts> {
        let mut side = self.kernel.side.lock().unwrap();
        let successor = side.replace(SLOT, serial);
        side.serve().unwrap();
        drop(side);
        self.hear();
        successor
    }

    /// Asserts that the host has signaled, and polls the guest.
    pub(crate) fn hear(&self) {
        assert!(self.kernel.signals.host_signaled(), "the host did not signal");
        assert_eq!(self.bus.poll(), Ok(hyperv_vpci::channel::Idle::Sleep));
    }
}

pub(crate) fn request(count: u16, shape: Shape) -> BlockRequest {
    BlockRequest::new(
        NonZeroU16::new(count).expect("the count is not 0"),
        Fit::new(Rewrite::Masked),
        Cpu::new(0),
    )
    .with_shape(shape)
}

/// Returns the reason why a vector gets no message.
pub(crate) fn refusal(bus: &Bus, block: &HwIrqBlock) -> &'static str {
    reason(bus.compose(block, 0).unwrap_err())
}

/// Returns the reason for a controller's failure.
pub(crate) fn reason(error: MsiError) -> &'static str {
    match error {
        MsiError::Controller(fault) => fault.reason,
        other => panic!("{other}"),
    }
}

/// Task context of the SPI domain, on a CPU without interrupts.
pub(crate) struct Idle;

/// Implements the contexts of a kernel that runs only tasks, on CPUs without interrupts.
macro_rules! impl_task_context {
    ($kernel:ty) => {
        impl msi_types::LocalCpu for $kernel {
            fn irq_save(&self) -> msi_types::IrqState {
                msi_types::IrqState::new(0)
            }
            fn irq_restore(&self, _: msi_types::IrqState) {}
            fn yield_now(&self) {}
        }

        impl msi_types::TaskContext for $kernel {
            fn may_wait(&self) -> bool {
                true
            }
        }
    };
}

pub(crate) use impl_task_context;

impl_task_context!(Idle);
