//! GIC SPIs for functions on virtual buses.

use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use doorbell_fallible::lock::IrqLock;
use msi_types::{
    BlockRequest, Cpu, HwIrq, HwIrqBlock, Initially, LocalCpu, MsiError, Pending, Shape, Trigger,
    WiredParent,
};

/// Lowest SPI that a domain allocates. Lower SPIs are left to firmware.
pub const FIRST_SPI: u32 = 64;

/// Highest SPI that a domain allocates.
pub const LAST_SPI: u32 = 1019;

/// Allocates SPIs for functions on virtual buses. Firmware doesn't describe these SPIs, so the bus
/// driver creates the domain itself. The domain claims them one block at a time, from the lowest,
/// and skips those that other users (e.g. GICv2m frames and devices) have claimed.
///
/// A domain can't be taken down. A device may send until its host has deleted the messages, so the
/// guest can't know when the last interrupt has arrived.
#[doc(alias = "acpi_irq_create_hierarchy")]
pub struct SpiDomain {
    wired: Arc<dyn WiredParent>,
    cpu: Arc<dyn LocalCpu>,
    /// Each SPI's target CPU, starting at [`FIRST_SPI`]. `None` while the SPI isn't allocated.
    targets: IrqLock<Vec<Option<Cpu>>>,
}

impl SpiDomain {
    /// Creates a domain with no allocated SPIs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the kernel's heap is exhausted.
    pub fn new(
        wired: Arc<dyn WiredParent>,
        cpu: Arc<dyn LocalCpu>,
    ) -> Result<Self, TryReserveError> {
        let count = (LAST_SPI - FIRST_SPI + 1) as usize;
        let mut targets = Vec::new();
        targets.try_reserve_exact(count)?;
        targets.resize(count, None);
        Ok(Self { wired, cpu, targets: IrqLock::new(targets) })
    }

    /// Allocates the lowest free block whose vectors are at most `highest`.
    ///
    /// Context: task; may sleep.
    pub(super) fn allocate(
        &self,
        request: &BlockRequest,
        highest: u32,
    ) -> Result<HwIrqBlock, MsiError> {
        let count = request.count;
        let align = match request.shape {
            Shape::Independent => 1,
            Shape::AlignedGroup if count.is_power_of_two() => u32::from(count.get()),
            Shape::AlignedGroup => return Err(MsiError::NoGroups),
        };
        let last = LAST_SPI.min(highest);
        let mut first = FIRST_SPI;
        while first + u32::from(count.get()) - 1 <= last {
            let block = HwIrqBlock::new(HwIrq::new(first), count);
            match self.wired.claim(block.first(), count) {
                Ok(()) => return self.set_up(block, request),
                Err(MsiError::UnknownVector(taken) | MsiError::InUse(taken)) => {
                    let next = taken.get().max(first) + 1;
                    first = next.next_multiple_of(align);
                }
                Err(error) => return Err(error),
            }
        }
        Err(MsiError::NoVectors { wanted: count.get() })
    }

    fn set_up(&self, block: HwIrqBlock, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
        let routed = spis(&block).try_for_each(|spi| {
            self.wired.set_trigger(spi, Trigger::Edge)?;
            self.wired.set_pending(spi, Pending::Clear);
            self.wired.set_target(spi, request.cpu)
        });
        if let Err(error) = routed {
            self.wired.release(block.first(), block.count());
            return Err(error);
        }
        self.with_targets(&block, |target| *target = Some(request.cpu));
        if request.initially == Initially::Unmasked {
            spis(&block).for_each(|spi| self.wired.unmask(spi));
        }
        Ok(block)
    }

    /// Frees a block. Devices must no longer be able to send these SPIs.
    ///
    /// Context: task; may sleep.
    pub(super) fn free(&self, block: &HwIrqBlock) {
        for spi in spis(block) {
            self.wired.mask(spi);
            self.wired.set_pending(spi, Pending::Clear);
        }
        self.with_targets(block, |target| *target = None);
        self.wired.release(block.first(), block.count());
    }

    /// Changes an SPI's route and returns the previous CPU.
    ///
    /// Context: task; may sleep.
    pub(super) fn retarget(&self, spi: HwIrq, to: Cpu) -> Result<Cpu, MsiError> {
        let unknown = MsiError::UnknownVector(spi);
        let from = self.target(spi).ok_or(unknown)?;
        self.wired.set_target(spi, to)?;
        self.targets.with(&*self.cpu, |targets| {
            if let Some(target) = index(spi).and_then(|index| targets.get_mut(index)) {
                *target = Some(to);
            }
        });
        Ok(from)
    }

    /// Returns the CPU to which an allocated SPI is routed.
    ///
    /// Context: any.
    pub fn target(&self, spi: HwIrq) -> Option<Cpu> {
        let index = index(spi)?;
        self.targets.with(&*self.cpu, |targets| *targets.get(index)?)
    }

    /// Returns the GIC's operations on an SPI in this domain.
    ///
    /// Context: any.
    pub(super) fn wired(&self, spi: HwIrq) -> Option<&dyn WiredParent> {
        self.target(spi).map(|_| &*self.wired)
    }

    fn with_targets(&self, block: &HwIrqBlock, mut change: impl FnMut(&mut Option<Cpu>)) {
        self.targets.with(&*self.cpu, |targets| {
            for index in spis(block).filter_map(index) {
                if let Some(target) = targets.get_mut(index) {
                    change(target);
                }
            }
        });
    }
}

fn index(spi: HwIrq) -> Option<usize> {
    spi.get().checked_sub(FIRST_SPI).map(|index| HwIrq::new(index).index())
}

fn spis(block: &HwIrqBlock) -> impl Iterator<Item = HwIrq> {
    let (first, count): (HwIrq, NonZeroU16) = (block.first(), block.count());
    (0..count.get()).filter_map(move |index| first.checked_add(index.into()))
}

impl fmt::Debug for SpiDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SpiDomain(..)")
    }
}
