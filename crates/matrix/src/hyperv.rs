//! A virtual PCI bus of Hyper-V's: guest and host end in one thread, over rings in the heap.

use super::Endpoint;
use super::root::CPUS;
use doorbell_hardware::lock::lock;
use doorbell_hardware::platform::MachinePlatform;
use hyperv_vpci::guest::{Bus, BusConfig, Kernel, Vectors, Wait};
use hyperv_vpci::host::{FunctionInterrupts, Host, HostConfig, HostFunction, Injection};
use hyperv_vpci::protocol::{DeviceDescription, RETARGET_LENGTH, Slot, Version};
use hyperv_vpci::ring::{HeapRing, RingChannel};
use msi_types::{
    Cpu, Delivery, IrqState, LocalCpu, MsiMessage, NoIdentity, RequesterId, SignalMsi, TaskContext,
};
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex};

/// The address in the host's messages. Nothing else answers there.
const ADDRESS: u64 = 0xfeed_0000;
const WINDOW: u64 = 0x1000_0000;
pub(crate) const INSTANCE: [u8; 16] = *b"doorbell's buses";
const RING_PAGES: NonZeroU8 = NonZeroU8::new(4).expect("it is not zero");
/// Turns of a guest's wait. Its host answers in the first.
const PATIENCE: u32 = 8;

type Channel = RingChannel<HeapRing, fn()>;

/// The host's end.
pub(crate) struct HypervHost {
    end: Mutex<(Host, Channel)>,
    guest: Mutex<Option<Channel>>,
    functions: Vec<(RequesterId, Arc<FunctionInterrupts>)>,
}

/// Each end looks by itself.
fn nobody() {}

impl HypervHost {
    /// Offers the PCI functions of a board.
    pub(crate) fn new(injection: Injection) -> Result<Arc<Self>, String> {
        let failed = |error: &dyn ToString| error.to_string();
        let ring = || HeapRing::new(RING_PAGES).map_err(|error| failed(&error));
        let (there, back) = (ring()?, ring()?);
        let end = |out: &HeapRing, inp: &HeapRing| {
            RingChannel::new(out.clone(), inp.clone(), nobody as fn())
                .map_err(|error| failed(&error))
        };
        let config = HostConfig {
            highest: Version::V1_4,
            quota: 64,
            processors: CPUS,
            address: ADDRESS,
            instance: INSTANCE,
        };
        let mut host = Host::new(config, injection).map_err(|error| failed(&error))?;
        let mut functions = Vec::new();
        for endpoint in [Endpoint::PciMsi, Endpoint::PciMultiMsi, Endpoint::PciMsix] {
            let requester = endpoint.requester();
            let description =
                DeviceDescription { slot: Slot::of(requester), ..DeviceDescription::default() };
            let function = HostFunction { description, bars: [0; 6] };
            let interrupts = host.offer(function).map_err(|error| failed(&error))?;
            functions.push((requester, interrupts));
        }
        let (guest, host_end) = (end(&there, &back)?, end(&back, &there)?);
        let (end, guest) = (Mutex::new((host, host_end)), Mutex::new(Some(guest)));
        Ok(Arc::new(Self { end, guest, functions }))
    }

    /// The guest's end, over `vectors`. Once.
    pub(crate) fn open(
        self: &Arc<Self>,
        platform: &Arc<MachinePlatform>,
        vectors: Vectors,
    ) -> Result<Arc<Bus>, String> {
        let channel = lock(&self.guest).take().ok_or("the bus is open already")?;
        let kernel = GuestKernel { platform: Arc::clone(platform), host: Arc::clone(self) };
        let config = BusConfig { window: WINDOW, number: 0, vectors: 256 };
        let bus = Bus::open(config, Box::new(channel), vectors, Arc::new(kernel));
        bus.map(Arc::new).map_err(|error| error.to_string())
    }

    /// Messages that the guest did not give back.
    pub(crate) fn kept(&self) -> Option<String> {
        let (host, _) = &*lock(&self.end);
        let slots = self.functions.iter().map(|(requester, _)| Slot::of(*requester));
        let kept: u32 = slots.map(|slot| host.vectors(slot)).sum();
        (kept != 0).then(|| format!("{kept} of the host's messages"))
    }

    fn serve(&self) {
        let (host, channel) = &mut *lock(&self.end);
        // A guest whose channel fails notices by its waits.
        let _ = host.serve(channel);
    }
}

/// Functions send what they store; other devices are on no virtual bus.
impl SignalMsi<RequesterId> for HypervHost {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        let function = self.functions.iter().find(|(requester, _)| *requester == from);
        function.map_or(Delivery::NoDoorbell, |(_, interrupts)| {
            interrupts.signal_msi(NoIdentity, message)
        })
    }
}

impl hyperv_vpci::guest::Hypercall for HypervHost {
    fn retarget(&self, input: &[u8; RETARGET_LENGTH]) -> u16 {
        lock(&self.end).0.retarget(input)
    }
}

/// The board's kernel. Its waits let the host work.
struct GuestKernel {
    platform: Arc<MachinePlatform>,
    host: Arc<HypervHost>,
}

impl LocalCpu for GuestKernel {
    fn irq_save(&self) -> IrqState {
        LocalCpu::irq_save(&*self.platform)
    }

    fn irq_restore(&self, state: IrqState) {
        LocalCpu::irq_restore(&*self.platform, state);
    }

    fn relax(&self) {
        LocalCpu::relax(&*self.platform);
    }
}

impl TaskContext for GuestKernel {
    fn may_wait(&self) -> bool {
        self.platform.may_wait()
    }
}

impl Kernel for GuestKernel {
    fn wait(&self, turn: u32) -> Wait {
        self.host.serve();
        if turn < PATIENCE { Wait::Again } else { Wait::GiveUp }
    }

    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok().filter(|index| *index < CPUS)
    }
}
