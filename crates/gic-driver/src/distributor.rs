//! The distributor, `GICD_*` (IHI 0069 §12.9): shared interrupts, their state and routes. Without a
//! heap.

mod control;

pub use crate::security::SecurityView;

use crate::errata::{self, Erratum};
use crate::frame::{ChipAliases, Fields, Frame, is_v3_or_later};
use crate::interrupt::Interrupt;
use crate::saved::{BlockDefaults, SharedBlock};
use crate::{Block, GicError, Group, Mmio, MmioExt, PhysicalRegion, Platform};
use gic_arch::gicd::{self, Ctlr, Irouter, Typer};
use gic_arch::{Affinity, Iidr, IntId, IntIdClass, IntIdRange, Priority, Reg, WriteOnly};

/// The target of a shared interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Route {
    /// To one PE.
    To(Affinity),
    /// To any PE that takes part; the hardware chooses (1 of N). Those take part whose CPU
    /// interface enables the group, unless `GICR_CTLR.DPG0`, `DPG1NS` or `DPG1S` excludes them (IHI
    /// 0069 §12.11). This driver leaves those bits as firmware set them.
    AnyParticipating,
}

/// The state into which [`Distributor::init`] brings the shared interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DistributorConfig {
    /// Priority of every interrupt, as this security view has it.
    pub priority: Priority,
    /// The initial target of every interrupt: usually the boot CPU.
    pub route: Affinity,
}

impl DistributorConfig {
    /// All interrupts of this priority, routed to this CPU.
    pub const fn new(priority: Priority, route: Affinity) -> Self {
        Self { priority, route }
    }
}

/// The doorbells of message-based SPIs (IHI 0069 §3.1.2): physical addresses of registers to which
/// a device writes an INTID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MessageRegisters {
    /// Makes an edge-triggered SPI pending, asserts a level-triggered one.
    pub set: u64,
    /// Drops the pending state, or deasserts.
    pub clear: u64,
}

/// State that [`Distributor::save`] keeps beside the caller's blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedDistributor {
    control: Ctlr,
}

/// The distributor. All operations take `&self`; registers that need read-modify-write are behind a
/// lock inside.
///
/// Functions that state no context may be called in any.
#[derive(Debug)]
pub struct Distributor<M> {
    frame: Frame<M>,
    address: u64,
    typer: Typer,
    view: SecurityView,
}

impl<M: Mmio> Distributor<M> {
    /// Maps the frame at physical `address` and takes the distributor as [`new`](Self::new) does.
    ///
    /// # Errors
    /// [`GicError::NotMapped`], and those of [`new`](Self::new).
    pub fn map<P: Platform<Mmio = M>>(platform: &P, address: u64) -> Result<Self, GicError> {
        let frame = PhysicalRegion { base: address, bytes: gicd::FRAME_SIZE };
        let block = Block::Distributor(address);
        let mmio = platform.map(frame).ok_or(GicError::NotMapped(block))?;
        Self::new(platform, mmio, address)
    }

    /// Creates the driver of the distributor whose frame, at physical `address`, is mapped as
    /// `mmio`. Must be called once, by the boot CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// The security view is found out, not assumed. `GICD_TYPER.SecurityExtn` = 0 or `GICD_CTLR.DS`
    /// = 1 means one state. Otherwise only the Secure layout of `GICD_CTLR` has bits 2, 5 and 7:
    /// `EnableGrp1S`, `ARE_NS`, `E1NWF`. The Non-secure one reads them as zero, so one of them set
    /// means Secure. After reset both show all zero. Then the groups are turned off and bits 4 and
    /// 5 written, which both views need set (Non-secure ignores bit 5). If bit 5 stays, the view is
    /// Secure.
    ///
    /// A GICv2's distributor is told apart before anything is accessed that it does not have.
    ///
    /// # Errors
    /// [`GicError::OtherVersion`], [`GicError::WrongRevision`]; [`GicError::TimedOut`] from the
    /// probing writes.
    pub fn new<P: Platform>(platform: &P, mmio: M, address: u64) -> Result<Self, GicError> {
        let block = Block::Distributor(address);
        if !is_v3_or_later(&mmio) {
            return Err(GicError::OtherVersion { block, found: "GICv2" });
        }
        let frame = Frame::probe(mmio, block)?;
        let mut typer = frame.mmio.read(gicd::TYPER);
        let mut errata =
            errata::matching(errata::IdRegister::Distributor, frame.mmio.read(gicd::IIDR), &[]);
        if errata.any(|entry| entry.erratum == Erratum::ExtendedSpisNotThere) {
            typer = typer.with_espi(false).with_nmi(false);
        }
        let view = control::detect(platform, &frame, typer)?;
        Ok(Self { frame, address, typer, view })
    }

    /// Disables the distinction of two security states (`GICD_CTLR.DS`), if Non-secure software
    /// sees the Secure registers ([`SecureRegistersExposed`](Erratum::SecureRegistersExposed)).
    /// Must be called before [`init`](Self::init). Does nothing in another view.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::TimedOut`].
    pub fn disable_security<P: Platform>(&mut self, platform: &P) -> Result<(), GicError> {
        if self.view == SecurityView::Secure {
            let control = self.frame.mmio.read(gicd::CTLR);
            self.write_control(platform, control.with_ds(true))?;
            if self.frame.mmio.read(gicd::CTLR).ds() {
                self.view = SecurityView::Single;
            }
        }
        Ok(())
    }

    /// Reads registers of shared interrupts at these aliases of the frame.
    pub(crate) fn read_at(&mut self, aliases: ChipAliases<M>) {
        self.frame.aliases = Some(aliases);
    }

    /// Brings the distributor and all shared interrupts to a known state. Enables affinity routing.
    /// Makes each interrupt disabled, inactive, not pending, level-triggered, and part of the
    /// view's own group. Then enables forwarding of that group. Must be called once, before the CPU
    /// interfaces are enabled. Interrupts that Secure software owns are untouched.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::NoAffinityRouting`], [`GicError::TimedOut`].
    pub fn init<P: Platform>(
        &self,
        platform: &P,
        config: DistributorConfig,
    ) -> Result<(), GicError> {
        self.enable_affinity_routing(platform)?;
        let (group, group_modifier) = match self.view.own_group() {
            Group::SecureOne => (0, u32::MAX),
            Group::One | Group::Zero => (u32::MAX, 0),
        };
        let defaults = BlockDefaults { priority: config.priority.get(), group, group_modifier };
        for (fields, block) in self.blocks() {
            self.frame.reset_block(fields, block, defaults);
        }
        self.frame.wait_for_rwp(platform)?;
        for register in self.route_registers() {
            self.frame.mmio.write(register, Irouter::to(config.route));
        }
        self.set_forwarding(platform, Forwarding::On)
    }

    /// Reads the state that [`restore`](Self::restore) needs. Callers must prevent concurrent
    /// changes by other software.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::StorageTooSmall`] if `storage` has fewer than
    /// [`saved_blocks`](Self::saved_blocks) blocks.
    pub fn save(&self, storage: &mut [SharedBlock]) -> Result<SavedDistributor, GicError> {
        self.check_storage(storage.len())?;
        for ((fields, block), saved) in self.blocks().zip(storage) {
            saved.interrupts = self.frame.save_block(fields, block);
            for (route, register) in saved.routes.iter_mut().zip(routes_of(fields, block)) {
                *route = register
                    .map_or(0, |(intid, register)| self.frame.reads(intid).read(register).into());
            }
        }
        Ok(SavedDistributor { control: self.frame.mmio.read(gicd::CTLR) })
    }

    /// Restores a distributor that lost its state to the state that [`save`](Self::save) read. Must
    /// be called before the CPU interfaces are enabled again.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::StorageTooSmall`], [`GicError::NoAffinityRouting`], [`GicError::TimedOut`].
    pub fn restore<P: Platform>(
        &self,
        platform: &P,
        saved: &SavedDistributor,
        storage: &[SharedBlock],
    ) -> Result<(), GicError> {
        self.check_storage(storage.len())?;
        // A stop that timed out may still be taking effect.
        self.frame.wait_for_rwp(platform)?;
        self.enable_affinity_routing(platform)?;
        for (fields, block) in self.blocks() {
            self.frame.disable_block(fields, block);
        }
        self.frame.wait_for_rwp(platform)?;
        for ((fields, block), saved) in self.blocks().zip(storage) {
            for (route, register) in saved.routes.iter().zip(routes_of(fields, block)) {
                if let Some((_, register)) = register {
                    self.frame.mmio.write(register, Irouter::from(*route));
                }
            }
            self.frame.restore_block(fields, block, &saved.interrupts);
        }
        for ((fields, block), saved) in self.blocks().zip(storage) {
            self.frame.restore_enables(fields, block, &saved.interrupts);
        }
        self.write_control(platform, saved.control)
    }

    /// An interrupt of this distributor.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if it is no SPI or extended SPI, or not implemented.
    pub fn interrupt(&self, intid: IntId) -> Result<Interrupt<'_, M>, GicError> {
        if !self.typer.implements(intid) {
            return Err(GicError::NoSuchInterrupt { block: self.frame.block, intid });
        }
        let fields = match intid.class() {
            IntIdClass::ExtendedSpi => &Fields::EXTENDED_SPI,
            _ => &Fields::SPI,
        };
        Ok(Interrupt::new(&self.frame, fields, intid))
    }

    /// Routes an interrupt. One that is pending follows; one that a CPU is about to acknowledge is
    /// still delivered there. If the interrupt is enabled, the old route may still be in effect on
    /// return: [`Gic`](crate::Gic) disables it meanwhile.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`], [`GicError::NoOneOfN`].
    pub fn set_route(&self, intid: IntId, route: Route) -> Result<(), GicError> {
        let register = self.route_register(intid)?;
        let value = match route {
            Route::To(affinity) => Irouter::to(affinity),
            Route::AnyParticipating if self.typer.no_1_of_n() => {
                return Err(GicError::NoOneOfN(self.frame.block));
            }
            Route::AnyParticipating => Irouter::new().with_any_participating(true),
        };
        self.frame.mmio.write(register, value);
        Ok(())
    }

    /// The target of an interrupt.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`].
    pub fn route(&self, intid: IntId) -> Result<Route, GicError> {
        let value = self.frame.reads(intid).read(self.route_register(intid)?);
        Ok(if value.any_participating() {
            Route::AnyParticipating
        } else {
            Route::To(value.affinity())
        })
    }

    /// Stops forwarding the view's own group: the last step before a suspend.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::TimedOut`].
    pub fn stop<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        self.set_forwarding(platform, Forwarding::Off)
    }

    /// The implementation's features.
    pub fn typer(&self) -> Typer {
        self.typer
    }

    /// The implementer and revision, for the [`errata`].
    pub fn iidr(&self) -> Iidr {
        self.frame.mmio.read(gicd::IIDR)
    }

    /// The security view that was found.
    pub fn view(&self) -> SecurityView {
        self.view
    }

    /// Physical address of the frame.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The mapped frame.
    pub fn mmio(&self) -> &M {
        &self.frame.mmio
    }

    /// The doorbells of message-based SPIs of this view; `None` if there are none.
    pub fn message_registers(&self) -> Option<MessageRegisters> {
        if !self.typer.mbis() {
            return None;
        }
        let (set, clear) = self.doorbells();
        let at = |register: Reg<u32, _>| self.address + u64::from(register.offset());
        Some(MessageRegisters { set: at(set), clear: at(clear) })
    }

    /// Undoes what messages did to an SPI. A device that is gone cannot deassert the level that it
    /// held, and neither `ICPENDR` nor another trigger does it for it. Nothing if there are no
    /// messages.
    pub fn clear_message(&self, spi: IntId) {
        if self.typer.mbis() {
            self.frame.mmio.write(self.doorbells().1, spi.get());
        }
    }

    fn doorbells(&self) -> (Reg<u32, WriteOnly>, Reg<u32, WriteOnly>) {
        match self.view {
            SecurityView::Secure => (gicd::SETSPI_SR, gicd::CLRSPI_SR),
            SecurityView::Single | SecurityView::NonSecure => (gicd::SETSPI_NSR, gicd::CLRSPI_NSR),
        }
    }

    /// Number of blocks that [`save`](Self::save) fills: at most 63.
    pub fn saved_blocks(&self) -> usize {
        self.blocks().count()
    }

    /// Priority bits of the implementation as this view has them, found by writing the first SPI's
    /// priority, which is restored. `None` if there is no SPI, or Secure software keeps it.
    pub fn priority_bits(&self) -> Option<u32> {
        let first = self.interrupt(IntId::new(IntId::SPI_BASE)).ok()?;
        let old = first.priority();
        first.set_priority(Priority::IDLE);
        let bits = first.priority().get().count_ones();
        first.set_priority(old);
        (bits != 0).then_some(bits)
    }

    /// The blocks of 32 interrupts that are implemented, by their arrays and number in them.
    fn blocks(&self) -> impl Iterator<Item = (&'static Fields, u32)> + use<M> {
        let spis = (1..self.typer.spi_end().div_ceil(32)).map(|block| (&Fields::SPI, block));
        let extended = (self.typer.extended_spi_end() - IntId::EXTENDED_SPI_BASE) / 32;
        spis.chain((0..extended).map(|block| (&Fields::EXTENDED_SPI, block)))
    }

    /// Returns the INTID of the first interrupt of each saved block.
    pub(crate) fn first_intids(&self) -> impl Iterator<Item = u32> + use<M> {
        self.blocks()
            .map(|(fields, block)| fields.group.range().intid_at(32 * block).map_or(0, IntId::get))
    }

    fn route_registers(&self) -> impl Iterator<Item = Reg<Irouter>> + use<M> {
        let routes = self.blocks().flat_map(|(fields, block)| routes_of(fields, block)).flatten();
        routes.map(|(_, register)| register)
    }

    fn route_register(&self, intid: IntId) -> Result<Reg<Irouter>, GicError> {
        gicd::irouter(intid)
            .filter(|_| self.typer.implements(intid))
            .ok_or(GicError::NoSuchInterrupt { block: self.frame.block, intid })
    }

    fn check_storage(&self, given: usize) -> Result<(), GicError> {
        let wanted = self.saved_blocks();
        if given < wanted {
            return Err(GicError::StorageTooSmall { block: self.frame.block, wanted, given });
        }
        Ok(())
    }

    /// Turns on affinity routing for the states that this view sees. Changing it while a group is
    /// enabled is UNPREDICTABLE, so the groups go off before; those of the view's own are always
    /// off afterwards.
    fn enable_affinity_routing<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        let old = self.frame.mmio.read(gicd::CTLR);
        let wanted = control::routing_bits(self.view);
        let missing = old.into_bits() & wanted != wanted;
        let groups = if missing { control::all_groups() } else { control::group_bits(self.view) };
        let quiet = Ctlr::from(old.into_bits() & !groups);
        self.write_control(platform, quiet)?;
        if !missing {
            return Ok(());
        }
        self.write_control(platform, Ctlr::from(quiet.into_bits() | wanted))?;
        if self.frame.mmio.read(gicd::CTLR).into_bits() & wanted != wanted {
            return Err(GicError::NoAffinityRouting(self.frame.block));
        }
        Ok(())
    }

    fn set_forwarding<P: Platform>(
        &self,
        platform: &P,
        forwarding: Forwarding,
    ) -> Result<(), GicError> {
        let old = self.frame.mmio.read(gicd::CTLR).into_bits();
        let bits = control::group_bits(self.view);
        let new = match forwarding {
            Forwarding::On => old | bits,
            Forwarding::Off => old & !bits,
        };
        self.write_control(platform, Ctlr::from(new))
    }

    fn write_control<P: Platform>(&self, platform: &P, value: Ctlr) -> Result<(), GicError> {
        self.frame.mmio.write(gicd::CTLR, value.with_rwp(false));
        self.frame.wait_for_rwp(platform)
    }
}

/// Is the view's own group forwarded?
#[derive(Clone, Copy, Debug)]
enum Forwarding {
    On,
    Off,
}

/// The interrupts of a block with their route registers, `None` where the interrupt does not exist
/// (1020–1023).
fn routes_of(
    fields: &Fields,
    block: u32,
) -> impl Iterator<Item = Option<(IntId, Reg<Irouter>)>> + use<> {
    let range: IntIdRange = fields.group.range();
    (32 * block..32 * block + 32).map(move |index| {
        let intid = range.intid_at(index)?;
        Some((intid, gicd::irouter(intid)?))
    })
}
