//! Measures how long operations on a virtual GIC take from the guest's point of view, in virtual
//! nanoseconds. With `-icount shift=0`, QEMU counts each instruction as one nanosecond, so the
//! result is the number of instructions of guest and hypervisor together.
//!
//! Interrupts stay masked. The image acknowledges and ends interrupts through its CPU interface
//! directly, so that the cost does not include exception vectors or an interrupt core.
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
use gic_arch::its::{COMMAND_BYTES, CollectionId, Command, RawCommand};
use gic_arch::{IntId, Lpi, SgiId, gicd};
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

/// Number of measured repetitions. An earlier one, which includes one-time work, is not measured.
const TURNS: u64 = 200;
/// Number of times that the other CPU is woken, and its sleep before each wake-up in milliseconds.
const NAPS: u64 = 12;
const NAP: u64 = 3;
const IPI: SgiId = SgiId::new(1).expect("16 SGIs exist");
const OTHER: Cpu = Cpu::new(1);
/// The virtual timer's PPI (DEN 0094).
const VIRTUAL_TIMER: IntId = IntId::ppi(11).expect("16 PPIs exist");
/// Special INTID "no pending interrupt" (IHI 0069).
const NONE: u64 = 1023;
/// DeviceIDs of devices that do not exist on any machine used here.
const DEVICE: DeviceId = DeviceId::new(0xfff8);
const LARGE_DEVICE: DeviceId = DeviceId::new(0xfff0);
/// Number of events of the large device.
const LPIS: NonZeroU16 = NonZeroU16::new(1024).expect("the number is not zero");
const PSCI_VERSION: u64 = 0x8400_0000;
/// Call of our hypervisor that returns the guest's number of exits (`el2-vm`, `traps.rs`).
const EXITS: u64 = 0x8600_0000;

static IRQCHIP: Once<Irqchip<Kernel>> = Once::new();
/// Number of interrupts that were acknowledged, IPIs and LPIs.
static TAKEN: AtomicU64 = AtomicU64::new(0);
static READY: AtomicU64 = AtomicU64::new(0);
/// Value of the counter at the start of the device's handler.
static HANDLED: AtomicU64 = AtomicU64::new(0);

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `main` is called only once.
    let around = unsafe { start::start(boot) };
    let description = gic_firmware::devicetree::parse(around.devicetree)
        .expect("the devicetree could not be parsed");
    let options = Options::default().with_max_cpus(cpu::MAX_CPUS);
    let irqchip = Irqchip::with(Arc::new(Kernel), Arc::new(Kernel), description, &options);
    let irqchip =
        IRQCHIP.call_once(|| irqchip.expect("the interrupt controllers could not be brought up"));
    bring_up_cpu();
    turn_on_other();
    measure("hypercall", call_hypervisor);
    measure("register", read_register_of(&distributor()));
    measure("eoi", end_nothing);
    measure("ipi", send_ipi);
    // The driver posts all commands for the device here, before `measure_commands` uses the queue.
    // The device is never dropped, because its driver would then overwrite the commands of
    // `measure_commands`.
    let edu = Edu::find(irqchip, handle_message);
    if let Some(edu) = &edu {
        measure_spans("msi", || receive_message(edu));
        edu.move_to(OTHER);
        measure("wake", || send_message(edu));
        let mut cpus = [Cpu::new(0), OTHER].into_iter().cycle();
        measure("move", || cpus.next().into_iter().for_each(|cpu| edu.move_to(cpu)));
    }
    if let Some(its) = its(irqchip) {
        measure_commands(&its);
    }
    enable_timer();
    measure_spans("timer", take_timer);
    (0..NAPS).for_each(|_| wake_late());
    println!("{}", Fact::from(MicrobenchFact::Woken { times: NAPS }));
    power::system_off()
}

/// Measures an operation from its start to its end.
fn measure(name: &'static str, mut operation: impl FnMut()) {
    operation();
    let exits = begin(name);
    let start = cpu::ticks();
    for _ in 0..TURNS {
        operation();
    }
    report(name, cpu::ticks() - start, exits);
}

/// Measures the part of an operation whose ticks `operation` returns.
fn measure_spans(name: &'static str, mut operation: impl FnMut() -> u64) {
    operation();
    let exits = begin(name);
    report(name, (0..TURNS).map(|_| operation()).sum(), exits);
}

/// Announces the repetitions. Returns the number of exits so far.
fn begin(name: &'static str) -> u64 {
    let exits = call(EXITS);
    println!("{}", Fact::from(MicrobenchFact::Measures { operation: name.into() }));
    exits
}

/// Prints the average cost, given the ticks of all repetitions and the number of exits before them.
fn report(name: &'static str, ticks: u64, before: u64) {
    let nanoseconds = ticks * 1_000_000 / cpu::ticks_per_millisecond() / TURNS;
    println!("{}", Fact::from(MicrobenchFact::Cost { operation: name.into(), nanoseconds }));
    // A hypervisor that does not count exits always returns the same value.
    let exits = call(EXITS) - before;
    if exits > 0 {
        println!("{}", Fact::from(MicrobenchFact::Exits { operation: name.into(), exits }));
    }
}

fn call_hypervisor() {
    call(PSCI_VERSION);
}

fn call(function: u64) -> u64 {
    let result;
    // SAFETY: the calls have no effect; they may change the registers that SMCCC allows.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") function => result,
            clobber_abi("C"),
            options(nomem, nostack),
        );
    }
    result
}

fn distributor() -> RawMmio {
    frame(0x0800_0000, gicd::FRAME_SIZE)
}

fn frame(base: u64, bytes: u64) -> RawMmio {
    Kernel.map(PhysicalRegion { base, bytes }).expect("the GIC's frame could not be mapped")
}

fn read_register_of(distributor: &RawMmio) -> impl FnMut() {
    move || {
        core::hint::black_box(distributor.read32(gicd::IIDR.offset()));
    }
}

/// Writes a special INTID to `ICC_EOIR1_EL1`, which ignores it (IHI 0069 §12.2).
fn end_nothing() {
    // SAFETY: the write has no effect.
    unsafe { asm!("msr icc_eoir1_el1, {}", in(reg) NONE, options(nostack, preserves_flags)) };
}

/// Sends an IPI to the other CPU, which waits in WFI, and waits until that CPU has acknowledged it.
fn send_ipi() {
    let before = TAKEN.load(SeqCst);
    let other = gic().affinity(OTHER).expect("the machine has no second CPU");
    interface().send(IPI, other).expect("an SGI cannot reach the other CPU");
    while TAKEN.load(SeqCst) == before {
        yield_now();
    }
}

fn yield_now() {
    // SAFETY: the instruction is only a hint, which makes QEMU run the other CPU.
    unsafe { asm!("yield", options(nomem, nostack)) };
}

/// Sends the device's message to the other CPU, which waits in WFI, and waits until that CPU has
/// acknowledged it. Nothing else wakes that CPU.
fn send_message(edu: &Edu) {
    let before = TAKEN.load(SeqCst);
    edu.fire();
    while TAKEN.load(SeqCst) == before {
        yield_now();
    }
}

/// Wakes the other CPU after a period without interrupts. A hypervisor may move the guest during
/// this time. The registers of this CPU must keep their values in the meantime.
fn wake_late() {
    let end = cpu::ticks() + NAP * cpu::ticks_per_millisecond();
    let here = gic().affinity(Cpu::new(0)).expect("the GIC knows the first CPU");
    vectors::outlast(PSCI_VERSION, Sgi::to(IPI.get(), here), end);
    take();
    send_ipi();
}

/// Measures an LPI from the INT command until this CPU has acknowledged it, and the part of an
/// INVALL command that each of [`LPIS`] LPIs takes. The driver maps the events, and must not post
/// any further command.
fn measure_commands(its: &Arc<Its<Kernel>>) {
    let map = |device, events: NonZeroU16| {
        let device =
            its.attach(device, events.get().into()).expect("a device could not be attached");
        let events = its.map_events(&device, EventRequest::new(events, Cpu::new(0)));
        events.expect("LPIs could not be allocated").first()
    };
    let lpi = Lpi::try_from(map(DEVICE, NonZeroU16::MIN).get()).expect("an ITS maps to LPIs");
    map(LARGE_DEVICE, LPIS);
    let (device, event, _) = its.event_of(lpi).expect("the event was mapped above");
    // SAFETY: the driver is idle from now on, because only `measure` runs.
    let mut queue = unsafe { CommandQueue::taken_from(its) };
    measure("lpi", || {
        let before = TAKEN.load(SeqCst);
        queue.run(Command::Int { device, event });
        while TAKEN.load(SeqCst) == before {
            take();
        }
    });
    measure_spans("invall", || {
        let start = cpu::ticks();
        queue.run(Command::Invall { collection: CollectionId::new(0) });
        (cpu::ticks() - start) / u64::from(LPIS.get())
    });
}

/// An ITS command queue without a driver's bookkeeping. Posts one command at a time, as the
/// micro-benchmark of kvm-unit-tests does.
struct CommandQueue {
    registers: RawMmio,
    ring: *mut RawCommand,
    slots: u16,
    next: u16,
}

impl CommandQueue {
    /// # Safety
    /// The driver must not post commands while this queue is in use.
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
        // SAFETY: the pointer is to a slot of the ring, which has no other writer (see
        // `taken_from`).
        unsafe { self.ring.add(self.next.into()).write_volatile(command.encode()) };
        cpu::publish_stores();
        self.next = (self.next + 1) % self.slots;
        let end = Cwriter::new().with_slot(self.next);
        self.registers.write64(gits::CWRITER.offset(), end.into());
        while Creadr::from(self.registers.read64(gits::CREADR.offset())).slot() != self.next {}
    }
}

/// Returns the ticks from a device's message to the start of its interrupt handler.
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

fn enable_timer() {
    let redistributor = gic()
        .redistributor_frames(GicPlatform::cpu(&Kernel))
        .expect("this CPU's redistributor was found before");
    redistributor.interrupt(VIRTUAL_TIMER).expect("the timer's interrupt is a PPI").enable();
}

/// Returns the ticks from the virtual timer's deadline to the acknowledgment of its interrupt.
fn take_timer() -> u64 {
    let interface = interface();
    let deadline = cpu::ticks() + cpu::ticks_per_millisecond() / 10;
    cpu::start_virtual_timer_at(deadline);
    loop {
        if let Some(interrupt) = interface.acknowledge() {
            let taken = cpu::ticks();
            cpu::stop_virtual_timer();
            interface.end(interrupt);
            return taken - deadline;
        }
    }
}

fn its(irqchip: &Irqchip<Kernel>) -> Option<Arc<Its<Kernel>>> {
    irqchip.controllers().find_map(|(_, driver)| match driver {
        MsiController::Its(its) => Some(its.clone()),
        _ => None,
    })
}

/// Acknowledges and ends all interrupts that are pending at this CPU.
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
    irqchip().gic().v3().expect("the machine's GIC must be a GICv3")
}

fn irqchip() -> &'static Irqchip<Kernel> {
    IRQCHIP.get().expect("`main` brings up the controllers first")
}

fn bring_up_cpu() {
    let brought_up = irqchip().cpu_on(GicPlatform::cpu(&Kernel), &registers(), |_| ());
    brought_up.expect("the CPU could not be turned on");
}

/// Starts the other CPU. That CPU handles IPIs and the device's messages forever.
fn turn_on_other() {
    let mut cpus = irqchip().description().enabled_cpus();
    let other = cpus.nth(1).expect("the machine has no second CPU");
    let work = || {
        bring_up_cpu();
        let redistributor = gic()
            .redistributor_frames(OTHER)
            .expect("the other CPU's redistributor was found before");
        redistributor.interrupt(IPI.intid()).expect("the IPI is an SGI").enable();
        READY.store(1, SeqCst);
        loop {
            cpu::wait_for_interrupt();
            take();
        }
    };
    let mpidr = other.affinity.value.mpidr();
    power::cpu_on(1, mpidr, CpuStack::new(), work).expect("the other CPU could not be turned on");
    assert!(power::is_on(mpidr), "a vCPU must be on as soon as CPU_ON returns");
    while READY.load(SeqCst) == 0 {
        core::hint::spin_loop();
    }
}
