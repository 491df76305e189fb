//! The cost of a virtual GIC's operations, as a guest sees it, in virtual nanoseconds. QEMU counts
//! an instruction as one with `-icount shift=0`: then it is the instructions of guest and
//! hypervisor together.
//!
//! Interrupts stay masked. The image acknowledges and ends them by its CPU interface alone, so that
//! neither vectors nor an interrupt core of its own are counted.
#![no_std]
#![no_main]

extern crate alloc;

mod edu;
mod vectors;

use alloc::sync::Arc;
use core::arch::asm;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use doorbell_facts::{Fact, MicrobenchFact};
use edu::Edu;
use gic_arch::gits::{self, Cbaser, Creadr, Cwriter};
use gic_arch::icc::Sgi;
use gic_arch::its::{COMMAND_BYTES, Command, RawCommand};
use gic_arch::{Lpi, SgiId, gicd};
use gic_bringup::{Irqchip, MsiController, Options};
use gic_driver::its::EventRequest;
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{CpuInterface, Gic, GicPlatform, Its, Mmio, PhysicalRegion, Platform, RawMmio};
use image_rt::platform::{Kernel, registers};
use image_rt::power::{self, CpuStack};
use image_rt::{Boot, cpu, println, start};
use msi_types::{Cpu, DeviceId};
use spin::Once;

image_rt::image!(main);

/// Times that an operation is done, after once for what is done only once.
const TURNS: u64 = 200;
/// Times that the other CPU is woken after so many milliseconds of sleep.
const NAPS: u64 = 12;
const NAP: u64 = 3;
const IPI: SgiId = SgiId::new(1).expect("there are 16");
const OTHER: Cpu = Cpu::new(1);
/// A device that no machine here has.
const DEVICE: DeviceId = DeviceId::new(0xfff8);
const PSCI_VERSION: u64 = 0x8400_0000;

static IRQCHIP: Once<Irqchip<Kernel>> = Once::new();
/// Interrupts that were taken, of either kind.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static READY: AtomicU64 = AtomicU64::new(0);
/// The counter, as the device's handler has begun.
static HANDLED: AtomicU64 = AtomicU64::new(0);

fn main(boot: Boot) -> ! {
    // SAFETY: what the loader handed over, before anything else.
    let around = unsafe { start::start(boot) };
    let description = gic_firmware::devicetree::parse(around.devicetree).expect("a description");
    let options = Options::default().with_max_cpus(cpu::MAX_CPUS);
    let irqchip = Irqchip::with(Arc::new(Kernel), Arc::new(Kernel), description, &options);
    let irqchip = IRQCHIP.call_once(|| irqchip.expect("the interrupt controllers"));
    bring_up_cpu();
    turn_on_other();
    measure("hypercall", call_hypervisor);
    measure("register", read_register_of(&distributor()));
    measure("ipi", send_ipi);
    // The driver's last commands are those for the device.
    let edu = Edu::find(irqchip, handle_message);
    measure("lpi", send_lpi(irqchip));
    // The device is never dropped, because its driver would then post commands over those of
    // `send_lpi`.
    if let Some(edu) = &edu {
        measure_spans("msi", || receive_message(edu));
    }
    (0..NAPS).for_each(|_| wake_late());
    println!("{}", Fact::from(MicrobenchFact::Woken { times: NAPS }));
    power::system_off()
}

/// An operation, from its beginning to its end.
fn measure(name: &'static str, mut operation: impl FnMut()) {
    operation();
    println!("{}", Fact::from(MicrobenchFact::Measures { operation: name.into() }));
    let start = cpu::ticks();
    for _ in 0..TURNS {
        operation();
    }
    report(name, cpu::ticks() - start);
}

/// The part of an operation whose ticks it returns.
fn measure_spans(name: &'static str, mut operation: impl FnMut() -> u64) {
    operation();
    println!("{}", Fact::from(MicrobenchFact::Measures { operation: name.into() }));
    report(name, (0..TURNS).map(|_| operation()).sum());
}

/// The ticks of all turns.
fn report(name: &'static str, ticks: u64) {
    let nanoseconds = ticks * 1_000_000 / cpu::ticks_per_millisecond() / TURNS;
    println!("{}", Fact::from(MicrobenchFact::Cost { operation: name.into(), nanoseconds }));
}

fn call_hypervisor() {
    // SAFETY: the call has no effect; it may change what SMCCC lets it.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") PSCI_VERSION => _,
            clobber_abi("C"),
            options(nomem, nostack),
        );
    }
}

fn distributor() -> RawMmio {
    frame(0x0800_0000, gicd::FRAME_SIZE)
}

fn frame(base: u64, bytes: u64) -> RawMmio {
    Kernel.map(PhysicalRegion { base, bytes }).expect("a frame of the GIC")
}

fn read_register_of(distributor: &RawMmio) -> impl FnMut() {
    move || {
        core::hint::black_box(distributor.read32(gicd::IIDR.offset()));
    }
}

/// To the other CPU, which waits for it (WFI), and until that has taken it.
fn send_ipi() {
    let before = TAKEN.load(SeqCst);
    let other = gic().affinity(OTHER).expect("a second CPU");
    interface().send(IPI, other).expect("the other CPU");
    while TAKEN.load(SeqCst) == before {
        // SAFETY: a hint; QEMU runs the other CPU then.
        unsafe { asm!("yield", options(nomem, nostack)) };
    }
}

/// Wakes the other CPU after a while in which nothing interrupts it. A hypervisor may move the
/// guest meanwhile, which this CPU's registers outlast.
fn wake_late() {
    let end = cpu::ticks() + NAP * cpu::ticks_per_millisecond();
    let here = gic().affinity(Cpu::new(0)).expect("the first CPU");
    vectors::outlast(PSCI_VERSION, Sgi::to(IPI.get(), here), end);
    take();
    send_ipi();
}

/// By an INT command of the ITS, and until this CPU has taken it. The driver maps the event, and
/// posts nothing more.
fn send_lpi(irqchip: &'static Irqchip<Kernel>) -> impl FnMut() {
    let its = its(irqchip).expect("an ITS");
    let device = its.attach(DEVICE, 1).expect("a DeviceID");
    let events = its.map_events(&device, EventRequest::new(NonZeroU16::MIN, Cpu::new(0)));
    let lpi = Lpi::try_from(events.expect("an LPI").first().get()).expect("an LPI's number");
    let (device, event, _) = its.event_of(lpi).expect("it is mapped");
    // SAFETY: the driver is idle from now on: only `measure` runs.
    let mut queue = unsafe { CommandQueue::taken_from(&its) };
    move || {
        let before = TAKEN.load(SeqCst);
        queue.run(Command::Int { device, event });
        while TAKEN.load(SeqCst) == before {
            take();
        }
    }
}

/// The command queue of an ITS without a driver's accounting: one command at a time, as the
/// micro-benchmark of kvm-unit-tests posts it.
struct CommandQueue {
    registers: RawMmio,
    ring: *mut RawCommand,
    slots: u16,
    next: u16,
}

impl CommandQueue {
    /// # Safety
    /// The driver posts nothing as long as this is in use.
    unsafe fn taken_from(its: &Its<Kernel>) -> Self {
        let registers = frame(its.base(), gits::SIZE);
        let ring = Cbaser::from(registers.read64(gits::CBASER.offset()));
        let next = Creadr::from(registers.read64(gits::CREADR.offset())).slot();
        let slots = (ring.bytes() / COMMAND_BYTES) as u16;
        let ring = core::ptr::with_exposed_provenance_mut(ring.address() as usize);
        Self { registers, ring, slots, next }
    }

    /// Posts a command, and waits until the ITS has read it.
    fn run(&mut self, command: Command) {
        // SAFETY: a slot of the ring, which nobody else writes (`taken_from`).
        unsafe { self.ring.add(self.next.into()).write_volatile(command.encode()) };
        cpu::publish_stores();
        self.next = (self.next + 1) % self.slots;
        let end = Cwriter::new().with_slot(self.next);
        self.registers.write64(gits::CWRITER.offset(), end.into());
        while Creadr::from(self.registers.read64(gits::CREADR.offset())).slot() != self.next {}
    }
}

/// Returns the ticks from a device's message to the handler of its interrupt.
fn receive_message(edu: &Edu) -> u64 {
    HANDLED.store(0, SeqCst);
    let start = cpu::ticks();
    edu.fire();
    while HANDLED.load(SeqCst) == 0 {
        irqchip().handle_irq(GicPlatform::cpu(&Kernel), &registers(), |_, _| ());
    }
    HANDLED.load(SeqCst) - start
}

fn handle_message() {
    HANDLED.store(cpu::ticks(), SeqCst);
}

fn its(irqchip: &Irqchip<Kernel>) -> Option<Arc<Its<Kernel>>> {
    irqchip.controllers().find_map(|(_, driver)| match driver {
        MsiController::Its(its) => Some(its.clone()),
        _ => None,
    })
}

/// Takes everything that is pending at this CPU.
fn take() {
    let interface = interface();
    while let Some(interrupt) = interface.acknowledge() {
        TAKEN.fetch_add(1, SeqCst);
        interface.end(interrupt);
    }
}

fn interface() -> CpuInterface<CpuRegisters> {
    CpuInterface::new(registers())
}

fn gic() -> &'static Gic<Kernel> {
    irqchip().gic().v3().expect("a GICv3")
}

fn irqchip() -> &'static Irqchip<Kernel> {
    IRQCHIP.get().expect("the controllers are brought up first")
}

fn bring_up_cpu() {
    let brought_up = irqchip().cpu_on(GicPlatform::cpu(&Kernel), &registers(), |_| ());
    brought_up.expect("the CPU's interface");
}

/// The other CPU takes IPIs for ever.
fn turn_on_other() {
    let mut cpus = irqchip().description().enabled_cpus();
    let other = cpus.nth(1).expect("a second CPU");
    let work = || {
        bring_up_cpu();
        let redistributor = gic().redistributor_frames(OTHER).expect("its redistributor");
        redistributor.interrupt(IPI.intid()).expect("an SGI").enable();
        READY.store(1, SeqCst);
        loop {
            cpu::wait_for_interrupt();
            take();
        }
    };
    let mpidr = other.affinity.value.mpidr();
    power::cpu_on(1, mpidr, CpuStack::new(), work).expect("CPU_ON");
    assert!(power::is_on(mpidr), "a vCPU that was turned on waits for a CPU, not for its power");
    while READY.load(SeqCst) == 0 {
        core::hint::spin_loop();
    }
}
