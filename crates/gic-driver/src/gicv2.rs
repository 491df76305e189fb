//! A GICv2 (IHI 0048): a distributor and CPU interfaces, for boards whose devices send messages to
//! [GICv2m](crate::v2m) frames.
//!
//! A GICv2 has at most eight CPUs, and no affinities, redistributors or LPIs. The GICv2 driver
//! shares code with the GICv3 driver for distributor registers that both versions have. SPIs are
//! routed to CPU interfaces by number (`GICD_ITARGETSR`), SGIs are sent through `GICD_SGIR`, and
//! the CPU interface is memory-mapped. The kernel receives interrupts of its own group, which is
//! Group 0 if only one security state exists and Group 1 for Non-secure software. In both cases,
//! bit 0 of the control registers enables the group.
//!
//! ```
//! extern crate alloc;
//! use alloc::sync::Arc;
//! use gic_driver::gicv2::{GicV2, GicV2Config};
//! use gic_driver::v2m::{V2m, V2mFrame};
//! use gic_driver::{GicError, Platform};
//! use msi_types::Cpu;
//!
//! // On the boot CPU. The other CPUs call `cpu_on` when they start.
//! fn boot<P: Platform>(platform: P, config: GicV2Config) -> Result<GicV2<P>, GicError> {
//!     let this = Cpu::new(0);
//!     let gic = GicV2::new(platform, config, this)?;
//!     gic.cpu_on(this)?;
//!     Ok(gic)
//! }
//!
//! // With a heap. An `Arc` of a platform is also a platform.
//! type SharedGic<P> = Arc<GicV2<Arc<P>>>;
//!
//! fn messages<P: Platform + 'static>(gic: &SharedGic<P>, frame: u64) -> Option<V2m<P>> {
//!     V2m::new(gic.platform().clone(), gic.clone(), &[V2mFrame::new(frame)]).ok()
//! }
//!
//! fn on_interrupt<P: Platform>(gic: &GicV2<P>) {
//!     let interface = gic.cpu_interface();
//!     if let Some(interrupt) = interface.acknowledge() {
//!         // … the handler of `interrupt.intid()` …
//!         interface.end(interrupt);
//!     }
//! }
//! ```

mod cpu_interface;
#[cfg(feature = "alloc")]
mod suspend;
mod wired;

pub use cpu_interface::CpuInterfaceV2;
#[cfg(feature = "alloc")]
pub use suspend::{SuspendRoomV2, SuspendedV2};

use crate::claims::Claims;
use crate::cpu_interface::{CombinedEoi, EoiMode};
use crate::frame::{BlockDefaults, Fields, Frame, is_v3_or_later};
use crate::{Block, GicError, Interrupt, MmioExt, PhysicalRegion, Platform, Priorities};
use core::num::NonZeroU8;
use core::sync::atomic::{AtomicU8, Ordering, fence};
use doorbell_fallible::lock::IrqLock;
use gic_arch::gicc::{self, Sgir};
use gic_arch::gicd::{self, Ctlr, Typer};
use gic_arch::{IntId, Priority, Reg, SgiId};
use msi_types::{Cpu, HwIrq, MsiError};

/// Maximum number of CPU interfaces of a GICv2.
const MAX_CPUS: usize = 8;
/// Number of `GICD_ITARGETSR` registers for 32 interrupts.
const TARGET_WORDS: u32 = 8;

/// GICv2 configuration, partly from firmware and partly chosen by the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GicV2Config {
    /// Physical address of the distributor (`GICD`, 4 KiB).
    pub(crate) distributor: u64,
    /// Physical address of the CPU interface (`GICC`).
    pub(crate) cpu_interface: u64,
    pub(crate) cpu_interface_bytes: u64,
    /// Number of CPUs, at most 8.
    pub(crate) cpus: usize,
    pub(crate) priority: Priority,
    pub(crate) mask: Priority,
}

impl GicV2Config {
    /// Creates a configuration with defaults: a single mid-range priority, and a mask under which
    /// interrupts of this priority are signaled.
    pub const fn new(distributor: u64, cpu_interface: u64, cpus: usize) -> Self {
        let (priority, mask) = (Priority::new(0xa0), Priority::new(0xf0));
        let cpu_interface_bytes = gicc::FIRST_PAGE_SIZE;
        Self { distributor, cpu_interface, cpu_interface_bytes, cpus, priority, mask }
    }

    msi_types::setters! {
        /// Sets the size of the CPU interface. The driver always uses the first 4 KiB. EOI and
        /// deactivation can be [split](GicV2::cpu_on_with) only if firmware describes at least 8
        /// KiB, because `GICC_DIR` lies in the second page.
        with_cpu_interface_bytes: cpu_interface_bytes: u64,
    }

    /// Sets the priority of every interrupt, in the security view's scale, and the priority mask.
    /// The priority of LPIs is not used.
    #[must_use]
    pub const fn with_priorities(self, priorities: Priorities) -> Self {
        Self { priority: priorities.wired, mask: priorities.mask, ..self }
    }

    /// Returns the number of CPUs.
    pub const fn cpus(&self) -> usize {
        self.cpus
    }

    /// Returns the number of bytes of the CPU interface that must be mapped.
    fn interface_bytes(&self) -> u64 {
        if self.cpu_interface_bytes < gicc::FRAME_SIZE {
            gicc::FIRST_PAGE_SIZE
        } else {
            gicc::FRAME_SIZE
        }
    }
}

/// A GICv2. Shared by reference; locking is internal, and no heap is needed. Implements
/// [`WiredParent`](msi_types::WiredParent) for SPIs, and for the calling CPU's SGIs and PPIs.
#[derive(Debug)]
pub struct GicV2<P: Platform> {
    platform: P,
    config: GicV2Config,
    frame: Frame<P::Mmio>,
    interface: P::Mmio,
    typer: Typer,
    /// Each CPU's interface bit in `GICD_ITARGETSR`; 0 while the CPU is off.
    targets: [AtomicU8; MAX_CPUS],
    claims: IrqLock<Claims>,
}

impl<P: Platform> GicV2<P> {
    /// Creates the driver for a GICv2 and brings its SPIs to a known state: disabled, inactive, not
    /// pending, level-triggered, and routed to the calling CPU, `boot`. Interrupts are not enabled
    /// at any CPU yet. Must be called once.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::NotMapped`] if the platform cannot map a frame; [`GicError::OtherVersion`] or
    /// [`GicError::WrongRevision`] if the distributor is not a GICv2's; [`GicError::UnknownCpu`] if
    /// `boot` is not below [`GicV2Config::cpus`], or if `cpus` exceeds eight;
    /// [`GicError::NoTarget`] if the calling CPU cannot find its CPU interface number.
    pub fn new(platform: P, config: GicV2Config, boot: Cpu) -> Result<Self, GicError> {
        let block = Block::Distributor(config.distributor);
        if boot.index() >= config.cpus || config.cpus > MAX_CPUS {
            return Err(GicError::UnknownCpu(boot));
        }
        let map = |base, bytes, block| {
            platform.map(PhysicalRegion { base, bytes }).ok_or(GicError::NotMapped(block))
        };
        let distributor = map(config.distributor, gicd::GICV2_FRAME_SIZE, block)?;
        if is_v3_or_later(&distributor) {
            return Err(GicError::OtherVersion { block, found: "GICv3 or later" });
        }
        let frame = Frame::probe_v2(distributor, block)?;
        let interface = map(config.cpu_interface, config.interface_bytes(), Block::CpuInterface)?;
        let typer = frame.mmio.read(gicd::TYPER);
        let new = Self {
            platform,
            config,
            frame,
            interface,
            typer,
            targets: Default::default(),
            claims: IrqLock::default(),
        };
        new.init(new.own_target(boot)?);
        Ok(new)
    }

    fn init(&self, boot: NonZeroU8) {
        self.frame.mmio.write(gicd::CTLR, Ctlr::new());
        let targets = u32::from_ne_bytes([boot.get(); 4]);
        for block in 1..self.typer.spi_end().div_ceil(32) {
            self.reset(block);
            for register in self.target_registers(block) {
                self.frame.mmio.write(register, targets);
            }
        }
        self.frame.mmio.write(gicd::CTLR, Ctlr::new().with_enable_grp0(true));
    }

    /// Enables interrupts at the calling CPU: enables its SGIs, disables its PPIs, and enables its
    /// interface.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`] if the CPU is not configured; [`GicError::NoTarget`] if it cannot
    /// find its CPU interface number.
    pub fn cpu_on(&self, cpu: Cpu) -> Result<(), GicError> {
        self.cpu_on_with::<CombinedEoi>(cpu)
    }

    /// Enables interrupts at the calling CPU like [`cpu_on`](Self::cpu_on), but in the EOI mode
    /// `E`.
    ///
    /// # Errors
    /// Any error of [`cpu_on`](Self::cpu_on), or [`GicError::NoSplitEnd`] if this GICv2 cannot
    /// split EOI and deactivation.
    pub fn cpu_on_with<E: EoiMode>(&self, cpu: Cpu) -> Result<(), GicError> {
        if E::SPLIT && self.config.interface_bytes() < gicc::FRAME_SIZE {
            return Err(GicError::NoSplitEnd(
                "GICC_DIR lies beyond the 4 KiB that firmware states",
            ));
        }
        let slot = self.slot(cpu).ok_or(GicError::UnknownCpu(cpu))?;
        let target = self.own_target(cpu)?;
        self.reset(0);
        for register in gicd::CPENDSGIR.iter() {
            self.frame.mmio.write(register, u32::MAX);
        }
        for sgi in 0..IntId::SGI_COUNT {
            self.own(IntId::new(sgi)).enable();
        }
        self.cpu_interface_with::<E>().enable(self.config.mask)?;
        slot.store(target.get(), Ordering::SeqCst);
        Ok(())
    }

    /// Disables the calling CPU's interface, so that no more interrupts are signaled to the CPU.
    /// SPIs that are still routed to it stay pending until they are rerouted.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`] if the CPU is not configured.
    pub fn cpu_off(&self, cpu: Cpu) -> Result<(), GicError> {
        let slot = self.slot(cpu).ok_or(GicError::UnknownCpu(cpu))?;
        slot.store(0, Ordering::SeqCst);
        self.cpu_interface().disable();
        Ok(())
    }

    /// Sends an SGI to an online CPU, possibly the calling one. Stores made before the call are
    /// visible to the receiver.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`] if the CPU is not configured; [`GicError::CpuOff`] if it is off.
    pub fn send(&self, sgi: SgiId, to: Cpu) -> Result<(), GicError> {
        let target = self.target_of(to).ok_or_else(|| {
            let is_known = self.cpus().any(|known| known == to);
            if is_known { GicError::CpuOff(to) } else { GicError::UnknownCpu(to) }
        })?;
        self.write_sgi(Sgir::new().with_intid(sgi.get()).with_target_list(target.get()));
        Ok(())
    }

    /// Sends an SGI to all CPUs except this one.
    ///
    /// Context: any.
    pub fn send_to_others(&self, sgi: SgiId) {
        const ALL_BUT_SELF: u8 = 1;
        self.write_sgi(Sgir::new().with_intid(sgi.get()).with_target_list_filter(ALL_BUT_SELF));
    }

    /// Returns the calling CPU's interface. Accesses no registers.
    ///
    /// Context: any.
    pub fn cpu_interface(&self) -> CpuInterfaceV2<'_, P::Mmio> {
        CpuInterfaceV2::new(&self.interface)
    }

    /// Returns the calling CPU's interface after [`cpu_on_with`](Self::cpu_on_with), with the same
    /// EOI mode.
    pub fn cpu_interface_with<E: EoiMode>(&self) -> CpuInterfaceV2<'_, P::Mmio, E> {
        CpuInterfaceV2::new(&self.interface)
    }

    /// Returns a handle to an SPI, or to one of the calling CPU's SGIs or PPIs.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if the interrupt is not implemented.
    pub fn interrupt(&self, intid: IntId) -> Result<Interrupt<'_, P::Mmio>, GicError> {
        let own = Fields::BANKED.set_enable.locate(intid).is_some() && intid.is_private();
        if own || self.typer.implements(intid) && intid.get() < IntId::SPI_END {
            Ok(self.own(intid))
        } else {
            Err(GicError::NoSuchInterrupt { block: self.frame.block, intid })
        }
    }

    /// Returns all CPUs in the configuration.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> + use<P> {
        (0..u32::try_from(self.config.cpus).unwrap_or(0)).map(Cpu::new)
    }

    /// Returns `true` if the CPU has been turned on and not turned off since.
    pub fn is_on(&self, cpu: Cpu) -> bool {
        self.target_of(cpu).is_some()
    }

    /// Returns the platform.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    fn wired(&self, hwirq: HwIrq) -> Result<Interrupt<'_, P::Mmio>, MsiError> {
        self.interrupt(hwirq.into()).map_err(|_| MsiError::UnknownVector(hwirq))
    }

    /// Resets a block and puts its interrupts into Group 0. The group setting has no effect for
    /// Non-secure software, whose interrupts are all in Group 1.
    fn reset(&self, block: u32) {
        let defaults =
            BlockDefaults { priority: self.config.priority.get(), group: 0, group_modifier: 0 };
        self.frame.reset_block(&Fields::BANKED, block, defaults);
    }

    /// Returns the calling CPU's interface bit, read from the target fields of its private
    /// interrupts. Uniprocessor implementations have no target registers.
    fn own_target(&self, cpu: Cpu) -> Result<NonZeroU8, GicError> {
        let own = gicd::ITARGETSR.registers().iter().take(8);
        let bits = own
            .flat_map(|register| self.frame.mmio.read(register).to_le_bytes())
            .find(|bits| *bits != 0);
        let alone = || (self.typer.cpu_number() == 0).then_some(NonZeroU8::MIN);
        bits.and_then(NonZeroU8::new).or_else(alone).ok_or(GicError::NoTarget(cpu))
    }

    /// Returns the target registers for the 32 interrupts in `block`. INTIDs from 1020 on have no
    /// target registers.
    fn target_registers(&self, block: u32) -> impl Iterator<Item = Reg<u32>> + use<P> {
        let registers = gicd::ITARGETSR.registers();
        let end = (block * TARGET_WORDS + TARGET_WORDS).min(self.typer.spi_end() / 4);
        (block * TARGET_WORDS..end).filter_map(move |index| registers.get(index))
    }

    fn target_of(&self, cpu: Cpu) -> Option<NonZeroU8> {
        NonZeroU8::new(self.slot(cpu)?.load(Ordering::SeqCst))
    }

    fn slot(&self, cpu: Cpu) -> Option<&AtomicU8> {
        self.targets.get(..self.config.cpus)?.get(cpu.index())
    }

    fn own(&self, intid: IntId) -> Interrupt<'_, P::Mmio> {
        Interrupt::new(&self.frame, &Fields::BANKED, intid)
    }

    fn write_sgi(&self, sgi: Sgir) {
        fence(Ordering::SeqCst);
        self.frame.mmio.write(gicd::SGIR, sgi.into());
    }
}
