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
    /// All checks precede the first change, including those for an address that the endpoint cannot
    /// hold or cannot update in a single store. The move records the new CPU before it invalidates
    /// at its redistributor: a mask that starts later also invalidates there, and a mask that
    /// started earlier has already stored its configuration.
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
        // A CPU that goes offline from now on finds this move in the records. Check for a CPU that
        // went offline just before.
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
    /// The LPI may be pending at a CPU that the message no longer names, or named only temporarily.
    /// It is delivered at that CPU.
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

    /// Marks the group as moving. Fails if it is already moving, or has been moved since `from` was
    /// read; the record of its first member decides.
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
            // The LPI may become pending at another CPU.
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

/// Checks that the endpoint can replace one message by the other without holding a mixture of both
/// in between. The data, which is the INTID, does not change.
fn check_rewrite(fit: Fit, old: MsiMessage, new: MsiMessage) -> Result<(), MsiError> {
    fit.check(new)?;
    let possible = match fit.rewrite {
        Rewrite::Masked | Rewrite::Atomic64 | Rewrite::AddressOnly => true,
        Rewrite::LowWordOnly => old.address_high() == new.address_high(),
        Rewrite::Never => false,
    };
    if possible { Ok(()) } else { Err(MsiError::WouldTear) }
}
