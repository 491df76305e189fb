//! MSI parent implementation for direct LPIs, which needs no per-device state.

use super::DirectLpi;
use super::records::Record;
use crate::GicPlatform;
use core::fmt;
use gic_arch::Lpi;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Attachment, BlockRequest, Capabilities, Cpu, DoorbellPage, Granule, HwIrq, HwIrqBlock,
    Isolation, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated, Pending,
    Properties, Property, RequesterId, Tier,
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

    fn attach(&self, _device: RequesterId, _max: u32) -> Result<Attachment, MsiError> {
        Ok(Attachment::new(0))
    }

    fn detach(&self, _device: Attachment) {}

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
        let unknown = MsiError::UnknownVector(block.first());
        let hwirq = block.hwirq(index).ok_or(unknown)?;
        let lpi = Lpi::try_from(hwirq.get()).map_err(|_| unknown)?;
        let record = self.records.get(self.platform(), lpi).ok_or(unknown)?;
        self.redistributors.message(record.target, lpi)
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        self.prepare_move(hwirq, to)
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        self.finish_move(&moved, outcome)
    }

    fn mask(&self, hwirq: HwIrq) {
        if let Err(error) = self.disable(hwirq) {
            self.note(error);
        }
    }

    fn unmask(&self, hwirq: HwIrq) {
        if let Err(error) = self.enable(hwirq) {
            self.note(error);
        }
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.change_pending(hwirq, pending);
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        let out_of_reach = self.doorbells().all(|doorbell| doorbell > u32::MAX.into());
        let tier = Tier::new("direct-lpi").with_provides(Capabilities::ALL);
        let wide = Properties::NONE.with(Property::WideAddress);
        visit(&if out_of_reach { tier.with_requires(wide) } else { tier });
    }

    fn doorbell_page(&self, _granule: Granule) -> DoorbellPage {
        DoorbellPage::HoldsControls(PAGE)
    }

    fn explain(&self, hwirq: HwIrq, _: RequesterId) -> Explanation {
        let lpi = Lpi::try_from(hwirq.get()).ok();
        let found = lpi.and_then(|lpi| Some((lpi, self.records.get(self.platform(), lpi)?)));
        let Some((lpi, Record { target, .. })) = found else {
            let missing = Obstacle::NoSuchInterrupt { interrupt: hwirq };
            return Explanation::new().with_obstacle(missing);
        };
        let doorbell = self.doorbell(target).map(Fact::Doorbell);
        let arrived = doorbell.into_iter().fold(Explanation::new(), Explanation::with_fact);
        let arrived = arrived.with_fact(Fact::MessageIntid(hwirq));
        arrived.and_then(|| self.gic().explain_lpi(lpi, target))
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        let record =
            Lpi::try_from(hwirq.get()).ok().and_then(|lpi| self.records.get(self.platform(), lpi));
        let Some(record) = record else {
            return writeln!(out, "direct-lpi: LPI {hwirq} is not allocated");
        };
        let base = self.doorbell(record.target).unwrap_or(0);
        writeln!(out, "direct-lpi: LPI {hwirq} by GICR_SETLPIR@{base:x} at CPU {}", record.target)
    }
}
