//! virtio over PCI, using the `virtio-drivers` crate. The crate doesn't assign vectors, so we do it
//! here.

mod transport;

use self::transport::Platform;
use crate::cpu;
use crate::pci::Bar;
use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::sync::Arc;
use core::alloc::Layout;
use core::ptr::NonNull;
use irq_domain::pci::{ConfigSpace, Function, capabilities};
use spin::Mutex;
use virtio_drivers::Error;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

const VENDOR_CAPABILITY: u8 = 0x09;
const COMMON_CONFIG: u8 = 1;
/// Offsets in the common configuration.
const CONFIG_VECTOR: u64 = 0x10;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_VECTOR: u64 = 0x1a;
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

fn transport(function: &Function) -> Platform {
    let mut root = PciRoot::new(One(function.config().clone()));
    let address = DeviceFunction { bus: 0, device: 0, function: 0 };
    Platform(
        PciTransport::new::<Memory, _>(&mut root, address)
            .expect("the function is not a virtio device of version 1"),
    )
}

/// The common configuration structure. Vectors are assigned through this structure.
#[derive(Clone, Copy)]
struct Common {
    bar: Bar,
    offset: u64,
}

impl Common {
    fn of(function: &Function) -> Self {
        let config = function.config();
        let found = capabilities(&**config).find(|capability| {
            capability.id == VENDOR_CAPABILITY
                && config.read8(capability.offset + 3) == COMMON_CONFIG
        });
        let at = found.expect("the virtio device has no common configuration").offset;
        Self {
            bar: function.bar(config.read8(at + 4)).expect("the structure is in a BAR").into(),
            offset: config.read32(at + 8).into(),
        }
    }

    fn assign(self) {
        self.bar.write16(self.offset + CONFIG_VECTOR, 0);
        self.bar.write16(self.offset + QUEUE_SELECT, 0);
        self.bar.write16(self.offset + QUEUE_VECTOR, QUEUE_SLOT);
        let kept = self.bar.read16(self.offset + QUEUE_VECTOR);
        assert_eq!(kept, QUEUE_SLOT, "the device gave queue 0 another vector");
    }
}

/// A virtio entropy source.
pub struct Rng {
    common: Common,
    driver: Mutex<VirtIORng<Memory, Platform>>,
}

impl Rng {
    /// Takes over the device, which must be enabled.
    pub fn new(function: &Function) -> Self {
        let driver = VirtIORng::new(transport(function)).expect("the device could not be started");
        Self { common: Common::of(function), driver: Mutex::new(driver) }
    }

    /// Assigns slot 0 to configuration changes, and [`QUEUE_SLOT`] to the queue. The slots must
    /// have handlers.
    pub fn assign(&self) {
        self.common.assign();
    }

    /// Reads entropy, and waits for it without the interrupt.
    pub fn fetch(&self) -> Result<[u8; 16], Error> {
        let mut entropy = [0; 16];
        self.driver.lock().request_entropy(&mut entropy)?;
        Ok(entropy)
    }
}

/// A virtio disk.
pub struct Blk {
    common: Common,
    driver: Mutex<VirtIOBlk<Memory, Platform>>,
}

impl Blk {
    /// Takes over the device, which must be enabled.
    pub fn new(function: &Function) -> Self {
        let driver = VirtIOBlk::new(transport(function)).expect("the device could not be started");
        Self { common: Common::of(function), driver: Mutex::new(driver) }
    }

    /// Assigns slot 0 to configuration changes, and [`QUEUE_SLOT`] to the queue. The slots must
    /// have handlers.
    pub fn assign(&self) {
        self.common.assign();
    }

    /// Reads a sector, and waits for it without the interrupt. Returns the sector's first word.
    pub fn read(&self, number: usize) -> Result<u64, Error> {
        let mut driver = self.driver.lock();
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        let mut sector = [0; SECTOR_SIZE];
        // SAFETY: the three buffers are not accessed until the request is complete.
        let token =
            unsafe { driver.read_blocks_nb(number, &mut request, &mut sector, &mut response) }?;
        let done = cpu::wait_until(2000, || driver.peek_used() == Some(token));
        assert!(
            done,
            "the disk did not complete the request, and still owns buffers in this stack frame"
        );
        // SAFETY: these are the request's three buffers, with the token of the request.
        unsafe { driver.complete_read_blocks(token, &request, &mut sector, &mut response) }?;
        Ok(sector.first_chunk().map_or(0, |first| u64::from_le_bytes(*first)))
    }
}
