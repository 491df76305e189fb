//! The redistributors, `GICR_*` (IHI 0069 §12.10, §12.11): a CPU's private interrupts, its power
//! state and the base registers of its LPI tables. Needs no heap.

mod discovery;
mod invalidation;
mod lpi_tables;
mod residency;

pub use discovery::{
    RedistributorRegion, RedistributorWalk, find_redistributor, walk_redistributors,
};
pub(crate) use invalidation::Invalidation;
pub(crate) use lpi_tables::is_coherent;
pub use lpi_tables::{LpiClearing, LpiTables, NegotiatedTables, PendingContents, TableAccess};
pub(crate) use residency::VpeTables;

use crate::frame::{Fields, Frame};
use crate::saved::{BlockDefaults, PrivateState};
use crate::{Block, GicError, Group, Interrupt, Mmio, MmioExt, Platform, SecurityView, TimedOut};
use gic_arch::gicr::{self, Typer};
use gic_arch::{Affinity, Iidr, IntId, IntIdClass, Priority};
use invalidation::Invalidations;

/// Initial state of a CPU's private interrupts after [`Redistributor::init`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PrivateConfig {
    /// Priority of every interrupt, in the security view's scale.
    pub(crate) priority: Priority,
    /// The security view that [`Distributor::new`](crate::Distributor::new) detected.
    pub(crate) view: SecurityView,
}

impl PrivateConfig {
    /// Creates a configuration that assigns this priority to all interrupts, for this security
    /// view.
    pub const fn new(priority: Priority, view: SecurityView) -> Self {
        Self { priority, view }
    }
}

/// A redistributor. All operations take `&self` and may be called on any CPU.
#[derive(Debug)]
pub struct Redistributor<M> {
    frame: Frame<M>,
    address: u64,
    typer: Typer,
    /// `true` if `GICR_WAKER` may be used.
    waker: bool,
    invalidations: Invalidations,
    /// VLPI_base frame, if present and mapped.
    vlpi_frame: Option<M>,
}

impl<M: Mmio> Redistributor<M> {
    /// Creates the driver for a redistributor. `mmio` maps its RD_base and SGI_base frames (128
    /// KiB) at physical `address`. Only reads registers.
    ///
    /// # Errors
    /// [`GicError::WrongRevision`] if the frame does not belong to a GICv3 or GICv4.
    pub fn new(mmio: M, address: u64) -> Result<Self, GicError> {
        let frame = Frame::probe(mmio, Block::Redistributor(address))?;
        let typer = frame.mmio.read(gicr::TYPER);
        let invalidations = Invalidations::default();
        Ok(Self { frame, address, typer, waker: true, invalidations, vlpi_frame: None })
    }

    /// Makes the driver leave `GICR_WAKER` alone, because firmware woke the redistributor
    /// ([`WakerUnusable`](crate::errata::Erratum::WakerUnusable)).
    pub fn leave_waker(&mut self) {
        self.waker = false;
    }

    /// Wakes the redistributor so that it forwards interrupts to its CPU. Must be called before the
    /// CPU interface is enabled and before any other register of the redistributor is used. No-op
    /// if Secure firmware owns `GICR_WAKER` (it then reads as zero), because firmware has already
    /// woken the redistributor.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `ChildrenAsleep` stays set.
    pub fn wake<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        if !self.waker {
            return Ok(());
        }
        let waker = self.frame.mmio.read(gicr::WAKER);
        self.frame.mmio.write(gicr::WAKER, waker.with_processor_sleep(false));
        self.frame.wait(platform, "ChildrenAsleep = 0", || {
            !self.frame.mmio.read(gicr::WAKER).children_asleep()
        })
    }

    /// Puts the redistributor to sleep, as the last step before its CPU loses power. The CPU
    /// interface must already be disabled. No-op if Secure firmware owns `GICR_WAKER`.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `ChildrenAsleep` stays clear.
    pub fn sleep<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        if !self.waker {
            return Ok(());
        }
        let waker = self.frame.mmio.read(gicr::WAKER);
        self.frame.mmio.write(gicr::WAKER, waker.with_processor_sleep(true));
        if !self.frame.mmio.read(gicr::WAKER).processor_sleep() {
            return Ok(());
        }
        self.frame.wait(platform, "ChildrenAsleep = 1", || {
            self.frame.mmio.read(gicr::WAKER).children_asleep()
        })
    }

    /// Returns `true` if `GICR_WAKER.ProcessorSleep` is 1, so the redistributor does not forward
    /// interrupts to its CPU. Returns `false` if the driver must not access `GICR_WAKER`
    /// ([`leave_waker`](Self::leave_waker)).
    pub(crate) fn is_asleep(&self) -> bool {
        self.waker && self.frame.mmio.read(gicr::WAKER).processor_sleep()
    }

    /// Brings the CPU's private interrupts to a known state: PPIs are disabled, SGIs are enabled,
    /// and all private interrupts are inactive, not pending, of the same priority and in the view's
    /// own group. The redistributor must be awake.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn init<P: Platform>(&self, platform: &P, config: PrivateConfig) -> Result<(), GicError> {
        let (group, group_modifier) = match config.view.own_group() {
            Group::SecureOne => (0, u32::MAX),
            Group::One | Group::Zero => (u32::MAX, 0),
        };
        let defaults = BlockDefaults { priority: config.priority.get(), group, group_modifier };
        for block in self.blocks() {
            self.frame.reset_block(&Fields::PRIVATE, block, defaults);
        }
        self.frame.wait_for_rwp(platform)?;
        for sgi in 0..IntId::SGI_COUNT {
            Interrupt::new(&self.frame, &Fields::PRIVATE, IntId::new(sgi)).enable();
        }
        Ok(())
    }

    /// Restores the state that [`save`](Self::save) read, after the redistributor has lost it. The
    /// redistributor must be awake.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn restore<P: Platform>(&self, platform: &P, saved: &PrivateState) -> Result<(), GicError> {
        for block in self.blocks() {
            self.frame.disable_block(&Fields::PRIVATE, block);
        }
        self.frame.wait_for_rwp(platform)?;
        for (block, saved) in self.blocks().zip(&saved.blocks) {
            self.frame.restore_block(&Fields::PRIVATE, block, saved);
            self.frame.restore_enables(&Fields::PRIVATE, block, saved);
        }
        Ok(())
    }

    /// Reads the state of the CPU's private interrupts. The state of LPIs is not included, because
    /// it is kept in the LPI tables.
    pub fn save(&self) -> PrivateState {
        let mut saved = PrivateState::default();
        for (block, saved) in self.blocks().zip(&mut saved.blocks) {
            *saved = self.frame.save_block(&Fields::PRIVATE, block);
        }
        saved
    }

    /// Returns a handle to one of this redistributor's interrupts.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if `intid` is not an SGI, PPI or extended PPI, or is not
    /// implemented.
    pub fn interrupt(&self, intid: IntId) -> Result<Interrupt<'_, M>, GicError> {
        let implemented = match intid.class() {
            IntIdClass::Sgi | IntIdClass::Ppi => true,
            IntIdClass::ExtendedPpi => {
                intid.get() - IntId::EXTENDED_PPI_BASE < self.typer.extended_ppi_count()
            }
            _ => false,
        };
        if implemented {
            Ok(Interrupt::new(&self.frame, &Fields::PRIVATE, intid))
        } else {
            Err(GicError::NoSuchInterrupt { block: self.frame.block, intid })
        }
    }

    /// Returns `true` if the redistributor has registers that invalidate LPIs, with or without an
    /// ITS (IHI 0069 §12.11: `GICR_TYPER.DirectLPI`, `GICR_CTLR.IR`). If the registers don't exist,
    /// their offsets must not be accessed.
    pub(crate) fn can_invalidate(&self) -> bool {
        self.typer.direct_lpi() || self.frame.mmio.read(gicr::CTLR).ir()
    }

    /// Executes the invalidations in `wanted` and waits until the last one is complete. The
    /// redistributor must be awake, and must [support invalidations](Self::can_invalidate).
    ///
    /// Context: any.
    ///
    /// Fails if the redistributor does not respond in time, or has not since an earlier call.
    pub(crate) fn invalidate<P: Platform>(
        &self,
        platform: &P,
        wanted: impl Iterator<Item = Invalidation>,
    ) -> Result<(), TimedOut> {
        self.invalidations.run(platform, &self.frame.mmio, wanted)
    }

    /// Returns the affinity of the redistributor's CPU.
    pub fn affinity(&self) -> Affinity {
        self.typer.affinity()
    }

    /// Returns the physical address of RD_base.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Returns the processor number, by which ITS commands refer to the redistributor if
    /// `GITS_TYPER.PTA` is 0.
    pub fn processor_number(&self) -> u16 {
        self.typer.processor_number()
    }

    /// Returns `GICR_TYPER`, which describes implemented features.
    pub fn typer(&self) -> Typer {
        self.typer
    }

    /// Returns the implementer and revision, by which [errata](crate::errata) are matched.
    pub fn iidr(&self) -> Iidr {
        self.frame.mmio.read(gicr::IIDR)
    }

    /// Returns the mapped frames.
    pub fn mmio(&self) -> &M {
        &self.frame.mmio
    }

    /// Returns the blocks of SGIs and PPIs, and of the implemented extended PPIs.
    fn blocks(&self) -> impl Iterator<Item = u32> + use<M> {
        0..1 + self.typer.extended_ppi_count() / 32
    }
}
