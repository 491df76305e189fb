//! A virtio entropy source over PCI, on the transport and the queue of the `virtio-drivers` crate.
//! The crate neither assigns vectors nor accepts `VIRTIO_F_ACCESS_PLATFORM`, so we do both here.

use crate::pci::{self, Function, MappedRegion};
use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::sync::Arc;
use core::alloc::Layout;
use core::ptr::NonNull;
use irq_domain::pci::{ConfigSpace, EcamWindow, capabilities};
use spin::Mutex;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr};

const VENDOR_CAPABILITY: u8 = 0x09;
const COMMON_CONFIG: u8 = 1;
/// Offsets in the common configuration.
const CONFIG_VECTOR: u64 = 0x10;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_VECTOR: u64 = 0x1a;
/// Features `VIRTIO_F_VERSION_1` and `VIRTIO_F_ACCESS_PLATFORM`. The device can use the addresses
/// of our memory directly, so we can accept the latter behind an SMMU.
const FEATURES: u64 = 1 << 32 | 1 << 33;
/// Slot of the queue. Slot 0 is for configuration changes.
pub const QUEUE_SLOT: u16 = 1;
/// Number of a device's slots.
pub const SLOTS: u16 = QUEUE_SLOT + 1;

/// Memory services for virtio-drivers.
struct Memory;

// SAFETY: memory is identity-mapped and coherent; pages come from the heap, and are zeroed, aligned
// and owned.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(pages_layout(pages)) };
        let memory = NonNull::new(memory).expect("not enough memory for the queue");
        (memory.as_ptr().expose_provenance() as u64, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller frees memory that `dma_alloc` returned.
        unsafe { dealloc(memory.as_ptr(), pages_layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(address as usize))
            .expect("a BAR is not at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

fn pages_layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).expect("the size of a few pages is valid")
}

/// Configuration space of a single function. virtio-drivers expects a whole bus, so this pretends
/// to be one.
struct One(Arc<dyn ConfigSpace>);

impl ConfigurationAccess for One {
    fn read_word(&self, _: DeviceFunction, offset: u8) -> u32 {
        self.0.read32(offset.into())
    }

    fn write_word(&mut self, _: DeviceFunction, offset: u8, data: u32) {
        self.0.write32(offset.into(), data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A virtio entropy source.
pub struct Rng {
    /// The common configuration structure, with its offset.
    common: (MappedRegion, u64),
    driver: Mutex<(PciTransport, VirtQueue<Memory, 8>)>,
}

impl Rng {
    /// Takes over the device, which must be enabled.
    pub fn new(function: &Function) -> Self {
        let mut root = PciRoot::new(One(function.config().clone()));
        let address = DeviceFunction { bus: 0, device: 0, function: 0 };
        let mut transport = PciTransport::new::<Memory, _>(&mut root, address)
            .expect("the function is not a virtio device of version 1");
        let found = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(DeviceStatus::empty());
        transport.set_status(found);
        let features = transport.read_device_features() & FEATURES;
        transport.write_driver_features(features);
        transport.set_status(found | DeviceStatus::FEATURES_OK);
        let queue = VirtQueue::new(&mut transport, 0, false, false);
        let queue = queue.expect("the device's queue could not be created");
        transport.finish_init();
        Self { common: common(function), driver: Mutex::new((transport, queue)) }
    }

    /// Assigns slot 0 to configuration changes, and [`QUEUE_SLOT`] to the queue. The slots must
    /// have handlers.
    pub fn assign(&self) {
        let (registers, at) = &self.common;
        registers.write16(at + CONFIG_VECTOR, 0);
        registers.write16(at + QUEUE_SELECT, 0);
        registers.write16(at + QUEUE_VECTOR, QUEUE_SLOT);
        let kept = registers.read16(at + QUEUE_VECTOR);
        assert_eq!(kept, QUEUE_SLOT, "the device gave queue 0 another vector");
    }

    /// Reads entropy, and waits for it without the interrupt.
    pub fn fetch(&self) -> Result<[u8; 16], Error> {
        let mut entropy = [0; 16];
        let (transport, queue) = &mut *self.driver.lock();
        queue.add_notify_wait_pop(&[], &mut [&mut entropy], transport)?;
        Ok(entropy)
    }
}

/// Finds the common configuration structure, through which vectors are assigned.
fn common(function: &Function) -> (MappedRegion, u64) {
    let config = function.config();
    let is_common = |at: u16| config.read8(at + 3) == COMMON_CONFIG;
    let found =
        capabilities(&**config).find(|it| it.id == VENDOR_CAPABILITY && is_common(it.offset));
    let at = found.expect("the virtio device has no common configuration").offset;
    (pci::bar(function, config.read8(at + 4)), config.read32(at + 8).into())
}
