//! A guest and its host in one thread: the guest's waits let the host work.

use crate::gic::Gic;
use crate::tamper::{Fate, Tamper, Tampered};
use doorbell_test_support::{outside, with_allocations};
use hyperv_vpci::channel::PacketKind;
use hyperv_vpci::guest::{Bus, BusConfig, Kernel, SpiDomain, Vectors, VpciError, Wait};
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub(crate) const CPUS: u16 = 4;
pub(crate) const BUS: u8 = 5;
pub(crate) const SLOT: Slot = Slot::new(0, 0);
pub(crate) const OTHER: Slot = Slot::new(1, 0);
/// No doorbell listens there.
pub(crate) const ADDRESS: u64 = 0xfeed_0000;
pub(crate) const INSTANCE: [u8; 16] = *b"a bus's instance";

pub(crate) type Ring = RingChannel<HeapRing, fn()>;

fn nobody() {}

/// Both ends of a channel: the guest's, the host's.
pub(crate) fn channel() -> (Ring, Ring) {
    let pages = NonZeroU8::new(4).expect("4 pages");
    let rings = [0, 1].map(|_| HeapRing::new(pages).expect("the heap has room"));
    let [there, back] = rings;
    let end = |out: &HeapRing, inp: &HeapRing| {
        RingChannel::new(out.clone(), inp.clone(), nobody as fn()).expect("new rings")
    };
    (end(&there, &back), end(&back, &there))
}

pub(crate) struct HostSide {
    pub(crate) host: Host,
    pub(crate) channel: Tampered<Ring>,
}

impl HostSide {
    pub(crate) fn serve(&mut self) -> Result<Served, HostError> {
        self.host.serve(&mut self.channel)
    }
}

/// Something that happens while the guest waits.
type Meanwhile = Box<dyn FnOnce(&mut HostSide) + Send>;

pub(crate) struct TestKernel {
    pub(crate) side: Mutex<HostSide>,
    pub(crate) may_wait: AtomicBool,
    meanwhile: Mutex<Option<Meanwhile>>,
    /// Allocations that the host has left for each look at its channel, if they are limited.
    host_allocations: Mutex<Option<u32>>,
}

impl TestKernel {
    pub(crate) fn meanwhile(&self, act: impl FnOnce(&mut HostSide) + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(act));
    }

    pub(crate) fn limit_host(&self, allocations: Option<u32>) {
        *self.host_allocations.lock().unwrap() = allocations;
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
    fn relax(&self) {}
}

impl Kernel for TestKernel {
    fn wait(&self, turn: u32) -> Wait {
        assert!(self.may_wait(), "a wait in atomic context");
        let mut side = self.side.lock().unwrap();
        if let Some(act) = self.meanwhile.lock().unwrap().take() {
            act(&mut side);
        }
        // A guest whose messages are refused is told so by its waits.
        let _ = match *self.host_allocations.lock().unwrap() {
            Some(allocations) => with_allocations(allocations, || side.serve()),
            None => outside(|| side.serve()),
        };
        if turn < 8 { Wait::Again } else { Wait::GiveUp }
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok().filter(|index| *index < CPUS)
    }
}

pub(crate) struct Board {
    pub(crate) gic: Arc<Gic>,
    pub(crate) domain: Arc<SpiDomain>,
    pub(crate) kernel: Arc<TestKernel>,
    pub(crate) tamper: Tamper,
    /// The device models' ends, of [`SLOT`] and [`OTHER`].
    pub(crate) devices: Vec<Arc<FunctionInterrupts>>,
    pub(crate) bus: Bus,
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

/// A host that waits for its guest, and the guest's end of the channel.
pub(crate) fn prepare(
    highest: Version,
    injection: Injection,
    tamper: &Tamper,
) -> (Arc<TestKernel>, Vec<Arc<FunctionInterrupts>>, Ring) {
    let (guest, inner) = channel();
    let mut host = Host::new(host_config(highest), injection).unwrap();
    let devices = [SLOT, OTHER].map(|slot| host.offer(function(slot)).unwrap()).to_vec();
    let side = HostSide { host, channel: Tampered { inner, tamper: tamper.clone() } };
    let may_wait = AtomicBool::new(true);
    let (meanwhile, host_allocations) = (None.into(), None.into());
    let kernel = TestKernel { side: side.into(), may_wait, meanwhile, host_allocations };
    (Arc::new(kernel), devices, guest)
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
        tamper.heard();
        Self { gic, domain, kernel, tamper, devices, bus: bus.expect("the bus opens") }
    }

    pub(crate) fn attach(&self, slot: Slot) -> Attachment {
        self.bus.attach(slot.requester(BUS), 64).expect("the function is there")
    }

    /// One vector for CPU 0, unmasked, with its message.
    pub(crate) fn vector(&self, device: &Attachment) -> (HwIrqBlock, MsiMessage) {
        let block = self.bus.allocate(device, &request(1, Shape::Independent)).unwrap();
        let message = self.bus.compose(&block, 0).unwrap();
        (block, message)
    }

    pub(crate) fn send(&self, message: MsiMessage) -> Delivery {
        self.devices[0].signal_msi(NoIdentity, message)
    }

    /// The guest's requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let heard = self.tamper.heard().into_iter();
        heard.map(|(_, message)| Request::parse(&message).expect("a sound guest")).collect()
    }

    /// Transactions that the guest wants completed since the last call.
    pub(crate) fn asked(&self) -> usize {
        let heard = self.tamper.heard();
        heard.iter().filter(|(kind, _)| matches!(kind, PacketKind::Request(_))).count()
    }

    /// Number of vectors that the host has messages for.
    pub(crate) fn mapped(&self) -> u32 {
        let side = self.kernel.side.lock().unwrap();
        side.host.vectors(SLOT) + side.host.vectors(OTHER)
    }

    /// The host's kept answers arrive, and the guest looks.
    pub(crate) fn let_go(&self) {
        self.tamper.set(Fate::Sent);
        self.kernel.side.lock().unwrap().channel.let_go();
        self.bus.poll().unwrap();
        self.kernel.side.lock().unwrap().serve().unwrap();
    }
}

pub(crate) fn request(count: u16, shape: Shape) -> BlockRequest {
    BlockRequest::new(
        NonZeroU16::new(count).expect("some vectors"),
        Fit::new(Rewrite::Masked),
        Cpu::new(0),
    )
    .with_shape(shape)
}

/// The reason of a failure of the bus's host.
pub(crate) fn reason(error: MsiError) -> &'static str {
    match error {
        MsiError::Controller(fault) => fault.reason,
        other => panic!("{other}"),
    }
}

/// The SPI domain's own CPU, without interrupts.
pub(crate) struct Idle;

impl TaskContext for Idle {
    fn may_wait(&self) -> bool {
        true
    }
}

impl LocalCpu for Idle {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn relax(&self) {}
}
