//! Code shared by the kernels whose size we measure: a GIC, one kind of MSI controller, and a
//! device with four vectors. The kernels are linked but never run: `virt` has neither direct LPIs
//! nor message-based SPIs.

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::error::Error;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicU32, Ordering};
use gic_arch::Affinity;
use gic_driver::{CpuInterface, GicConfig, GicCpuInterface, RedistributorRegion};
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, cpu, exceptions, power, start};
use irq_domain::{Config, Interrupts, MsiDevice, MsiDeviceConfig};
use msi_types::{
    Cpu, Fit, HwIrq, Masking, MessageStore, MsiMessage, MsiParent, RequesterId, Rewrite, Shape,
    StoreError, StoreUpdate,
};
use spin::{Mutex, Once};

/// GIC driver of these kernels.
pub type Gic = gic_driver::Gic<Kernel>;

/// Function that brings up an MSI controller.
pub type BringUp = fn(&Arc<Gic>) -> Result<Arc<dyn MsiParent>, Box<dyn Error>>;

/// Function that reads a devicetree.
pub type Read = fn(&[u8]) -> Result<(), Box<dyn Error>>;

/// A device with its vectors, and the handle of its requested interrupt.
pub type Served = (MsiDevice, irq_domain::IrqHandle);

/// The only CPU of these kernels.
pub const THIS: Cpu = Cpu::new(0);
/// Requester ID of the device.
pub const REQUESTER: RequesterId = RequesterId::pci(1, 0, 0);
const VECTORS: u16 = 4;

static INTERRUPTS: Once<Interrupts> = Once::new();
static MESSAGES: AtomicU32 = AtomicU32::new(0);

/// Brings up the GIC and `controller`, and requests a device's vectors.
pub fn run(boot: Boot, controller: BringUp) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `start` is called only once.
    let gic = unsafe { start::start(boot) }.gic.expect("the devicetree describes no GIC");
    exceptions::set_irq_handler(|| {
        <CpuInterface<_>>::new(registers()).handle_pending(|intid| {
            let interrupts = INTERRUPTS.get().expect("stored before unmasking");
            let _ = interrupts.dispatch(THIS, HwIrq::new(intid.get()));
        });
    });
    finish(serve(gic, controller).expect("the setup failed"))
}

/// Waits for the device's message and turns the machine off.
pub fn finish(served: Served) -> ! {
    cpu::irq_enable();
    assert!(cpu::wait_until(5000, || MESSAGES.load(Ordering::Relaxed) > 0), "no message");
    drop(served);
    power::system_off()
}

/// Starts the runtime, runs `read` on the devicetree and turns the machine off.
pub fn read_devicetree(boot: Boot, read: Read) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and nothing uses RAM behind the
    // image yet.
    let started = unsafe { start::start(boot) };
    read(started.devicetree).expect("the devicetree could not be read");
    power::system_off()
}

fn serve(
    [gicd, redistributors]: [gic_driver::PhysicalRegion; 2],
    controller: BringUp,
) -> Result<Served, Box<dyn Error>> {
    let region = RedistributorRegion::new(redistributors);
    let this = Affinity::from_mpidr(cpu::mpidr());
    let config = GicConfig::new(gicd.base, vec![region], vec![this]);
    let gic = Arc::new(Gic::new(Arc::new(Kernel), config)?);
    gic.cpu_on(THIS, &registers())?;
    let parent = controller(&gic)?;
    let config = Config::new(NonZeroU16::MIN, Arc::new(Kernel)).with_wired(gic);
    let interrupts = INTERRUPTS.call_once(|| Interrupts::new(config).expect("not enough memory"));
    interrupts.cpu_online(THIS, |_| ())?;
    take_vectors(interrupts, parent)
}

/// Attaches the device, allocates its vectors and requests the first vector.
pub fn take_vectors(
    interrupts: &Interrupts,
    parent: Arc<dyn MsiParent>,
) -> Result<Served, Box<dyn Error>> {
    let store = Arc::new(Store::default());
    let config = MsiDeviceConfig::new("device", REQUESTER, parent, store);
    let device = MsiDevice::attach(interrupts, config)?;
    let vectors = device.allocate(Shape::Independent, 1..=VECTORS)?;
    let count = |_: &irq_domain::IrqContext<'_>| _ = MESSAGES.fetch_add(1, Ordering::Relaxed);
    let handle = device.request(vectors[0].slot, "first", count)?;
    Ok((device, handle))
}

/// A non-PCI device's message registers.
#[derive(Default)]
struct Store(Mutex<[MsiMessage; VECTORS as usize]>);

impl StoreUpdate for &Store {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.0.lock()[usize::from(slot % VECTORS)] = message;
    }

    fn mask(&mut self, _: u16) {}
    fn unmask(&mut self, _: u16) {}
}

impl MessageStore for Store {
    fn slots(&self) -> u16 {
        VECTORS
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Masked)
    }

    fn masking(&self) -> Masking {
        Masking::None
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut &*self);
        Ok(())
    }

    fn set_enabled(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}
