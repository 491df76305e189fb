//! Prints the faults that the model records when a guest misuses its GIC, and the guest's
//! instructions that the hypervisor refuses. Only the first fault of each kind appears on the
//! console, regardless of the number of vCPUs. For accesses without an answer, each page is a kind.

use crate::scheduler::{self, VcpuId};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use doorbell_facts::{Fact, HypervisorFact};
use image_rt::boot::RAM;
use image_rt::lock::IrqMutex;
use image_rt::{println, read_register};
use vgic::{EventLog, FaultReason};

/// Number of equal refusals in a row after which a vCPU makes no progress.
const NO_PROGRESS: u32 = 1_000;
/// Most pages of a guest that are named because no device answers there.
const MOST_PAGES: usize = 32;
/// Bit in [`Faults::refused`] of a guest that makes no progress.
const NO_PROGRESS_BIT: u32 = 31;

/// Faults that have been printed for a guest.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Kinds of faults of the GIC.
    printed: IrqMutex<Vec<FaultReason>>,
    /// Bitmap of [`Refused::bit`].
    refused: AtomicU32,
    /// Pages that have been named, at most [`MOST_PAGES`].
    pages: IrqMutex<Vec<u64>>,
    /// For each vCPU.
    repeats: Box<[IrqMutex<Repeats>]>,
}

/// An instruction of a guest that causes an exception in the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    pub(crate) kind: Kind,
    /// Guest physical address, virtual address of an abort, or zero.
    pub(crate) address: u64,
    /// A number whose meaning depends on the kind.
    pub(crate) detail: u64,
}

/// Kind of a refused instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A load or store that no device handles. The detail is its number of bytes.
    Access,
    /// A load or store that the syndrome does not describe, and that is not emulated. The detail is
    /// the instruction, or zero if it can't be read.
    Undescribed,
    /// A load or store that aborted during the walk of the guest's tables, or at a device.
    Abort,
    /// An instruction fetch from outside of the guest's RAM.
    Fetch,
    /// An access to an undefined system register. The detail is its encoding.
    Register,
    /// Any other undefined instruction.
    Instruction,
}

impl Refused {
    /// Returns the bit that stands for the kind. Each kind has two bits, the second for RAM that
    /// the guest does not own.
    fn bit(&self) -> u32 {
        2 * self.kind as u32 + u32::from(self.is_foreign_ram())
    }

    fn is_foreign_ram(&self) -> bool {
        self.kind != Kind::Abort && RAM.contains(&self.address)
    }

    fn describe(&self, ram: &Range<u64>) -> String {
        let Self { kind, address, detail } = self;
        let text = match kind {
            Kind::Access => format!("no device handles {detail} bytes at {address:#x}"),
            Kind::Undescribed => {
                format!("an access to {address:#x} is not emulated: instruction {detail:#010x}")
            }
            Kind::Abort => format!("an access to the virtual address {address:#x} aborted"),
            Kind::Fetch => format!("there are no instructions at {address:#x}"),
            Kind::Register => format!("the system register {detail:#06x} is undefined"),
            Kind::Instruction => "an instruction is undefined".into(),
        };
        if self.is_foreign_ram() {
            return format!("{text}; the guest's RAM is {:#x} to {:#x}", ram.start, ram.end - 1);
        }
        text
    }
}

/// Number of consecutive, equal refusals of a vCPU's instructions.
#[derive(Debug, Default)]
struct Repeats {
    pc: u64,
    bit: u32,
    times: u32,
    address: u64,
}

impl Repeats {
    /// Counts a refusal. Refusals of the same kind and PC are equal if their address is the same,
    /// or if the guest has not returned from the last one: a handler that aborts may do so at a new
    /// stack address each time.
    fn count(&mut self, pc: u64, refused: &Refused) -> u32 {
        let (bit, address) = (refused.bit(), refused.address);
        let is_same = (self.pc, self.bit) == (pc, bit)
            && (self.address == address || read_register!("elr_el1") == pc);
        let times = if is_same { self.times.saturating_add(1) } else { 1 };
        *self = Self { pc, bit, times, address };
        times
    }
}

impl Faults {
    pub(crate) fn new(vcpus: usize) -> Self {
        let repeats = (0..vcpus).map(|_| IrqMutex::new(Repeats::default())).collect();
        Self {
            printed: IrqMutex::new(Vec::new()),
            refused: AtomicU32::new(0),
            pages: IrqMutex::new(Vec::with_capacity(MOST_PAGES)),
            repeats,
        }
    }

    /// Prints the faults recorded since the last call, except those of kinds already printed.
    #[inline]
    pub(crate) fn print(&self, guest: usize, events: &EventLog) {
        events.drain(|fault| {
            let is_new = self.printed.with(|printed| {
                let is_new = !printed.contains(&fault.reason);
                printed.extend(is_new.then_some(fault.reason));
                is_new
            });
            if is_new {
                report(guest, fault.to_string());
            }
        });
    }

    /// Prints the first refusal of each kind, the first one of each page, and that the guest makes
    /// no progress.
    pub(crate) fn refuse(&self, (guest, ram): (usize, &Range<u64>), pc: u64, refused: Refused) {
        let Some(VcpuId { cpu, .. }) = scheduler::loaded() else { return };
        let Some(repeats) = self.repeats.get(cpu.index()) else { return };
        let place = || format!("vCPU {} at PC {pc:#x}", cpu.get());
        let is_access = matches!(refused.kind, Kind::Access | Kind::Undescribed);
        let named = if is_access {
            self.name_page(refused.address / 0x1000)
        } else {
            self.is_first(refused.bit()).then_some("")
        };
        if let Some(more) = named {
            report(guest, format!("{}: {}{more}", place(), refused.describe(ram)));
        }
        if repeats.with(|it| it.count(pc, &refused)) == NO_PROGRESS
            && self.is_first(NO_PROGRESS_BIT)
        {
            let what = refused.describe(ram);
            let times = format!("{}, {NO_PROGRESS} times in a row", place());
            report(guest, format!("guest {guest} makes no progress: {times}: {what}"));
        }
    }

    /// Records a page. Returns what to say about other pages, or `None` if this one isn't named.
    fn name_page(&self, page: u64) -> Option<&'static str> {
        self.pages.with(|pages| {
            let is_named = pages.len() < MOST_PAGES && !pages.contains(&page);
            pages.extend(is_named.then_some(page));
            let is_last = pages.len() == MOST_PAGES;
            is_named.then_some(if is_last { "; further pages are not named" } else { "" })
        })
    }

    fn is_first(&self, bit: u32) -> bool {
        self.refused.fetch_or(1 << bit, Relaxed) & 1 << bit == 0
    }
}

fn report(guest: usize, fault: String) {
    println!("{}", Fact::from(HypervisorFact::Fault { guest, fault: fault.into() }));
}
