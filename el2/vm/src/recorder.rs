//! Counts of exits and of acknowledged interrupts by reason, if the option `stats` is set.
//! Otherwise, the only cost is testing a flag at each exit.
//!
//! An exit lasts from the vector to the next entry, or until the vCPU waits or leaves its CPU. The
//! longest exit bounds how long the guest's other interrupts (and other guests) have to wait.

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use doorbell_facts::{Fact, HypervisorFact};
use el2_cpu::Vector;
use el2_cpu::syndrome::Trap;
use gic_arch::ich::{ListRegister, ListRegisterState};
use gic_arch::{IntId, IntIdClass};
use image_rt::lock::IrqMutex;
use image_rt::{cpu, println};
use vgic::VirtualInterface;

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Enables the counts. Must be called before the guests run.
pub(crate) fn enable() {
    IS_ON.store(true, Relaxed);
}

/// Reason for an exit, or class of an interrupt that the guest acknowledged.
type Reason = &'static str;

/// Counts of a guest's exits.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    total: AtomicU64,
    by_reason: IrqMutex<BTreeMap<Reason, Count>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    times: u64,
    /// Duration of the longest exit in counter ticks.
    longest: u64,
}

impl Exits {
    /// Returns the number of exits so far, or zero if they aren't counted.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    /// Prints the counts, if there are any.
    pub(crate) fn report(&self, guest: usize) {
        self.by_reason.with(|counts| {
            for (&reason, &Count { times, longest }) in &*counts {
                let longest = longest * 1_000_000 / cpu::ticks_per_millisecond();
                let reason = reason.into();
                let count = HypervisorFact::Count { guest, reason, times, longest };
                println!("{}", Fact::from(count));
            }
        });
    }

    fn change(&self, reason: Reason, change: impl FnOnce(&mut Count)) {
        self.by_reason.with(|counts| change(counts.entry(reason).or_default()));
    }
}

/// Recorder of one vCPU while it is loaded on a CPU.
pub(crate) struct Recorder<'a> {
    exits: &'a Exits,
    is_on: bool,
    /// Current work at EL2 and the time at which it started.
    since: Option<(Reason, u64)>,
}

impl<'a> Recorder<'a> {
    /// Creates a recorder for a vCPU that has just been loaded.
    pub(crate) fn new(exits: &'a Exits) -> Self {
        let mut recorder = Self { exits, is_on: IS_ON.load(Relaxed), since: None };
        recorder.goes_on("load");
        recorder
    }

    /// Returns `true` if anything is recorded.
    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Records that the vCPU enters its guest, waits or leaves the CPU.
    #[inline]
    pub(crate) fn goes(&mut self) {
        if self.is_on {
            self.end();
        }
    }

    /// Records that the vCPU continues at EL2 for this reason.
    #[inline]
    pub(crate) fn goes_on(&mut self, why: Reason) {
        if self.is_on {
            self.begin(why);
        }
    }

    /// Records that the vCPU has left its guest.
    #[inline]
    pub(crate) fn exited(&mut self, vector: Vector) {
        if self.is_on {
            self.exit(vector);
        }
    }

    /// Records the interrupts that the guest acknowledged: they are no longer pending in the list
    /// registers.
    #[inline]
    pub(crate) fn left(&self, loaded: &VirtualInterface, left: &VirtualInterface) {
        if self.is_on {
            self.record_left(loaded, left);
        }
    }

    /// Returns a copy for [`listed_again`](Self::listed_again), if anything is recorded.
    #[inline]
    pub(crate) fn copy(&self, interface: &VirtualInterface) -> Option<VirtualInterface> {
        self.is_on.then_some(*interface)
    }

    /// Records that the list registers, which the hardware had emptied, were folded and filled in
    /// guest mode. If `is_done` is `false`, they may instead be unchanged: the exit then folds
    /// them.
    #[cold]
    pub(crate) fn listed_again(
        &self,
        before: &VirtualInterface,
        now: &VirtualInterface,
        is_done: bool,
    ) {
        if is_done || now.list != before.list {
            self.left(before, &VirtualInterface::empty());
        }
    }

    #[cold]
    fn begin(&mut self, reason: Reason) {
        self.since = Some((reason, cpu::ticks()));
        self.exits.change(reason, |count| count.times += 1);
    }

    #[cold]
    fn end(&mut self) {
        if let Some((reason, since)) = self.since.take() {
            let ticks = cpu::ticks() - since;
            self.exits.change(reason, |count| count.longest = count.longest.max(ticks));
        }
    }

    #[cold]
    fn exit(&mut self, vector: Vector) {
        self.exits.total.fetch_add(1, Relaxed);
        self.begin(match vector {
            Vector::Interrupt => "interrupt",
            Vector::SystemError => "SError",
            Vector::Synchronous => name(Trap::of_last_exit()),
        });
    }

    #[cold]
    fn record_left(&self, loaded: &VirtualInterface, left: &VirtualInterface) {
        for (loaded, left) in loaded.list.iter().zip(&left.list) {
            if is_pending(*loaded) && !is_pending(*left) {
                let taken = taken(IntId::new(loaded.virtual_intid()));
                self.exits.change(taken, |count| count.times += 1);
            }
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.goes();
    }
}

fn name(trap: Trap) -> Reason {
    match trap {
        Trap::WaitForInterrupt => "WFI",
        Trap::HypervisorCall => "HVC",
        Trap::SecureMonitorCall => "SMC",
        Trap::SystemRegister(_) => "system register",
        Trap::Device(access) if access.is_write => "device write",
        Trap::Device(_) => "device read",
        Trap::Undescribed(_) => "undescribed access",
        Trap::CacheMaintenance => "cache maintenance",
        Trap::Abort { .. } => "abort",
        Trap::Fetch { .. } => "fetch",
        Trap::Undefined => "undefined instruction",
    }
}

fn is_pending(register: ListRegister) -> bool {
    use ListRegisterState::{Pending, PendingActive};
    matches!(register.state(), Pending | PendingActive)
}

fn taken(intid: IntId) -> Reason {
    match intid.class() {
        IntIdClass::Sgi => "SGI taken",
        IntIdClass::Ppi | IntIdClass::ExtendedPpi => "PPI taken",
        IntIdClass::Lpi => "LPI taken",
        _ => "SPI taken",
    }
}
