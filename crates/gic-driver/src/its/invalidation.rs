//! Invalidates cached LPI configuration through `GICR_INVLPIR`, if the redistributor has it.
//! Otherwise, the caller must use the ITS's INV command.
//!
//! The register needs neither the command queue nor its lock, so CPUs don't contend when they mask
//! LPIs at different redistributors.
//!
//! Invariant: on return, the LPI's redistributor uses the configuration that was stored before the
//! call. A move that is posted later posts its own INV after its MOVI. A move in progress has
//! already changed the route, but its INV may have read the old configuration, and the route's
//! redistributor may not have the LPI yet. The driver therefore reads the route first, and then the
//! number of moves in progress. Unless this number is 0, the driver uses INV, which the queue
//! orders after the commands for these moves.

use super::routes::{EventRoutes, cpu_of};
use crate::gic::GicWithLpis;
use crate::platform::{GicPlatform, TimedOut, wait_until};
use crate::redistributor::Invalidation;
use crate::register_access::RegisterAccess;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use doorbell_fallible::try_collect;
use gic_arch::Lpi;
use msi_types::Cpu;

/// Permissions to use redistributor registers, indexed by CPU, and the number of moves in progress.
#[derive(Debug)]
pub(crate) struct RegisterInvalidation<P: GicPlatform> {
    gic: GicWithLpis<P>,
    access: Vec<RegisterAccess>,
    /// Number of moves whose commands the ITS may still execute.
    moves: AtomicU32,
}

impl<P: GicPlatform> RegisterInvalidation<P> {
    /// Creates the state for `cpus` CPUs, with all registers closed.
    pub(super) fn new(gic: GicWithLpis<P>, cpus: usize) -> Result<Self, TryReserveError> {
        let access = try_collect((0..cpus).map(|_| RegisterAccess::default()))?;
        Ok(Self { gic, access, moves: AtomicU32::new(0) })
    }

    /// Begins a move. Must be called before the route of an event changes. Invalidations use the
    /// queue until the move has [ended](Self::end_move).
    pub(super) fn begin_move(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends a move. The ITS must have executed either all commands of the move or none of them, and
    /// must not be able to execute any of them later.
    pub(super) fn end_move(&self) {
        self.moves.fetch_sub(1, Ordering::SeqCst);
    }

    /// Invalidates an LPI through its redistributor's register. Returns `None` if the register
    /// can't be used, or if a move is in progress, so that the caller must use INV.
    ///
    /// Context: any.
    pub(super) fn invalidate(&self, lpi: Lpi, routes: &EventRoutes) -> Option<()> {
        // A move that the count below does not include is posted after the new configuration was
        // stored.
        fence(Ordering::SeqCst);
        let cpu = cpu_of(routes.of(lpi)?.collection);
        if self.moves.load(Ordering::SeqCst) != 0 {
            return None;
        }
        let _user = self.access.get(cpu.index())?.enter()?;
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        let one = core::iter::once(Invalidation::One(lpi));
        redistributor.invalidate(&**self.gic.platform(), one).ok()
    }

    /// Lets invalidations use the registers of an online CPU's redistributor, if it has the
    /// invalidation registers.
    pub(super) fn open(&self, cpu: Cpu) {
        let Some(access) = self.access.get(cpu.index()) else { return };
        let redistributor = self.gic.redistributor_frames(cpu);
        if redistributor.is_ok_and(crate::Redistributor::can_invalidate) {
            access.open();
        }
    }

    /// Calls [`open`](Self::open) for each of these CPUs.
    pub(super) fn open_all(&self, cpus: impl Iterator<Item = Cpu>) {
        cpus.for_each(|cpu| self.open(cpu));
    }

    /// Ends all use of a CPU's registers. The CPU's redistributor may then be put to sleep.
    ///
    /// # Errors
    /// [`TimedOut`] if a user does not finish. After this error, the registers are open again.
    pub(super) fn close(&self, cpu: Cpu) -> Result<(), TimedOut> {
        let Some(access) = self.access.get(cpu.index()) else { return Ok(()) };
        if !access.is_open() {
            return Ok(());
        }
        access.close();
        let unused = || !access.is_used();
        wait_until(&**self.gic.platform(), "the last user of its registers", unused)
            .inspect_err(|_| access.open())
    }

    /// Calls [`close`](Self::close) for each of these CPUs. On error, none of the CPUs' registers
    /// are closed.
    pub(super) fn close_all(
        &self,
        cpus: impl Iterator<Item = Cpu> + Clone,
    ) -> Result<(), TimedOut> {
        let closed = cpus.clone().try_for_each(|cpu| self.close(cpu));
        closed.inspect_err(|_| self.open_all(cpus))
    }
}
