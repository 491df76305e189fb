//! The distributor, `GICD_*` (IHI 0069 §12.9): shared interrupts with their state and routes. Needs
//! no heap.

use crate::errata::{self, Erratum};
use crate::frame::{BlockDefaults, ChipAliases, Fields, Frame, SharedBlock, is_v3_or_later};
use crate::interrupt::Interrupt;
use crate::{Block, GicError, Group, Mmio, MmioExt, PhysicalRegion, Platform, SecurityView};
use gic_arch::gicd::{self, Ctlr, CtlrNs, Irouter, Typer};
use gic_arch::{Affinity, Iidr, IntId, IntIdClass, IntIdRange, Priority, Reg, WriteOnly};

/// The target of a shared interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Route {
    /// One PE.
    To(Affinity),
    /// Any participating PE, chosen by hardware (1 of N). A PE participates if its CPU interface
    /// enables the interrupt's group and neither `GICR_CTLR.DPG0`, `DPG1NS` nor `DPG1S` excludes it
    /// (IHI 0069 §12.11). This driver doesn't change the `DPG` bits.
    AnyParticipating,
}

/// Initial state of shared interrupts after [`Distributor::init`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DistributorConfig {
    /// Priority of every interrupt, in this security view's scale.
    pub(crate) priority: Priority,
    /// Initial target of every interrupt, usually the boot CPU.
    pub(crate) route: Affinity,
}

impl DistributorConfig {
    /// Creates a configuration that assigns this priority to all interrupts and routes them to this
    /// CPU.
    pub const fn new(priority: Priority, route: Affinity) -> Self {
        Self { priority, route }
    }
}

/// Doorbells for message-based SPIs (IHI 0069 §3.1.2): physical addresses of registers to which a
/// device writes an INTID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MessageRegisters {
    /// Register that makes an edge-triggered SPI pending, or asserts a level-triggered one.
    pub set: u64,
    /// Register that clears the pending state, or deasserts.
    pub clear: u64,
}

/// Distributor state that [`Distributor::save`] returns, in addition to the blocks that it stores
/// in the caller's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SavedDistributor {
    control: Ctlr,
}

/// The distributor. All operations take `&self`; an internal lock protects read-modify-write
/// registers.
///
/// Functions that do not state a context may be called in any context.
///
/// ```
/// use gic_arch::{Affinity, IntId, Priority};
/// use gic_driver::{Distributor, DistributorConfig, GicError, Platform, Route};
/// use msi_types::Trigger;
///
/// /// Called once, on the boot CPU. Its interface must then be enabled.
/// fn boot<P: Platform>(
///     platform: &P,
///     address: u64, // from firmware
///     cpu: Affinity,
///     uart: IntId,
/// ) -> Result<Distributor<P::Mmio>, GicError> {
///     let distributor = Distributor::map(platform, address)?;
///     distributor.init(platform, DistributorConfig::new(Priority::new(0xa0), cpu))?;
///     distributor.set_route(uart, Route::To(cpu))?;
///     let interrupt = distributor.interrupt(uart)?;
///     interrupt.set_trigger(platform, Trigger::Level)?;
///     interrupt.enable();
///     Ok(distributor)
/// }
/// ```
#[derive(Debug)]
pub struct Distributor<M> {
    frame: Frame<M>,
    address: u64,
    typer: Typer,
    view: SecurityView,
}

impl<M: Mmio> Distributor<M> {
    /// Maps the frame at physical `address` and creates the driver, like [`new`](Self::new).
    ///
    /// # Errors
    /// [`GicError::NotMapped`] if the platform cannot map the frame; otherwise any error of
    /// [`new`](Self::new).
    pub fn map<P: Platform<Mmio = M>>(platform: &P, address: u64) -> Result<Self, GicError> {
        let frame = PhysicalRegion { base: address, bytes: gicd::FRAME_SIZE };
        let block = Block::Distributor(address);
        let mmio = platform.map(frame).ok_or(GicError::NotMapped(block))?;
        Self::new(platform, mmio, address)
    }

    /// Creates the driver for a distributor at physical `address`, mapped as `mmio`. Must be called
    /// once, by the boot CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// The driver detects the security view as follows. `GICD_TYPER.SecurityExtn` = 0 or
    /// `GICD_CTLR.DS` = 1 means that only one security state exists. Otherwise only the Secure
    /// layout of `GICD_CTLR` has bits 2, 5 and 7 (`EnableGrp1S`, `ARE_NS`, `E1NWF`). In the
    /// Non-secure layout, these bits read as zero, so the view is Secure if one of them is set.
    /// After reset, they are zero in both layouts; the driver then disables the groups and sets
    /// bits 4 and 5, which is harmless: both views need bit 4, and the Non-secure layout ignores
    /// bit 5. If bit 5 reads back as 1, the view is Secure.
    ///
    /// The driver detects a GICv2 before it accesses any register that a GICv2 distributor lacks.
    ///
    /// # Errors
    /// [`GicError::OtherVersion`] or [`GicError::WrongRevision`] for a GIC that is not a GICv3 or
    /// GICv4; [`GicError::TimedOut`] if a write that probes the view does not take effect.
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
        let view = detect(platform, &frame, typer)?;
        Ok(Self { frame, address, typer, view })
    }

    /// Sets `GICD_CTLR.DS`, leaving a single security state. This is needed for hardware that
    /// exposes the Secure registers to Non-secure software
    /// ([`SecureRegistersExposed`](Erratum::SecureRegistersExposed)). Must be called before
    /// [`init`](Self::init). Does nothing unless the detected view is Secure.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub(crate) fn disable_security<P: Platform>(&mut self, platform: &P) -> Result<(), GicError> {
        if self.view == SecurityView::Secure {
            let control = self.frame.mmio.read(gicd::CTLR);
            self.write_control(platform, control.with_ds(true))?;
            if self.frame.mmio.read(gicd::CTLR).ds() {
                self.view = SecurityView::Single;
            }
        }
        Ok(())
    }

    /// Makes the driver read the registers of shared interrupts through these aliases of the frame.
    pub(crate) fn read_at(&mut self, aliases: ChipAliases<M>) {
        self.frame.aliases = Some(aliases);
    }

    /// Brings the distributor and all shared interrupts to a known state: enables affinity routing,
    /// makes each interrupt disabled, inactive, not pending, level-triggered and part of the view's
    /// own group, and then enables forwarding of that group. Must be called once, before the CPU
    /// interfaces are enabled. In the Non-secure view, Secure interrupts are not changed.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::NoAffinityRouting`] if firmware keeps affinity routing off;
    /// [`GicError::TimedOut`] if `RWP` stays set.
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

    /// Restores the state that [`save`](Self::save) read, after the distributor has lost it. Must
    /// be called before the CPU interfaces are enabled again.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::StorageTooSmall`] if `storage` has too few blocks;
    /// [`GicError::NoAffinityRouting`] if firmware keeps affinity routing off;
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn restore<P: Platform>(
        &self,
        platform: &P,
        saved: &SavedDistributor,
        storage: &[SharedBlock],
    ) -> Result<(), GicError> {
        self.check_storage(storage.len())?;
        // If an earlier stop timed out, it may only take effect now.
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

    /// Returns a handle to one of this distributor's interrupts.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if `intid` is not an SPI or extended SPI, or is not
    /// implemented.
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

    /// Sets the route of an interrupt. A pending interrupt follows the new route, unless the old
    /// CPU is acknowledging it at that moment. If the interrupt is enabled, the old route may still
    /// be in effect on return; [`Gic`](crate::Gic) disables it while changing the route for this
    /// reason.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if the interrupt is not implemented; [`GicError::NoOneOfN`] if
    /// the distributor does not support [`Route::AnyParticipating`].
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

    /// Returns the route of an interrupt.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if the interrupt is not implemented.
    pub fn route(&self, intid: IntId) -> Result<Route, GicError> {
        let value = self.frame.reads(intid).read(self.route_register(intid)?);
        Ok(if value.any_participating() {
            Route::AnyParticipating
        } else {
            Route::To(value.affinity())
        })
    }

    /// Returns `GICD_CTLR` if the distributor does not forward the view's own group.
    pub(crate) fn withheld_group(&self) -> Option<Ctlr> {
        let control = self.frame.mmio.read(gicd::CTLR);
        let group = group_bits(self.view);
        (control.into_bits() & group != group).then_some(control)
    }

    /// Stops forwarding the view's own group, as the last step of a suspend.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn stop<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        self.set_forwarding(platform, Forwarding::Off)
    }

    /// Returns `GICD_TYPER`, which describes the implementation's features.
    pub fn typer(&self) -> Typer {
        self.typer
    }

    /// Returns the implementer and revision, by which [`errata`] are matched.
    pub fn iidr(&self) -> Iidr {
        self.frame.mmio.read(gicd::IIDR)
    }

    /// Returns the detected security view.
    pub fn view(&self) -> SecurityView {
        self.view
    }

    /// Returns the physical address of the frame.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Returns the mapped frame.
    pub fn mmio(&self) -> &M {
        &self.frame.mmio
    }

    /// Returns this view's doorbells for message-based SPIs, or `None` if the distributor has none.
    pub fn message_registers(&self) -> Option<MessageRegisters> {
        if !self.typer.mbis() {
            return None;
        }
        let (set, clear) = self.doorbells();
        let at = |register: Reg<u32, _>| self.address + u64::from(register.offset());
        Some(MessageRegisters { set: at(set), clear: at(clear) })
    }

    /// Undoes the effect of messages on an SPI. A removed device can no longer deassert a level
    /// that it asserted by message, and neither a write of `ICPENDR` nor a trigger change deasserts
    /// the level. No-op if the distributor has no message-based SPIs.
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

    /// Returns the number of blocks that [`save`](Self::save) fills, at most 63.
    pub fn saved_blocks(&self) -> usize {
        self.blocks().count()
    }

    /// Returns the number of implemented priority bits in this view. The number is determined by
    /// writing the first SPI's priority, which is then restored. Returns `None` if no SPI exists or
    /// the first one belongs to Secure software.
    pub fn priority_bits(&self) -> Option<u32> {
        let first = self.interrupt(IntId::new(IntId::SPI_BASE)).ok()?;
        let old = first.priority();
        first.set_priority(Priority::IDLE);
        let bits = first.priority().get().count_ones();
        first.set_priority(old);
        (bits != 0).then_some(bits)
    }

    /// Returns the implemented 32-interrupt blocks as register arrays plus an index into them.
    fn blocks(&self) -> impl Iterator<Item = (&'static Fields, u32)> + use<M> {
        let spis = (1..self.typer.spi_end().div_ceil(32)).map(|block| (&Fields::SPI, block));
        let extended = (self.typer.extended_spi_end() - IntId::EXTENDED_SPI_BASE) / 32;
        spis.chain((0..extended).map(|block| (&Fields::EXTENDED_SPI, block)))
    }

    /// Returns the first INTID in each saved block.
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

    /// Enables affinity routing for the security states that this view can configure. Changing
    /// affinity routing while a group is enabled is UNPREDICTABLE, so the groups are disabled
    /// first. The view's own group is always disabled on return.
    fn enable_affinity_routing<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        let old = self.frame.mmio.read(gicd::CTLR);
        let wanted = routing_bits(self.view);
        let missing = old.into_bits() & wanted != wanted;
        let groups = if missing { all_groups() } else { group_bits(self.view) };
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
        let bits = group_bits(self.view);
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

/// Forwarding of the view's own group to the CPU interfaces.
#[derive(Clone, Copy, Debug)]
enum Forwarding {
    On,
    Off,
}

/// Returns the interrupts of a block with their route registers, or `None` for interrupts that
/// don't exist (1020–1023).
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

/// Returns the enable bit of the view's own group.
fn group_bits(view: SecurityView) -> u32 {
    match view {
        SecurityView::Single => Ctlr::new().with_enable_grp1(true).into(),
        SecurityView::Secure => Ctlr::new().with_enable_grp1_s(true).into(),
        SecurityView::NonSecure => CtlrNs::new().with_enable_grp1a(true).into(),
    }
}

/// Returns the enable bits of all groups, in every view's layout.
fn all_groups() -> u32 {
    Ctlr::new().with_enable_grp0(true).with_enable_grp1(true).with_enable_grp1_s(true).into()
}

/// Returns the affinity routing enable bits in the view's layout.
fn routing_bits(view: SecurityView) -> u32 {
    match view {
        SecurityView::Single => Ctlr::new().with_are(true).into(),
        SecurityView::Secure => Ctlr::new().with_are(true).with_are_ns(true).into(),
        SecurityView::NonSecure => CtlrNs::new().with_are_ns(true).into(),
    }
}

/// Detects the view as described in [`Distributor::new`](Distributor::new).
fn detect<P: Platform, M: Mmio>(
    platform: &P,
    frame: &Frame<M>,
    typer: Typer,
) -> Result<SecurityView, GicError> {
    let control = frame.mmio.read(gicd::CTLR);
    if !typer.security_extn() || control.ds() {
        return Ok(SecurityView::Single);
    }
    if control.are_ns() || control.enable_grp1_s() || control.e1nwf() {
        return Ok(SecurityView::Secure);
    }
    let quiet = Ctlr::from(control.into_bits() & !all_groups()).with_rwp(false);
    frame.mmio.write(gicd::CTLR, quiet);
    frame.wait_for_rwp(platform)?;
    frame.mmio.write(gicd::CTLR, quiet.with_are(true).with_are_ns(true));
    frame.wait_for_rwp(platform)?;
    let secure = frame.mmio.read(gicd::CTLR).are_ns();
    Ok(if secure { SecurityView::Secure } else { SecurityView::NonSecure })
}
