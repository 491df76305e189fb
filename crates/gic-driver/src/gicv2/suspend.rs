//! Suspends and resumes a GICv2. Register writes take effect immediately, so no wait for `RWP` is
//! needed.

use super::cpu_interface::SavedInterfaceV2;
use super::{GicV2, TARGET_WORDS};
use crate::frame::{Fields, InterruptBlock, SGIS};
use crate::{GicError, Mmio, MmioExt, Platform};
use alloc::vec::Vec;
use core::num::NonZeroU8;
use core::ops::Range;
use core::sync::atomic::Ordering;
use gic_arch::gicd::{self, Ctlr};
use msi_types::Cpu;

/// GICv2 state that is lost while the system sleeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SuspendedV2 {
    cpu: Cpu,
    target: NonZeroU8,
    control: Ctlr,
    shared: Vec<SharedBlockV2>,
    private: InterruptBlock,
    /// `GICD_SPENDSGIR`.
    sgis: [u32; 4],
    interface: SavedInterfaceV2,
}

/// Memory for the state that [`GicV2::suspend`] saves with interrupts masked.
#[derive(Debug)]
pub struct SuspendRoomV2(Vec<SharedBlockV2>);

/// State of 32 SPIs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct SharedBlockV2 {
    interrupts: InterruptBlock,
    targets: [u32; TARGET_WORDS as usize],
}

impl<P: Platform> GicV2<P> {
    /// Allocates memory for a [`suspend`](Self::suspend).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::NoMemory`] if the allocation fails.
    pub fn suspend_room(&self) -> Result<SuspendRoomV2, GicError> {
        let mut shared = Vec::new();
        shared
            .try_reserve_exact(self.shared_blocks().len())
            .map_err(|_| GicError::NoMemory(self.frame.block))?;
        Ok(SuspendRoomV2(shared))
    }

    /// Saves the GIC, including the calling CPU's banked registers, and stops it. This is the last
    /// step before the system loses power; the other CPUs must already be off. Must be called on
    /// the last CPU, `cpu`, with its interrupts masked.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`] if the CPU is not configured, or is off;
    /// [`GicError::StorageTooSmall`] if `room` belongs to another GIC. On error, the GIC is
    /// unchanged.
    pub fn suspend(&self, room: SuspendRoomV2, cpu: Cpu) -> Result<SuspendedV2, GicError> {
        let target = self.target_of(cpu).ok_or(GicError::UnknownCpu(cpu))?;
        // A GICv2 has no message-based SPIs: every level is driven by a wire that makes the
        // interrupt pending again while it is asserted.
        let mut private = self.frame.save_block(&Fields::BANKED, 0);
        private.drop_levels(SGIS);
        let saved = SuspendedV2 {
            cpu,
            target,
            control: self.frame.mmio.read(gicd::CTLR),
            shared: self.save_shared(room)?,
            private,
            sgis: self.pending_sgis(),
            interface: self.cpu_interface().save(),
        };
        self.cpu_off(cpu)?;
        self.frame.mmio.write(gicd::CTLR, Ctlr::new());
        Ok(saved)
    }

    /// Restores the GIC, whether or not it lost its state. This is the first step after power
    /// returns; the kernel then [turns on](Self::cpu_on) the other CPUs. Must be called on the CPU
    /// that suspended, with its interrupts masked. The EOI mode of the CPU interface is restored.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn resume(&self, saved: &SuspendedV2) {
        self.frame.mmio.write(gicd::CTLR, Ctlr::new());
        for (block, saved) in (1..).zip(&saved.shared) {
            self.frame.disable_block(&Fields::BANKED, block);
            for (register, targets) in self.target_registers(block).zip(saved.targets) {
                self.frame.mmio.write(register, targets);
            }
            self.frame.restore_block(&Fields::BANKED, block, &saved.interrupts);
            self.frame.restore_enables(&Fields::BANKED, block, &saved.interrupts);
        }
        self.restore_private(saved);
        self.frame.mmio.write(gicd::CTLR, saved.control);
        self.cpu_interface().restore(saved.interface);
        if let Some(slot) = self.slot(saved.cpu) {
            slot.store(saved.target.get(), Ordering::SeqCst);
        }
    }

    fn save_shared(&self, room: SuspendRoomV2) -> Result<Vec<SharedBlockV2>, GicError> {
        let blocks = self.shared_blocks();
        let SuspendRoomV2(mut shared) = room;
        let (wanted, given) = (blocks.len(), shared.capacity());
        if given < wanted {
            return Err(GicError::StorageTooSmall { block: self.frame.block, wanted, given });
        }
        for block in blocks {
            let mut saved = SharedBlockV2 {
                interrupts: self.frame.save_block(&Fields::BANKED, block),
                ..SharedBlockV2::default()
            };
            saved.interrupts.drop_levels(0);
            for (targets, register) in saved.targets.iter_mut().zip(self.target_registers(block)) {
                *targets = self.frame.mmio.read(register);
            }
            shared.push(saved);
        }
        Ok(shared)
    }

    /// Returns the indices of the blocks of 32 SPIs.
    fn shared_blocks(&self) -> Range<u32> {
        1..self.typer.spi_end().div_ceil(32)
    }

    /// Restores the calling CPU's banked registers. Pending SGIs are recorded per sender in
    /// `GICD_SPENDSGIR`; for SGIs `GICD_ISPENDR` is read-only (IHI 0048 §4.3.7).
    fn restore_private(&self, saved: &SuspendedV2) {
        self.frame.disable_block(&Fields::BANKED, 0);
        self.frame.restore_block(&Fields::BANKED, 0, &saved.private);
        for register in gicd::CPENDSGIR.iter() {
            self.frame.mmio.write(register, u32::MAX);
        }
        for (register, senders) in gicd::SPENDSGIR.iter().zip(saved.sgis) {
            // Write one byte per SGI, and skip SGIs without a sender: if a zero byte is written,
            // QEMU (7.2, 10.0) makes the SGI pending without a sender and aborts when it's
            // acknowledged.
            for (byte, senders) in (register.offset()..).zip(senders.to_le_bytes()) {
                if senders != 0 {
                    self.frame.mmio.write8(byte, senders);
                }
            }
        }
        self.frame.restore_enables(&Fields::BANKED, 0, &saved.private);
    }

    fn pending_sgis(&self) -> [u32; 4] {
        let mut sgis = [0; 4];
        for (senders, register) in sgis.iter_mut().zip(gicd::SPENDSGIR.iter()) {
            *senders = self.frame.mmio.read(register);
        }
        sgis
    }
}
