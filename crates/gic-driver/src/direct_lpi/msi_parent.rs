//! MSI parent implementation for direct LPIs, which needs no per-device state. An affinity change
//! has two phases.

use super::records::{Deferred, LpiBlock, Record};
use super::{DirectLpi, ResendReason};
use crate::GicPlatform;
use core::fmt;
use gic_arch::Lpi;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Attachment, BlockRequest, Cpu, DoorbellPage, Fit, Granule, HwIrq, HwIrqBlock, Isolation, Move,
    MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated, Pending, RequesterId, Rewrite, Tier,
};

/// Reason why an IOMMU can't isolate a device: the doorbell's page also contains redistributor
/// control registers.
const PAGE: &str = "GICR_SETLPIR (with GICR_CTLR, GICR_PROPBASER and GICR_PENDBASER)";

/// [`is_pending`](MsiParent::is_pending) always returns `None`, because `GICR_SETLPIR` and
/// `GICR_CLRLPIR` are write-only and the pending table is undefined while LPIs are enabled.
impl<P: GicPlatform> MsiParent for DirectLpi<P> {
    fn isolation(&self, _of: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::DoorbellPageHoldsControls(PAGE))
    }

    fn allocate(
        &self,
        _device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        self.allocate_block(request)
    }

    fn free(&self, _device: &Attachment, block: HwIrqBlock) {
        self.free_block(&block);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        let (lpi, record) = self.find(block.nth(index)?)?;
        self.redistributors.message(record.target, lpi)
    }

    /// The function changes no state until all checks have passed. An address that the endpoint
    /// can't hold, or can't update in a single store, is an error. The move records the new CPU
    /// before it invalidates at that CPU's redistributor. A concurrent mask operation therefore
    /// either finds the new CPU in the record and invalidates at its redistributor, too, or has
    /// stored its configuration before the move invalidates.
    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let (_, record) = self.find(block.nth(index)?)?;
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
        mark_moving(self, block, (from, to))?;
        // From here on, a concurrent `cpu_off` finds this move in the records. The CPU may have
        // gone offline just before, so check again.
        let ready = self
            .redistributors
            .check_accepts(to)
            .and_then(|()| self.redistributors.invalidate_at(to, block));
        match ready {
            Ok(()) => Ok(moved(Some(new))),
            Err(error) => {
                self.records.update_block(self.platform(), block, |_, record| record.moving = None);
                Err(error)
            }
        }
    }

    /// The LPI may be pending at a CPU that the message no longer targets, or targeted only
    /// briefly. The LPI is then delivered to that CPU.
    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        if moved.message.is_none() {
            return Ok(());
        }
        let (_, record) = self.find(moved.first)?;
        if record.moving != Some(moved.to) || record.count != moved.count {
            return Err(MsiError::UnknownVector(moved.first));
        }
        self.records.update_block(self.platform(), LpiBlock::of(&record), |lpi, record| {
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

    fn mask(&self, hwirq: HwIrq) {
        if let Err(error) = self.configure(hwirq, |lpi| self.lpis().disable(lpi)) {
            self.note(error);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if let Err(error) = self.configure(hwirq, |lpi| self.lpis().enable(lpi)) {
            self.note(error);
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        let Ok(lpi) = Lpi::try_from(hwirq.get()) else { return };
        // The record's lock is held, so the target can't change before the register is written.
        self.records.update(self.platform(), lpi, |record| match pending {
            _ if record.is_freed() => {}
            Pending::Set => self.deliver(lpi, record, ResendReason::Requested),
            Pending::Clear => {
                record.deferred = Deferred::Nothing;
                record
                    .cached_at()
                    .iter()
                    .for_each(|cpu| _ = self.redistributors.clear_at(cpu, lpi));
            }
        });
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        visit(&Tier::of_controller("direct-lpi", self.doorbells()));
    }

    fn doorbell_page(&self, _granule: Granule) -> DoorbellPage {
        DoorbellPage::HoldsControls(PAGE)
    }

    fn explain(&self, hwirq: HwIrq, _: RequesterId) -> Explanation {
        let Ok((lpi, Record { target, .. })) = self.find(hwirq) else {
            return Explanation::stopped(Obstacle::NoSuchInterrupt { interrupt: hwirq });
        };
        let doorbell = self.doorbell(target).map(Fact::Doorbell);
        let facts = [doorbell, Some(Fact::MessageIntid(hwirq))];
        self.gic().explain_lpi(lpi, target).with_facts(&facts)
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let Ok((_, record)) = self.find(hwirq) else {
            return writeln!(out, "direct-lpi: LPI {hwirq} is not allocated");
        };
        let base = self.doorbell(record.target).unwrap_or(0);
        writeln!(out, "direct-lpi: LPI {hwirq} by GICR_SETLPIR@{base:x} at CPU {}", record.target)
    }
}

/// Marks the group as moving. Fails if the group is already moving, or was moved since `from`
/// was read. The first member's record is authoritative.
fn mark_moving<P: GicPlatform>(
    direct: &DirectLpi<P>,
    block: LpiBlock,
    (from, to): (Cpu, Cpu),
) -> Result<(), MsiError> {
    let first = direct.records.update(direct.platform(), block.first, |record| {
        let idle = record.moving.is_none() && record.target == from;
        if idle {
            record.moving = Some(to);
        }
        idle
    });
    if first != Some(true) {
        let reason = "this LPI is already being moved";
        return Err(direct.redistributors.fault_at(to, "move", reason));
    }
    direct.records.update_block(direct.platform(), block, |lpi, record| {
        // Ensure that the record has room for one more CPU at which the LPI may be pending.
        if !record.previous.has_room_for(to) {
            direct.resend_from(record.previous.iter(), lpi, record);
        }
        record.moving = Some(to);
    });
    Ok(())
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
