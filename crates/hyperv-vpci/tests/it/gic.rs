//! A GIC's SPIs, shared by a driver and device models. The GIC panics on misuse.

use msi_types::{
    Cpu, Delivery, HwIrq, Level, Line, MsiError, Pending, SetLine, Trigger, WiredParent,
};
use std::num::NonZeroU16;
use std::sync::{Mutex, MutexGuard};

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Spi {
    pub(crate) claimed: bool,
    pub(crate) enabled: bool,
    pub(crate) pending: bool,
    pub(crate) active: bool,
    pub(crate) edge: bool,
    pub(crate) target: Option<Cpu>,
}

/// GIC with INTIDs 0 to 1019. INTIDs below `first` and from `end` on do not exist.
pub(crate) struct Gic {
    spis: Mutex<Vec<Spi>>,
    end: u32,
    online: u32,
}

impl Gic {
    pub(crate) fn new(end: u32, online: u32) -> Self {
        Self { spis: Mutex::new(vec![Spi::default(); 1020]), end, online }
    }

    pub(crate) fn spi(&self, intid: u32) -> Spi {
        self.lock()[intid as usize]
    }

    /// Returns the claimed INTIDs, in ascending order.
    pub(crate) fn claimed(&self) -> Vec<u32> {
        (0..1020).filter(|intid| self.spi(*intid).claimed).collect()
    }

    /// Acknowledges the next interrupt of a CPU, as a read of `ICC_IAR1_EL1` does.
    pub(crate) fn acknowledge(&self, cpu: u32) -> Option<u32> {
        let mut spis = self.lock();
        let taken = (32..1020).find(|intid| {
            let spi = spis[*intid as usize];
            spi.pending && spi.enabled && !spi.active && spi.target == Some(Cpu::new(cpu))
        })?;
        let spi = &mut spis[taken as usize];
        (spi.pending, spi.active) = (false, true);
        Some(taken)
    }

    /// Ends an interrupt, as a write of `ICC_EOIR1_EL1` does.
    pub(crate) fn end(&self, intid: u32) {
        self.lock()[intid as usize].active = false;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Spi>> {
        self.spis.lock().expect("no test panics while it holds the lock")
    }

    fn with(&self, hwirq: HwIrq, change: impl FnOnce(&mut Spi)) {
        let mut spis = self.lock();
        let spi = &mut spis[hwirq.index()];
        assert!(spi.claimed, "SPI {hwirq} is used without having been claimed");
        change(spi);
    }
}

impl WiredParent for Gic {
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError> {
        let mut spis = self.lock();
        let range = first.get()..first.get() + u32::from(count.get());
        for intid in range.clone() {
            if intid >= self.end {
                return Err(MsiError::UnknownVector(HwIrq::new(intid)));
            }
            if spis[intid as usize].claimed {
                return Err(MsiError::InUse(HwIrq::new(intid)));
            }
        }
        range.for_each(|intid| spis[intid as usize].claimed = true);
        Ok(())
    }

    fn release(&self, first: HwIrq, count: NonZeroU16) {
        for offset in 0..count.get() {
            self.with(HwIrq::new(first.get() + u32::from(offset)), |spi| {
                assert!(!spi.enabled && !spi.pending, "an SPI is released while it can fire");
                *spi = Spi::default();
            });
        }
    }

    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError> {
        self.with(hwirq, |spi| {
            assert!(!spi.enabled, "the trigger of SPI {hwirq} is changed while the SPI is enabled");
            spi.edge = trigger == Trigger::Edge;
        });
        Ok(())
    }

    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError> {
        if cpu.get() >= self.online {
            return Err(MsiError::NotReachable(cpu, "it is off"));
        }
        self.with(hwirq, |spi| spi.target = Some(cpu));
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        self.with(hwirq, |spi| spi.enabled = false);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.with(hwirq, |spi| {
            assert!(spi.edge && spi.target.is_some(), "SPI {hwirq} is enabled before its setup");
            spi.enabled = true;
        });
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.with(hwirq, |spi| spi.pending = pending == Pending::Set);
    }

    fn is_pending(&self, hwirq: HwIrq) -> bool {
        self.spi(hwirq.get()).pending
    }
}

impl SetLine for Gic {
    fn set_line(&self, line: Line, _: Level) -> Delivery {
        panic!("{line:?} has a level, but messages are edges");
    }

    fn pulse(&self, line: Line) -> Delivery {
        let Line::Spi(intid) = line else { panic!("{line:?} is not an SPI") };
        self.lock()[intid as usize].pending = true;
        Delivery::Pending
    }
}
