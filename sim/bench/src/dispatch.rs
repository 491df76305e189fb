//! The path from an acknowledged INTID to its handler.

use crate::floors;
use crate::probe::{Fallible, Probe, each};
use irq_domain::{
    Config, Dispatched, Host, Interrupts, IrqState, LocalCpu, MsiDevice, MsiDeviceConfig,
    TaskContext,
};
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrq, HwIrqBlock, Isolation, Masking, MessageStore, Move,
    MoveOutcome, MsiError, MsiMessage, MsiParent, NotIsolated, Pending, RequesterId, Rewrite,
    Shape, StoreError, StoreUpdate,
};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

/// Name of the case.
pub(crate) const NAME: &str = "dispatch";
const FIRST_LPI: u32 = 8192;
const VECTORS: u16 = 64;
/// Number of interrupts per sample.
pub(crate) const REPEATS: u32 = 4096;

/// Returns a probe that dispatches 64 vectors of one device round-robin, on the CPU that they
/// target.
pub(crate) fn probe() -> Fallible<Probe> {
    let interrupts = Interrupts::new(Config::new(NonZeroU16::MIN, Arc::new(IdleHost)))?;
    let requester = RequesterId::pci(1, 0, 0);
    let (parent, store) = (Arc::new(IdleParent), Arc::new(IdleStore));
    let config = MsiDeviceConfig::new("device", requester, parent, store);
    let device = MsiDevice::attach(&interrupts, config)?;
    let granted = device.allocate(Shape::Independent, VECTORS..=VECTORS)?;
    let request =
        |slot| device.request(slot, "vector", |context| _ = std::hint::black_box(context.cpu()));
    let handles: Vec<_> =
        granted.iter().map(|vector| request(vector.slot)).collect::<Result<_, _>>()?;
    Ok(Probe::new(NAME, floors::DISPATCH, move || {
        let _attached = &device;
        let start = Instant::now();
        for handle in handles.iter().cycle().take(REPEATS as usize) {
            if interrupts.dispatch(Cpu::new(0), handle.hwirq()) != Dispatched::Handled {
                return Err("a vector has no handler".into());
            }
        }
        Ok(each(start.elapsed(), REPEATS))
    }))
}

struct IdleHost;

impl LocalCpu for IdleHost {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for IdleHost {
    fn may_wait(&self) -> bool {
        true
    }
}

impl Host for IdleHost {
    fn current_cpu(&self) -> Option<Cpu> {
        None
    }
}

/// A controller whose operations are no-ops.
struct IdleParent;

impl MsiParent for IdleParent {
    fn isolation(&self, _: RequesterId) -> Isolation {
        Isolation::NotIsolated(NotIsolated::NoController)
    }

    fn allocate(&self, _: &Attachment, request: &BlockRequest) -> Result<HwIrqBlock, MsiError> {
        Ok(HwIrqBlock::new(HwIrq::new(FIRST_LPI), request.count))
    }

    fn free(&self, _: &Attachment, _: HwIrqBlock) {}

    fn compose(&self, _: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        Ok(MsiMessage { address: 0, data: index.into() })
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let first = block.hwirq(index).unwrap_or(HwIrq::new(FIRST_LPI));
        Ok(Move { first, count: NonZeroU16::MIN, message: None, from: to, to })
    }

    fn end_move(&self, _: Move, _: MoveOutcome) -> Result<(), MsiError> {
        Ok(())
    }

    fn mask(&self, _: HwIrq) {}
    fn unmask(&self, _: HwIrq) {}
    fn set_pending(&self, _: HwIrq, _: Pending) {}

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "  {hwirq}")
    }
}

struct IdleStore;
struct IdleUpdate;

impl StoreUpdate for IdleUpdate {
    fn write(&mut self, _: u16, _: MsiMessage) {}
    fn mask(&mut self, _: u16) {}
    fn unmask(&mut self, _: u16) {}
}

impl MessageStore for IdleStore {
    fn slots(&self) -> u16 {
        VECTORS
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Never)
    }

    fn masking(&self) -> Masking {
        Masking::None
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        change(&mut IdleUpdate);
        Ok(())
    }

    fn set_enabled(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }
}
