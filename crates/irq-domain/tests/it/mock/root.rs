//! The root controller's wired inputs.

use super::{assert_task, judge, lock};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A controller with wired inputs.
#[derive(Debug)]
pub(crate) struct Root {
    inputs: Range<u32>,
    pub(crate) lines: Mutex<BTreeMap<HwIrq, WiredLine>>,
    pub(crate) pending: Mutex<BTreeSet<HwIrq>>,
    /// Makes `set_trigger` fail.
    pub(crate) stuck: AtomicBool,
    /// Number of calls that masked a private interrupt.
    pub(crate) private_masks: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WiredLine {
    pub(crate) masked: bool,
    pub(crate) trigger: Option<Trigger>,
    pub(crate) target: Option<Cpu>,
}

impl Default for Root {
    /// Creates a controller with inputs 32 to 8999. A GIC has fewer inputs, but this range lets an
    /// input clash with a device's vector.
    fn default() -> Self {
        Self::with_inputs(32..9000)
    }
}

impl Root {
    pub(crate) fn with_inputs(inputs: Range<u32>) -> Self {
        Self {
            inputs,
            lines: Mutex::default(),
            pending: Mutex::default(),
            stuck: AtomicBool::new(false),
            private_masks: AtomicUsize::new(0),
        }
    }

    pub(crate) fn line(&self, hwirq: u32) -> Option<WiredLine> {
        lock(&self.lines).get(&HwIrq::new(hwirq)).copied()
    }

    fn change(&self, hwirq: HwIrq, change: impl FnOnce(&mut WiredLine)) {
        // Private vectors are not claimed.
        if hwirq.get() >= 32 {
            match lock(&self.lines).get_mut(&hwirq) {
                Some(line) => change(line),
                None => judge(false, "not claimed"),
            }
        }
    }
}

impl WiredParent for Root {
    fn claim(&self, first: HwIrq, _: NonZeroU16) -> Result<(), MsiError> {
        assert_task();
        let mut lines = lock(&self.lines);
        if !self.inputs.contains(&first.get()) {
            return Err(MsiError::UnknownVector(first));
        }
        if lines.contains_key(&first) {
            return Err(MsiError::InUse(first));
        }
        // The previous owner may have left the input unmasked.
        lines.insert(first, WiredLine { masked: false, trigger: None, target: None });
        Ok(())
    }

    fn release(&self, first: HwIrq, _: NonZeroU16) {
        assert_task();
        judge(lock(&self.lines).remove(&first).is_some(), "released twice");
    }

    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError> {
        assert_task();
        self.change(hwirq, |line| {
            assert!(line.masked, "the trigger changes while the input can fire");
            line.trigger = Some(trigger);
        });
        if self.stuck.load(Ordering::Relaxed) {
            Err(MsiError::UnknownVector(hwirq))
        } else {
            Ok(())
        }
    }

    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError> {
        assert_task();
        self.change(hwirq, |line| line.target = Some(cpu));
        Ok(())
    }

    fn mask(&self, hwirq: HwIrq) {
        if hwirq.get() < 32 {
            self.private_masks.fetch_add(1, Ordering::Relaxed);
        }
        self.change(hwirq, |line| line.masked = true);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.change(hwirq, |line| line.masked = false);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        let mut all = lock(&self.pending);
        match pending {
            Pending::Set => all.insert(hwirq),
            Pending::Clear => all.remove(&hwirq),
        };
    }

    fn is_pending(&self, hwirq: HwIrq) -> bool {
        lock(&self.pending).contains(&hwirq)
    }

    fn explain(&self, hwirq: HwIrq) -> Explanation {
        let masked = lock(&self.lines).get(&hwirq).is_some_and(|line| line.masked);
        if masked {
            return Explanation::stopped(Obstacle::Disabled { interrupt: hwirq });
        }
        Explanation::new().with_fact(Fact::Enabled(0xa0))
    }
}
