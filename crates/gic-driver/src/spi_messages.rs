//! SPIs signaled by messages: the code shared by MBI, GICv2m and MIP. An SPI is allocated to one
//! owner at a time and targets one CPU.
//!
//! A message encodes an SPI, and the root controller routes, masks and latches it like any other
//! interrupt. Therefore, the message does not encode a CPU and doesn't change with the affinity,
//! each vector in a group can be moved separately, and a vector's pending state can be read. The
//! code accesses the underlying GIC only through [`WiredParent`].

use crate::block_allocator::BlockAllocator;
use crate::{Alignment, Mmio, PhysicalRegion, Platform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU16;
use doorbell_fallible::lock::IrqLock;
use doorbell_fallible::try_collect;
use gic_arch::IntId;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Attachment, BlockRequest, Capabilities, Capability, Cpu, DoorbellPage, Granule, HwIrq,
    HwIrqBlock, Initially, Isolation, LevelMessages, Move, MoveOutcome, MsiError, MsiMessage,
    MsiParent, NotIsolated, Pending, RequesterId, Shape, Tier, Trigger, WiredParent,
};

/// Consecutive SPIs or extended SPIs that a doorbell can make pending.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpiRange {
    /// INTID of the first SPI.
    pub first: HwIrq,
    /// Number of SPIs.
    pub count: NonZeroU16,
}

impl SpiRange {
    /// Returns the INTID after the last SPI, or `None` on overflow.
    pub fn end(self) -> Option<u32> {
        self.first.get().checked_add(self.count.get().into())
    }

    /// Returns `true` if the ranges share an INTID.
    pub fn overlaps(self, other: Self) -> bool {
        let end = |range: Self| u64::from(range.first.get()) + u64::from(range.count.get());
        u64::from(self.first.get()) < end(other) && u64::from(other.first.get()) < end(self)
    }

    /// Returns `true` if the range contains only SPIs, or only extended SPIs.
    pub(crate) fn has_only_spis(self) -> bool {
        let first = IntId::from(self.first);
        let last = self.end().map(|end| IntId::new(end - 1));
        first.is_shared() && last.is_some_and(|last| last.class() == first.class())
    }
}

/// Error in firmware's description of SPIs that messages signal, or in setting them up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpiError {
    /// `GICD_TYPER.MBIS` is 0: firmware describes message registers that the hardware lacks.
    #[error(
        "distributor@{distributor:x}: firmware describes message-based SPIs, but the hardware does \
         not support them (GICD_TYPER.MBIS is 0)"
    )]
    NotSupported {
        /// The distributor's physical address.
        distributor: u64,
    },
    /// Firmware describes no range of SPIs, or no frame.
    #[error("firmware states no {0}")]
    Nothing(&'static str),
    /// The platform can't map the address given by firmware.
    #[error("{kind}@{base:x}: the platform cannot map it; check the firmware description")]
    NotMapped {
        /// Kind of the registers.
        kind: &'static str,
        /// Their physical address.
        base: u64,
    },
    /// Firmware does not describe the SPIs of a v2m frame whose registers can't be read on this
    /// machine.
    #[error("v2m frame@{0:x}: its registers cannot be read, and firmware does not state its SPIs")]
    SpisUnknown(u64),
    /// The range given by a v2m frame's register or by firmware is outside the usable SPIs.
    #[error("v2m frame@{address:x}: {count} SPIs from {first} on do not all lie in 32 to 1018")]
    BadRange {
        /// The frame's physical address.
        address: u64,
        /// The first INTID.
        first: u32,
        /// Number of SPIs.
        count: u32,
    },
    /// Firmware describes a range with INTIDs other than SPIs.
    #[error("firmware states {count} INTIDs from {first} on ({property}), but not all are SPIs")]
    NotSpis {
        /// The devicetree property of the range.
        property: &'static str,
        /// The first INTID.
        first: HwIrq,
        /// Number of INTIDs.
        count: u16,
    },
    /// Firmware describes overlapping ranges.
    #[error("firmware states a range from {0} on (mbi-ranges) that overlaps another one")]
    Overlap(HwIrq),
    /// An SPI does not exist, belongs to Secure software, or has another owner (possibly another
    /// frame). The text says where firmware states the SPI.
    #[error("an SPI {0} cannot be used: {1}")]
    Claim(&'static str, MsiError),
}

/// The address and data by which a device signals the SPIs of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doorbell {
    /// Address of the frame, by which texts name the doorbell.
    pub(crate) at: u64,
    /// The address that devices write to, or the lowest of these addresses.
    pub(crate) address: u64,
    pub(crate) encoding: Encoding,
    /// Address of the register that deasserts an SPI, if there is one.
    pub(crate) deassert: Option<u64>,
    /// Why a device can make other devices' interrupts pending.
    pub(crate) not_isolated: NotIsolated,
    /// Registers that share the doorbell's page, with pages of 4 KiB and with larger ones.
    pub(crate) page: [DoorbellPage; 2],
}

/// Encoding of an SPI in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Encoding {
    /// The data is the INTID minus this.
    DataAbove(u32),
    /// Bits 3 and up of the address are the INTID minus 32. The data is ignored.
    Address,
}

impl Doorbell {
    fn message(&self, spi: HwIrq) -> MsiMessage {
        match self.encoding {
            Encoding::DataAbove(base) => {
                MsiMessage { address: self.address, data: spi.get().wrapping_sub(base) }
            }
            Encoding::Address => {
                let index = spi.get().wrapping_sub(IntId::SPI_BASE);
                MsiMessage { address: self.address | u64::from(index) << 3, data: 0 }
            }
        }
    }

    /// Returns `true` if vectors of an aligned group of this size can share a message (MultiMSI),
    /// whose low data bits the device replaces: the data of the group's SPIs must be aligned.
    fn has_groups(&self, count: u16) -> bool {
        let align = u32::from(count).next_power_of_two();
        matches!(self.encoding, Encoding::DataAbove(base) if base.is_multiple_of(align))
    }
}

/// SPIs behind doorbells: [`Mbi`](crate::Mbi), [`V2m`](crate::V2m) and [`Mip`], which differ in
/// `K`. Shared in an [`Arc`]; locking is internal. The value owns the SPIs until it is dropped.
pub struct SpiMessages<P: Platform, K> {
    platform: Arc<P>,
    wired: Arc<dyn WiredParent>,
    /// Name of the kind, as in firmware (`"mbi"`).
    kind: &'static str,
    ranges: Vec<SpiRange>,
    doorbells: Vec<Doorbell>,
    allocators: IrqLock<Vec<Allocator>>,
    /// The registers of a MIP, which loses their contents in a suspension.
    pub(crate) registers: Option<P::Mmio>,
    marker: PhantomData<fn() -> K>,
}

/// A range's allocated SPIs and the target CPUs of all.
struct Allocator {
    spis: BlockAllocator,
    targets: Vec<Cpu>,
}

impl<P: Platform, K> SpiMessages<P, K> {
    /// Claims every range and its doorbell from `wired`.
    ///
    /// Context: task; may sleep.
    pub(crate) fn claim(
        kind: &'static str,
        platform: Arc<P>,
        wired: Arc<dyn WiredParent>,
        ranges: impl IntoIterator<Item = (SpiRange, Doorbell)>,
    ) -> Result<Self, MsiError> {
        let mut new = Self {
            platform,
            wired,
            kind,
            ranges: Vec::new(),
            doorbells: Vec::new(),
            allocators: IrqLock::new(Vec::new()),
            registers: None,
            marker: PhantomData,
        };
        for (range, doorbell) in ranges {
            let no_memory = MsiError::NoMemory("a range of SPIs");
            let SpiRange { first, count } = range;
            let spis =
                BlockAllocator::new(first.get(), count.get().into()).map_err(|_| no_memory)?;
            let targets = core::iter::repeat_n(Cpu::default(), count.get().into());
            let targets = try_collect(targets).map_err(|_| no_memory)?;
            new.allocators.get_mut().try_reserve(1).map_err(|_| no_memory)?;
            new.ranges.try_reserve(1).map_err(|_| no_memory)?;
            new.doorbells.try_reserve(1).map_err(|_| no_memory)?;
            // If this fails, dropping `new` releases the ranges claimed so far.
            new.wired.claim(first, count)?;
            new.allocators.get_mut().push(Allocator { spis, targets });
            new.ranges.push(range);
            new.doorbells.push(doorbell);
        }
        Ok(new)
    }

    /// Returns the SPI ranges.
    pub fn ranges(&self) -> &[SpiRange] {
        &self.ranges
    }

    /// Allocates vectors from the first range with enough free SPIs.
    fn allocate_vectors(&self, count: NonZeroU16, shape: Shape) -> Result<HwIrqBlock, MsiError> {
        let no_vectors = MsiError::NoVectors { wanted: count.get() };
        let align = Alignment::of(shape, count.into()).ok_or(no_vectors)?;
        let is_group = count.get() > 1 && shape == Shape::AlignedGroup;
        let fits = |doorbell: &Doorbell| !is_group || doorbell.has_groups(count.get());
        if !self.doorbells.iter().any(fits) {
            return Err(MsiError::NoGroups);
        }
        let first = self.allocators.with(&*self.platform, |allocators| {
            let mut fitting =
                allocators.iter_mut().zip(&self.doorbells).filter(|(_, doorbell)| fits(doorbell));
            fitting.find_map(|(one, _)| one.spis.allocate(count.into(), align).ok())
        });
        Ok(HwIrqBlock::new(HwIrq::new(first.ok_or(no_vectors)?), count))
    }

    /// Calls `act` with an allocated vector's doorbell and target.
    fn with<T>(
        &self,
        hwirq: HwIrq,
        act: impl FnOnce(&Doorbell, &mut Cpu) -> T,
    ) -> Result<T, MsiError> {
        let found = self.allocators.with(&*self.platform, |allocators| {
            let is_owner = |one: &Allocator| one.spis.is_allocated(hwirq.get());
            let number = allocators.iter().position(is_owner)?;
            let index = hwirq.get().checked_sub(self.ranges.get(number)?.first.get())?;
            let target = allocators.get_mut(number)?.targets.get_mut(index as usize)?;
            Some(act(self.doorbells.get(number)?, target))
        });
        found.ok_or(MsiError::UnknownVector(hwirq))
    }

    fn message_of(&self, hwirq: HwIrq) -> Result<MsiMessage, MsiError> {
        self.with(hwirq, |doorbell, _| doorbell.message(hwirq))
    }

    /// Sends a vector to a CPU, and returns its former target.
    fn retarget(&self, hwirq: HwIrq, cpu: Cpu) -> Result<Cpu, MsiError> {
        let from = self.with(hwirq, |_, target| *target)?;
        self.wired.set_target(hwirq, cpu)?;
        self.with(hwirq, |_, target| *target = cpu)?;
        Ok(from)
    }

    fn set_up(&self, block: &HwIrqBlock, request: &BlockRequest) -> Result<(), MsiError> {
        block.hwirqs().try_for_each(|hwirq| request.fit.check(self.message_of(hwirq)?))?;
        for hwirq in block.hwirqs() {
            self.wired.set_trigger(hwirq, Trigger::Edge)?;
            // A message for a previous owner may have arrived late.
            self.wired.set_pending(hwirq, Pending::Clear);
            self.retarget(hwirq, request.cpu)?;
        }
        if request.initially == Initially::Unmasked {
            block.hwirqs().for_each(|hwirq| self.wired.unmask(hwirq));
        }
        Ok(())
    }

    fn tear_down(&self, block: &HwIrqBlock) {
        for hwirq in block.hwirqs() {
            self.wired.mask(hwirq);
            // An asserted level can't be cleared before the trigger has changed, and the change
            // may make an edge pending.
            self.wired.set_pending(hwirq, Pending::Clear);
            let _ = self.wired.set_trigger(hwirq, Trigger::Edge);
            self.wired.set_pending(hwirq, Pending::Clear);
        }
        self.allocators.with(&*self.platform, |allocators| {
            for one in allocators.iter_mut() {
                let _ = one.spis.free(block.first().get(), block.count().into());
            }
        });
    }
}

/// SPIs signaled by messages need no per-device state.
impl<P: Platform, K> MsiParent for SpiMessages<P, K> {
    fn isolation(&self, _of: RequesterId) -> Isolation {
        let reason = self.doorbells.first().map(|doorbell| doorbell.not_isolated);
        Isolation::NotIsolated(reason.unwrap_or(NotIsolated::NoController))
    }

    fn allocate(&self, _: &Attachment, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
        let block = self.allocate_vectors(request.count, request.shape)?;
        match self.set_up(&block, request) {
            Ok(()) => Ok(block),
            Err(error) => {
                self.tear_down(&block);
                Err(error)
            }
        }
    }

    fn free(&self, _device: &Attachment, block: HwIrqBlock) {
        self.tear_down(&block);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.message_of(block.nth(index)?)
    }

    fn compose_level(&self, block: &HwIrqBlock, index: u16) -> Result<LevelMessages, MsiError> {
        let hwirq = block.nth(index)?;
        let (assert, deassert) =
            self.with(hwirq, |doorbell, _| (doorbell.message(hwirq), doorbell.deassert))?;
        let deassert = MsiMessage { address: deassert.ok_or(MsiError::NoLevels)?, ..assert };
        self.wired.set_trigger(hwirq, Trigger::Level)?;
        Ok(LevelMessages { assert, deassert })
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let hwirq = block.nth(index)?;
        let from = self.retarget(hwirq, to)?;
        Ok(Move { first: hwirq, count: NonZeroU16::MIN, message: None, from, to })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if outcome == MoveOutcome::RolledBack {
            self.retarget(moved.first, moved.from)?;
        }
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        if self.message_of(hwirq).is_ok() {
            self.wired.mask(hwirq);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if self.message_of(hwirq).is_ok() {
            self.wired.unmask(hwirq);
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        if self.message_of(hwirq).is_ok() {
            self.wired.set_pending(hwirq, pending);
        }
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.message_of(hwirq).is_ok().then(|| self.wired.is_pending(hwirq))
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        let (all, doorbells) = (Capabilities::ALL, || self.doorbells.iter());
        let has_groups = doorbells().any(|doorbell| doorbell.has_groups(2));
        let provides = if has_groups { all } else { all.without(Capability::Groups) };
        let addresses = doorbells().map(|doorbell| doorbell.at);
        visit(&Tier::of_controller(self.kind, addresses).with_provides(provides));
    }

    fn doorbell_page(&self, granule: Granule) -> DoorbellPage {
        let pages =
            self.doorbells.iter().map(
                |&Doorbell { page: [small, large], .. }| {
                    if granule == Granule::Size4K { small } else { large }
                },
            );
        pages.fold(DoorbellPage::Alone, |worst, page| match (worst, page) {
            (DoorbellPage::HoldsControls(name), _) | (_, DoorbellPage::HoldsControls(name)) => {
                DoorbellPage::HoldsControls(name)
            }
            (DoorbellPage::Unknown, _) | (_, DoorbellPage::Unknown) => DoorbellPage::Unknown,
            _ => DoorbellPage::Alone,
        })
    }

    fn explain(&self, hwirq: HwIrq, _: RequesterId) -> Explanation {
        let Ok(message) = self.message_of(hwirq) else {
            return Explanation::stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        };
        let facts = [Fact::Doorbell(message.address), Fact::MessageIntid(hwirq)];
        self.wired.explain(hwirq).with_facts(&facts.map(Some))
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let kind = self.kind;
        match self.with(hwirq, |doorbell, cpu| (doorbell.at, *cpu)) {
            Ok((at, cpu)) => writeln!(out, "{kind}@{at:x}: SPI {hwirq} at CPU {cpu}"),
            Err(_) => writeln!(out, "{kind}: SPI {hwirq} is not allocated"),
        }
    }
}

impl<P: Platform, K> Drop for SpiMessages<P, K> {
    /// Releases the ranges without vectors. The SPIs of the others stay claimed, because a device
    /// may still send the messages of its vectors, which would reach the next owner.
    fn drop(&mut self) {
        for (range, allocator) in self.ranges.iter().zip(self.allocators.get_mut()) {
            if allocator.spis.available() == allocator.spis.capacity() {
                self.wired.release(range.first, range.count);
            }
        }
    }
}

msi_types::debug_by!(
    [P: Platform, K] SpiMessages<P, K> as "SpiMessages",
    |it| {doorbells: it.doorbells}
);

/// Broadcom's MIP (Raspberry Pi 5), which turns messages into SPIs: a device writes the number of a
/// vector, and the MIP raises the SPI that belongs to it. The [`MsiParent`] of each device that
/// firmware assigns to it.
///
/// No emulator has this controller. The driver follows the devicetree binding `brcm,bcm2712-msix`
/// and the public register names of Linux's `irq-bcm2712-mip.c`.
pub type Mip<P> = SpiMessages<P, MipDoorbell>;

/// Length of the registers in bytes.
const BYTES: u64 = 0xc0;
/// `MIP_INT_CFGL_HOST` and `MIP_INT_CFGH_HOST`: a 1 makes the vector's SPI edge-triggered.
const EDGE: [u32; 2] = [0x20, 0x30];
/// `MIP_INT_MASKL_HOST` and `MIP_INT_MASKH_HOST`: a 1 masks the vector for the Arm CPUs.
const HOST_MASKS: [u32; 2] = [0x40, 0x50];
/// `MIP_INT_MASKL_VPU` and `MIP_INT_MASKH_VPU`: a 1 masks the vector for the video processor.
const VPU_MASKS: [u32; 2] = [0x60, 0x70];

/// A MIP, as firmware describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MipConfig {
    pub(crate) registers: u64,
    pub(crate) spis: SpiRange,
    pub(crate) doorbell: u64,
    pub(crate) first_data: u32,
}

impl MipConfig {
    /// Creates the configuration for a MIP with its registers at the physical address `registers`,
    /// for these SPIs (`msi-ranges`), to which devices write at the PCI address `doorbell`.
    pub const fn new(registers: u64, spis: SpiRange, doorbell: u64) -> Self {
        Self { registers, spis, doorbell, first_data: 0 }
    }

    msi_types::setters! {
        /// Sets the data of the first SPI's message (`brcm,msi-offset`).
        with_first_data: first_data: u32,
    }
}

/// Marks [`Mip`].
#[derive(Debug)]
pub enum MipDoorbell {}

impl<P: Platform> Mip<P> {
    /// Claims the MIP's SPIs from the GIC `wired`, and routes all vectors to the Arm CPUs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`SpiError`]. On error, no SPI is claimed.
    pub fn new(
        platform: Arc<P>,
        wired: Arc<dyn WiredParent>,
        config: &MipConfig,
    ) -> Result<Self, SpiError> {
        let MipConfig { registers, spis, doorbell: address, first_data } = *config;
        let SpiRange { first, count } = spis;
        if !spis.has_only_spis() {
            return Err(SpiError::NotSpis { property: "msi-ranges", first, count: count.get() });
        }
        let region = PhysicalRegion { base: registers, bytes: BYTES };
        let frame =
            platform.map(region).ok_or(SpiError::NotMapped { kind: "mip", base: registers })?;
        let doorbell = Doorbell {
            at: address,
            address,
            encoding: Encoding::DataAbove(first.get().wrapping_sub(first_data)),
            deassert: None,
            not_isolated: NotIsolated::SharedDoorbell("a MIP"),
            page: [DoorbellPage::Unknown; 2],
        };
        let mut new = Self::claim("mip", platform, wired, [(spis, doorbell)])
            .map_err(|error| SpiError::Claim("that firmware states (msi-ranges)", error))?;
        new.registers = Some(frame);
        new.restore();
        Ok(new)
    }

    /// Writes all registers again, whether or not the MIP lost its power.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn restore(&self) {
        if let Some(frame) = &self.registers {
            for (registers, value) in [(EDGE, u32::MAX), (VPU_MASKS, u32::MAX), (HOST_MASKS, 0)] {
                for register in registers {
                    frame.write32(register, value);
                }
            }
        }
    }
}
