//! The two phases of an affinity change.

use super::DirectLpi;
use super::records::LpiBlock;
use super::records::{Deferred, Record};
use crate::GicPlatform;
use gic_arch::Lpi;
use msi_types::{Cpu, Fit, HwIrq, Move, MoveOutcome, MsiError, MsiMessage, Rewrite};

impl<P: GicPlatform> DirectLpi<P> {
    /// Implements [`MsiParent::begin_move`](msi_types::MsiParent::begin_move).
    ///
    /// Context: task; may sleep.
    ///
    /// The function changes no state until all checks have passed. An address that the endpoint
    /// can't hold, or can't update in a single store, is an error. The move records the new CPU
    /// before it invalidates at that CPU's redistributor. A concurrent mask operation therefore
    /// either finds the new CPU in the record and invalidates at its redistributor, too, or has
    /// stored its configuration before the move invalidates.
    pub(super) fn prepare_move(&self, hwirq: HwIrq, to: Cpu) -> Result<Move, MsiError> {
        let unknown = MsiError::UnknownVector(hwirq);
        let lpi = Lpi::try_from(hwirq.get()).map_err(|_| unknown)?;
        let record = self.records.get(self.platform(), lpi).ok_or(unknown)?;
        let block = LpiBlock::of(&record);
        let Record { target: from, fit, .. } = record;
        let moved = |message| Move {
            first: block.first.intid().hwirq(),
            count: block.count,
            message,
            from,
            to,
        };
        if from == to {
            return Ok(moved(None));
        }
        self.redistributors.check_accepts(to)?;
        let new = self.redistributors.message(to, block.first)?;
        check_rewrite(fit, self.redistributors.message(from, block.first)?, new)?;
        self.mark_moving(block, from, to)?;
        // From here on, a concurrent `cpu_off` finds this move in the records. The CPU may have
        // gone offline just before, so check again.
        let ready = self
            .redistributors
            .check_accepts(to)
            .and_then(|()| self.redistributors.invalidate_at(to, block));
        match ready {
            Ok(()) => Ok(moved(Some(new))),
            Err(error) => {
                self.each(block, |_, record| record.moving = None);
                Err(error)
            }
        }
    }

    /// Implements [`MsiParent::end_move`](msi_types::MsiParent::end_move).
    ///
    /// Context: task; may sleep.
    ///
    /// The LPI may be pending at a CPU that the message no longer targets, or targeted only
    /// briefly. The LPI is then delivered to that CPU.
    pub(super) fn finish_move(&self, moved: &Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if moved.message.is_none() {
            return Ok(());
        }
        let unknown = MsiError::UnknownVector(moved.first);
        let first = Lpi::try_from(moved.first.get()).map_err(|_| unknown)?;
        let record = self.records.get(self.platform(), first).ok_or(unknown)?;
        if record.moving != Some(moved.to) || record.count != moved.count {
            return Err(unknown);
        }
        self.each(LpiBlock::of(&record), |lpi, record| {
            record.moving = None;
            if outcome == MoveOutcome::RolledBack {
                record.previous.add(moved.to);
            } else {
                record.previous.remove(moved.to);
                record.previous.add(record.target);
                record.target = moved.to;
                if let Deferred::SetPending(reason) = record.deferred {
                    self.deliver(lpi, record, reason);
                }
            }
        });
        Ok(())
    }

    /// Marks the group as moving. Fails if the group is already moving, or was moved since `from`
    /// was read. The first member's record is authoritative.
    fn mark_moving(&self, block: LpiBlock, from: Cpu, to: Cpu) -> Result<(), MsiError> {
        let first = self.records.update(self.platform(), block.first, |record| {
            let idle = record.moving.is_none() && record.target == from;
            if idle {
                record.moving = Some(to);
            }
            idle
        });
        if first != Some(true) {
            return Err(self.redistributors.fault_at(
                to,
                "move",
                "this LPI is already being moved",
            ));
        }
        self.each(block, |lpi, record| {
            // Ensure that the record has room for one more CPU at which the LPI may be pending.
            if !record.previous.has_room_for(to) {
                self.resend_from(record.previous.iter(), lpi, record);
            }
            record.moving = Some(to);
        });
        Ok(())
    }

    fn each(&self, block: LpiBlock, mut change: impl FnMut(Lpi, &mut Record)) {
        for lpi in block.lpis() {
            self.records.update(self.platform(), lpi, |record| change(lpi, record));
        }
    }
}

/// Checks that the endpoint can switch from one message to the other without ever holding a mix of
/// both. The data (the INTID) does not change.
fn check_rewrite(fit: Fit, old: MsiMessage, new: MsiMessage) -> Result<(), MsiError> {
    fit.check(new)?;
    let possible = match fit.rewrite {
        Rewrite::Masked | Rewrite::Atomic64 | Rewrite::AddressOnly => true,
        Rewrite::LowWordOnly => old.address_high() == new.address_high(),
        Rewrite::Never => false,
    };
    if possible { Ok(()) } else { Err(MsiError::WouldTear) }
}
