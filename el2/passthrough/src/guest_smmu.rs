//! An SMMU that the guest owns. Its devices' messages reach us only through the guest's own
//! translations.
//!
//! The guest has the SMMU's registers and interrupts, and we do not use the SMMU. Where the guest's
//! redistributors are depends on their number. In both cases, accesses by vCPUs trap as usual, and
//! a message arrives only at a doorbell to which the SMMU has translated the address that the guest
//! wrote.
//!
//! - A single redistributor is at the address of the machine's `GITS_TRANSLATER`, which has the
//!   same offset in its frame as `GICR_SETLPIR`. A device stores the address that the guest wrote,
//!   and the data of the physical event. When that event arrives, we signal the data that the guest
//!   wrote.
//! - Several redistributors are at addresses of our own memory, because the machine has no other
//!   doorbell. A device stores the page that the guest wrote, and the offset of a word that belongs
//!   to the vector; all vectors of a PCI MSI have one word, so of two that are sent between two
//!   searches, one is lost. So messages wait in memory, at the redistributor to whose page the SMMU
//!   has translated the address, until the first CPU's timer finds them ([`Doorbells::take`]).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use el2_vm::{guests, irqchip, poll_after};
use gic_arch::{gicr, gits};
use gic_bringup::MsiController;
use gic_firmware::PciHost;
use image_rt::cpu;
use irq_domain::WiredRequest;
use irq_routing::{Access, TranslateMsi};
use msi_types::{DeviceId, HwIrq, Line, SetLine, Trigger};
use vgic::RedistributorRegion;

/// Size of a frame of the ITS, and of a redistributor.
const FRAME: u64 = 0x1_0000;
/// Size of a page, to which an SMMU translates addresses.
pub(crate) const PAGE: u64 = 0x1000;
/// Number of pages from a redistributor to the next one.
const STRIDE: usize = (gicr::STRIDE_V3 / PAGE) as usize;
/// Number of words in a page.
pub(crate) const WORDS: usize = PAGE as usize / size_of::<u32>();
/// Number of searches for messages in a millisecond.
const SEARCHES: u64 = 4;

/// A page of memory that receives messages.
#[repr(C, align(4096))]
#[derive(Debug)]
struct Page([AtomicU32; WORDS]);

/// Pages at the addresses of several redistributors.
#[derive(Debug)]
pub(crate) struct Doorbells {
    pages: Box<[Page]>,
    /// Index of the first redistributor's page, which is aligned like a frame.
    first: usize,
    count: usize,
}

impl Doorbells {
    fn new(count: usize) -> Self {
        let alignment = (FRAME / PAGE) as usize;
        let page = |_| Page([const { AtomicU32::new(NOTHING) }; WORDS]);
        let pages: Box<[Page]> = (0..count * STRIDE + alignment).map(page).collect();
        let before = pages.as_ptr().addr() / PAGE as usize % alignment;
        Self { pages, first: (alignment - before) % alignment, count }
    }

    fn base(&self) -> u64 {
        (&raw const self.pages[self.first]).addr() as u64
    }

    /// Returns the address that a vector's device must store, where the guest wrote `address`.
    pub(crate) const fn physical(address: u64, word: usize) -> u64 {
        address & !(PAGE - 1) | (word * size_of::<u32>()) as u64
    }

    /// Removes a vector's messages. Returns the address of each one's page, with its data.
    pub(crate) fn take(&self, word: usize) -> impl Iterator<Item = (u64, u32)> {
        (0..self.count).filter_map(move |redistributor| {
            let page = self.pages.get(self.first + redistributor * STRIDE)?;
            let data = page.0.get(word)?.swap(NOTHING, SeqCst);
            let address = self.base() + redistributor as u64 * gicr::STRIDE_V3;
            (data != NOTHING).then_some((address, data))
        })
    }
}

/// A word without a message. The data of an event at the machine's ITS is smaller.
const NOTHING: u32 = u32::MAX;

/// The SMMU in front of a PCI host.
#[derive(Debug)]
pub struct GuestSmmu {
    /// Addresses of its registers.
    pub registers: Range<u64>,
    /// INTIDs of the event queue, the PRI queue, `CMD_SYNC` and global errors (binding
    /// `arm,smmu-v3`).
    pub interrupts: Vec<u32>,
    /// Address of the frame with `GITS_TRANSLATER`.
    frame: u64,
    /// The redistributors' pages, if there are several.
    pub(crate) doorbells: Option<Doorbells>,
}

impl GuestSmmu {
    /// Finds the SMMU in front of a host, for a guest with this number of vCPUs.
    ///
    /// # Panics
    /// Panics if the machine lacks an SMMU, or has no ITS.
    pub fn find(host: &PciHost, vcpus: u16) -> Self {
        let description = irqchip::get().description();
        let index = host.iommu.map.first().and_then(|entry| entry.value.iommu);
        let iommu = index.and_then(|index| description.iommu(index));
        let iommu = iommu.expect("no SMMU is in front of PCI: start QEMU with iommu=smmuv3");
        let region = iommu.registers.as_ref().expect("the SMMU has registers").value;
        let user = description.wired.iter().find(|user| user.id == iommu.id);
        let interrupts = user.into_iter().flat_map(|user| &user.interrupts);
        let frame = irqchip::get().controllers().find_map(|(_, it)| match it {
            MsiController::Its(its) => Some(its.doorbell() & !(FRAME - 1)),
            _ => None,
        });
        Self {
            registers: region.base()..region.base() + region.size(),
            interrupts: interrupts.map(|interrupt| interrupt.value.get()).collect(),
            frame: frame.expect("the machine has an ITS"),
            doorbells: (vcpus > 1).then(|| Doorbells::new(vcpus.into())),
        }
    }

    /// Passes the SMMU's interrupts on to the guest, which must be the only one, and starts to
    /// search for messages.
    ///
    /// # Panics
    /// Panics if an interrupt is already in use.
    pub fn serve(&self) {
        for &intid in &self.interrupts {
            let request = WiredRequest::new(HwIrq::new(intid), Trigger::Edge, "guest's smmu");
            let handle = irqchip::get().interrupts().request_wired(request, move |_| {
                if let Some(guest) = guests().first() {
                    guest.vgic().pulse(Line::Spi(intid));
                }
            });
            // Leak the handle, because the guest keeps the SMMU.
            core::mem::forget(handle.expect("the SMMU's interrupt could not be requested"));
        }
        self.start();
    }

    /// Requests the next search, if messages wait in memory.
    pub(crate) fn start(&self) {
        if self.doorbells.is_some() {
            poll_after(cpu::ticks_per_millisecond() / SEARCHES);
        }
    }

    /// Returns the place of the guest's redistributors.
    pub fn redistributors(&self) -> RedistributorRegion {
        const {
            assert!(gits::TRANSLATER.offset() as u64 % FRAME == gicr::SETLPIR.offset() as u64);
        }
        match &self.doorbells {
            Some(doorbells) => RedistributorRegion::new(doorbells.base(), doorbells.count as u32),
            None => RedistributorRegion::new(self.frame, 1),
        }
    }
}

/// The SMMU has translated a message before its event arrives. No event arrives if messages wait in
/// memory.
impl TranslateMsi for GuestSmmu {
    fn translate(&self, _: DeviceId, iova: u64, _: Access) -> Option<u64> {
        self.doorbells.is_none().then_some(self.frame | iova & (PAGE - 1))
    }
}
