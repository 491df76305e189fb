//! A record of exits and of the interrupts that guests take: counted by reason (`stats`), and
//! printed as they happen (`trace`). Without these words each exit costs the test of a flag.
//!
//! An exit takes from the vector to the next entry, or until the vCPU waits or leaves its CPU. The
//! guest's other interrupts, and other guests, wait that long at most.

use crate::context::Context;
use crate::guest::{Guest, UART, guests};
use crate::syndrome::{DeviceAccess, RegisterAccess, Trap};
use crate::vectors::Vector;
use alloc::collections::BTreeMap;
use core::fmt::{self, Display, Formatter};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use gic_arch::ich::{ListRegister, ListRegisterState};
use gic_arch::{IntId, IntIdClass};
use image_rt::lock::IrqMutex;
use image_rt::{cpu, print, println, read_register};
use msi_types::Cpu;
use vgic::{Block, VirtualInterface};

static COUNTS: AtomicBool = AtomicBool::new(false);
static TRACES: AtomicBool = AtomicBool::new(false);

/// Records from now on. Before the guests run.
pub(crate) fn record(counts: bool, traces: bool) {
    COUNTS.store(counts, Relaxed);
    TRACES.store(traces, Relaxed);
}

/// Prints what was counted.
pub(crate) fn report() {
    for guest in guests().iter().filter(|_| COUNTS.load(Relaxed)) {
        guest.exits.report(guest.number);
    }
}

/// A physical interrupt was acknowledged.
#[inline]
pub(crate) fn acknowledged(intid: IntId) {
    if TRACES.load(Relaxed) {
        println!("trace - {} CPU {}: takes {intid}", cpu::ticks(), cpu::current());
    }
}

/// The counts of a guest, by reason.
#[derive(Debug, Default)]
pub(crate) struct Exits(IrqMutex<BTreeMap<Reason, Count>>);

/// The reason for an exit, or the class of an interrupt that the guest has taken.
type Reason = (&'static str, &'static str);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    times: u64,
    /// Counter ticks of the longest one.
    longest: u64,
}

impl Exits {
    /// Counts, and traces meanwhile: what is reported has been traced.
    fn count(&self, reason: Reason, trace: impl FnOnce()) {
        self.0.with(|counts| {
            counts.entry(reason).or_default().times += 1;
            trace();
        });
    }

    fn took(&self, reason: Reason, ticks: u64) {
        self.0.with(|counts| {
            let count = counts.entry(reason).or_default();
            count.longest = count.longest.max(ticks);
        });
    }

    fn report(&self, guest: usize) {
        let nanoseconds = |ticks: u64| ticks * 1_000_000 / cpu::ticks_per_millisecond();
        self.0.with(|counts| {
            for ((what, how), Count { times, longest }) in &*counts {
                print!("stats - guest {guest}: {what}{how}: {times} times");
                match nanoseconds(*longest) {
                    0 => println!(),
                    longest => println!(", at most {longest} ns"),
                }
            }
            let longest = counts.iter().max_by_key(|(_, count)| count.longest);
            if let Some(((what, how), Count { longest, .. })) = longest {
                let longest = nanoseconds(*longest);
                println!("stats - guest {guest}: the longest exit: {longest} ns by {what}{how}");
            }
        });
    }
}

/// Records what a vCPU does as long as a CPU has it.
pub(crate) struct Recorder<'a> {
    guest: &'a Guest,
    cpu: Cpu,
    is_on: bool,
    /// The work at EL2 now, and the time of its start.
    since: Option<(Reason, u64)>,
}

impl<'a> Recorder<'a> {
    /// For a vCPU that was loaded.
    pub(crate) fn new(guest: &'a Guest, cpu: Cpu) -> Self {
        let is_on = COUNTS.load(Relaxed) || TRACES.load(Relaxed);
        let mut recorder = Self { guest, cpu, is_on, since: None };
        if is_on {
            recorder.begin(("load", ""), format_args!("loaded by CPU {}", cpu::current()));
        }
        recorder
    }

    /// The list registers are loaded.
    #[inline]
    pub(crate) fn filled(&self, interface: &VirtualInterface) {
        if self.is_on {
            self.inject(interface);
        }
    }

    /// The vCPU enters its guest, waits, or leaves the CPU.
    #[inline]
    pub(crate) fn goes(&mut self) {
        if self.is_on {
            self.end();
        }
    }

    /// The vCPU goes on at EL2, for this reason.
    #[inline]
    pub(crate) fn goes_on(&mut self, why: &'static str) {
        if self.is_on {
            self.begin((why, ""), format_args!("goes on by {why}"));
        }
    }

    /// The vCPU has left its guest.
    #[inline]
    pub(crate) fn exited(&mut self, vector: Vector, context: &Context) {
        if self.is_on {
            self.exit(vector, context);
        }
    }

    /// The guest's part of the list registers: it has acknowledged what is not pending any more.
    #[inline]
    pub(crate) fn left(&self, loaded: &VirtualInterface, left: &VirtualInterface) {
        if self.is_on {
            self.count_taken(loaded, left);
        }
    }

    fn begin(&mut self, reason: Reason, what: fmt::Arguments<'_>) {
        self.since = Some((reason, cpu::ticks()));
        self.guest.exits.count(reason, || self.trace(what));
    }

    #[cold]
    fn end(&mut self) {
        if let Some((reason, since)) = self.since.take() {
            self.guest.exits.took(reason, cpu::ticks() - since);
        }
    }

    #[cold]
    fn exit(&mut self, vector: Vector, context: &Context) {
        match vector {
            Vector::Interrupt => self.begin(("interrupt", ""), format_args!("exits by interrupt")),
            Vector::SystemError => self.begin(("SError", ""), format_args!("exits by SError")),
            Vector::Synchronous => {
                let (esr, far) = (read_register!("esr_el2"), read_register!("far_el2"));
                let trap = Trap::decode(esr, far, read_register!("hpfar_el2"));
                let reason @ (what, how) = self.reason(trap);
                let detail = Detail(trap, context);
                self.begin(reason, format_args!("exits by {what}{how}{detail}"));
            }
        }
    }

    #[cold]
    fn count_taken(&self, loaded: &VirtualInterface, left: &VirtualInterface) {
        for (loaded, left) in loaded.list.iter().zip(&left.list) {
            if is_pending(*loaded) && !is_pending(*left) {
                let intid = IntId::new(loaded.virtual_intid());
                let trace = || self.trace(format_args!("took {intid}"));
                self.guest.exits.count((class(intid), " taken"), trace);
            }
        }
    }

    #[cold]
    fn inject(&self, interface: &VirtualInterface) {
        for register in interface.list.iter().filter(|register| is_pending(**register)) {
            self.trace(format_args!("injects {}", IntId::new(register.virtual_intid())));
        }
    }

    fn trace(&self, what: fmt::Arguments<'_>) {
        if TRACES.load(Relaxed) {
            let (guest, cpu) = (self.guest.number, self.cpu.get());
            println!("trace - {} guest {guest} vCPU {cpu}: {what}", cpu::ticks());
        }
    }

    fn reason(&self, trap: Trap) -> Reason {
        match trap {
            Trap::WaitForInterrupt => ("WFI", ""),
            Trap::HypervisorCall => ("HVC", ""),
            Trap::SecureMonitorCall => ("SMC", ""),
            Trap::SystemRegister(access) => ("system register", direction(!access.is_read)),
            Trap::Device(access) => (self.device(access.address), direction(access.is_write)),
            Trap::UndescribedAccess { .. } => ("undescribed access", ""),
            Trap::Fetch { .. } => ("fetch", ""),
            Trap::Undefined => ("undefined instruction", ""),
        }
    }

    /// The device at an address.
    fn device(&self, address: u64) -> &'static str {
        let mut regions = self.guest.vgic().regions().iter();
        let block = regions.find(|region| region.addresses.contains(&address));
        match block.map(|region| region.block) {
            Some(Block::Distributor) => "distributor",
            Some(Block::Redistributors(_)) => "redistributor",
            Some(Block::Its(_)) => "ITS",
            Some(Block::MbiAlias) => "alias of the distributor",
            Some(Block::V2m(_)) => "GICv2m frame",
            None if UART.contains(&address) => "UART",
            None if self.guest.pci.is_some() => "PCI",
            None => "no device",
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.goes();
    }
}

fn direction(is_write: bool) -> &'static str {
    if is_write { " write" } else { " read" }
}

fn is_pending(register: ListRegister) -> bool {
    use ListRegisterState::{Pending, PendingActive};
    matches!(register.state(), Pending | PendingActive)
}

fn class(intid: IntId) -> &'static str {
    match intid.class() {
        IntIdClass::Sgi => "SGI",
        IntIdClass::Ppi | IntIdClass::ExtendedPpi => "PPI",
        IntIdClass::Lpi => "LPI",
        _ => "SPI",
    }
}

/// Operands of what trapped.
struct Detail<'a>(Trap, &'a Context);

impl Display for Detail<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(trap, context) = self;
        match *trap {
            Trap::HypervisorCall | Trap::SecureMonitorCall => {
                write!(f, " {:#x}", context.register(0))
            }
            Trap::SystemRegister(RegisterAccess { encoding, register, is_read }) => {
                write!(f, " {:#06x}", encoding.packed())?;
                if is_read { Ok(()) } else { write!(f, " = {:#x}", context.register(register)) }
            }
            Trap::Device(DeviceAccess { address, width, register, is_write, .. }) => {
                write!(f, " {address:#x}, {} bytes", width.bytes())?;
                if is_write { write!(f, " = {:#x}", context.register(register)) } else { Ok(()) }
            }
            Trap::UndescribedAccess { address } | Trap::Fetch { address } => {
                write!(f, " {address:#x}")
            }
            Trap::WaitForInterrupt | Trap::Undefined => Ok(()),
        }
    }
}
