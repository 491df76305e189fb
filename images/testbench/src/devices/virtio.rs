//! virtio over PCI, using the `virtio-drivers` crate. The crate doesn't assign vectors, so we do it
//! here.

mod transport;

use self::transport::Platform;
use crate::driver::Driver;
use crate::report::{Outcome, Verdict, check};
use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;
use image_rt::cpu;
use image_rt::pci::{Bar, Function};
use irq_domain::pci::capabilities;
use spin::Mutex;
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
const QUEUE_SLOT: u16 = 1;

/// Memory services for virtio-drivers.
pub(crate) struct Memory;

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
struct One(Function);

impl ConfigurationAccess for One {
    fn read_word(&self, _: DeviceFunction, offset: u8) -> u32 {
        self.0.config.read32(offset.into())
    }

    fn write_word(&mut self, _: DeviceFunction, offset: u8, data: u32) {
        self.0.config.write32(offset.into(), data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn transport(function: &Function) -> Platform {
    let mut root = PciRoot::new(One(function.clone()));
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
        let config = &function.config;
        let found = capabilities(&**config).find(|capability| {
            capability.id == VENDOR_CAPABILITY
                && config.read8(capability.offset + 3) == COMMON_CONFIG
        });
        let at = found.expect("the virtio device has no common configuration").offset;
        Self {
            bar: function.bar(config.read8(at + 4).into()),
            offset: config.read32(at + 8).into(),
        }
    }

    /// Assigns slot 0 to configuration changes, and a separate slot to queue 0.
    fn assign(self) -> Outcome {
        self.bar.write16(self.offset + CONFIG_VECTOR, 0);
        self.bar.write16(self.offset + QUEUE_SELECT, 0);
        self.bar.write16(self.offset + QUEUE_VECTOR, QUEUE_SLOT);
        let kept = self.bar.read16(self.offset + QUEUE_VECTOR);
        check!(kept == QUEUE_SLOT, "the device gave queue 0 vector {kept:#x}");
        Ok(())
    }
}

/// A virtio entropy source.
pub(crate) struct Rng {
    common: Common,
    driver: Mutex<VirtIORng<Memory, Platform>>,
}

impl Rng {
    pub(crate) fn new(function: &Function) -> Self {
        let driver = VirtIORng::new(transport(function)).expect("the device could not be started");
        Self { common: Common::of(function), driver: Mutex::new(driver) }
    }
}

impl Driver for Rng {
    fn vectors(&self) -> u16 {
        2
    }

    fn start(&self) -> Outcome {
        self.common.assign()
    }

    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        if slot != QUEUE_SLOT {
            return Ok(false);
        }
        let mut entropy = [0; 16];
        let length = self.driver.lock().request_entropy(&mut entropy).map_err(unexpected)?;
        check!(length > 0 && entropy != [0; 16], "no entropy");
        Ok(true)
    }
}

/// A virtio disk.
pub(crate) struct Blk {
    common: Common,
    driver: Mutex<VirtIOBlk<Memory, Platform>>,
}

impl Blk {
    pub(crate) fn new(function: &Function) -> Self {
        let driver = VirtIOBlk::new(transport(function)).expect("the device could not be started");
        Self { common: Common::of(function), driver: Mutex::new(driver) }
    }
}

impl Driver for Blk {
    fn vectors(&self) -> u16 {
        2
    }

    fn start(&self) -> Outcome {
        self.common.assign()
    }

    /// Reads a sector that contains its own number.
    fn fire(&self, slot: u16) -> Result<bool, Verdict> {
        const SECTOR: usize = 3;
        if slot != QUEUE_SLOT {
            return Ok(false);
        }
        let mut driver = self.driver.lock();
        let (mut request, mut response) = (BlkReq::default(), BlkResp::default());
        let mut sector = [0; SECTOR_SIZE];
        // SAFETY: the three buffers are not accessed until the request is complete.
        let token =
            unsafe { driver.read_blocks_nb(SECTOR, &mut request, &mut sector, &mut response) };
        let token = token.map_err(unexpected)?;
        let done = cpu::wait_until(2000, || driver.peek_used() == Some(token));
        assert!(
            done,
            "the disk did not complete the request, and still owns buffers in this stack frame"
        );
        // SAFETY: these are the request's three buffers, with the token of the request.
        unsafe { driver.complete_read_blocks(token, &request, &mut sector, &mut response) }
            .map_err(unexpected)?;
        let number = u64::from_le_bytes(sector[..8].try_into()?);
        check!(number == SECTOR as u64, "sector {SECTOR} contains number {number}");
        Ok(true)
    }
}

/// A virtio network interface. Only its vectors are used.
pub(crate) struct Net;

impl Net {
    pub(crate) fn new(_: &Function) -> Self {
        Self
    }
}

impl Driver for Net {
    fn vectors(&self) -> u16 {
        3
    }

    fn fires(&self) -> bool {
        false
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        Ok(false)
    }
}

fn unexpected(error: virtio_drivers::Error) -> Verdict {
    Verdict::Failed(alloc::format!("virtio: {error}"))
}
