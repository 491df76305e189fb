//! A kernel that restarts itself twice, the way kexec starts another kernel. Nothing is reset: the
//! ITS and the redistributors continue to use the previous run's tables, in memory that now belongs
//! to the next run. Each run brings up the controllers and handles messages from its devices.
//!
//! Each run ends with messages pending at all CPUs. The second run ends in an interrupt handler,
//! like a kernel that crashes. Redistributors with virtual LPIs still have a resident vPE.
#![no_std]
#![no_main]

#[path = "../edu.rs"]
mod edu;

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::error::Error;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use doorbell_facts::{Fact, MinimalFact};
use edu::{ACKNOWLEDGE, EDU, RAISE};
use gic_arch::gicr::vlpi::{self, Vpendbaser, Vpropbaser};
use gic_arch::gicr::{FRAME_SIZE, VLPI_BASE};
use gic_bringup::{Irqchip, Options};
use gic_driver::{GicPlatform, MmioExt, PhysicalRegion, Platform, RawMmio, TableLayout};
use gic_firmware::devicetree;
use image_rt::pci::{self, Function, MappedRegion};
use image_rt::platform::{Kernel, registers};
use image_rt::power::{self, CpuStack};
use image_rt::start::{self, Started};
use image_rt::{Boot, cpu, exceptions, println, restart};
use irq_domain::pci::{FunctionStore, TableMemory};
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig};
use msi_types::Cpu;
use spin::Once;

image_rt::image!(main);

type Result<T> = core::result::Result<T, Box<dyn Error>>;

const PAGE_64K: u64 = 0x1_0000;
/// INTID bits of the virtual LPIs.
const VIRTUAL_ID_BITS: u8 = 14;
const LAST_LIFE: u64 = 2;

static IRQCHIP: Once<Irqchip<Kernel>> = Once::new();
static BOOT: Once<Boot> = Once::new();
/// Number of interrupts without a handler.
static STRAY: AtomicU64 = AtomicU64::new(0);
/// `true` if the next message must end this run.
static CRASHING: AtomicBool = AtomicBool::new(false);
/// Number of secondary CPUs that take interrupts.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static STOPPING: AtomicBool = AtomicBool::new(false);

/// A device with its registers and its vector.
struct Edu {
    registers: MappedRegion,
    _device: MsiDevice,
    handle: IrqHandle,
}

fn main(boot: Boot) -> ! {
    BOOT.call_once(|| boot);
    // SAFETY: `boot` is the value that the entry point received, and nothing uses RAM behind the
    // image yet.
    let started = unsafe { start::start(boot) };
    let life = restart::count();
    if let Err(error) = live(life, &started) {
        panic!("life {}: {error}", life + 1);
    }
    println!("{}", Fact::from(MinimalFact::Lived { lives: life + 1 }));
    power::system_off()
}

fn live(life: u64, started: &Started) -> Result<()> {
    let irqchip = bring_up(life, started.devicetree)?;
    let edus = find(irqchip)?;
    let cpus: Vec<Cpu> = irqchip.cpus().collect();
    for (edu, cpu) in edus.iter().zip(cpus.iter().copied().cycle()) {
        edu.handle.set_affinity(cpu)?;
        for round in 1..=3 {
            edu.registers.write32(RAISE, 1);
            expect(|| edu.handle.count() == round, || format!("message {round} at CPU {cpu}"))?;
        }
    }
    // Messages that the previous run left pending must not reach this run's handlers.
    expect(|| STRAY.load(Ordering::Relaxed) == 0, || "no other interrupt".into())?;
    if life == LAST_LIFE {
        return Ok(());
    }
    stop_others(irqchip, cpus.len())?;
    for frame in vlpi_frames(irqchip)? {
        make_resident(&frame)?;
    }
    CRASHING.store(life == LAST_LIFE - 1, Ordering::Relaxed);
    if !CRASHING.load(Ordering::Relaxed) {
        cpu::irq_save();
    }
    edus.iter().rev().for_each(|edu| edu.registers.write32(RAISE, 1));
    expect(|| !CRASHING.load(Ordering::Relaxed), || "the last message".into())?;
    start_again()
}

/// Brings up the controllers and every CPU.
fn bring_up(life: u64, blob: &[u8]) -> Result<&'static Irqchip<Kernel>> {
    let kernel = Arc::new(Kernel);
    let irqchip = IRQCHIP.call_once({
        let description = devicetree::parse(blob)?;
        let options = Options::bare_metal();
        let irqchip = Irqchip::with(kernel.clone(), kernel, description, &options)?;
        || irqchip
    });
    if let Some((_, why)) = irqchip.refused().next() {
        return Err(why.into());
    }
    for frame in vlpi_frames(irqchip)? {
        let resident = frame.read(vlpi::VPENDBASER).valid();
        if resident {
            return Err("a vPE of the previous life is resident".into());
        }
    }
    exceptions::set_irq_handler(take_interrupts);
    irqchip.cpu_on(Kernel.cpu(), &registers(), |_| ())?;
    cpu::irq_enable();
    for (number, node) in irqchip.description().enabled_cpus().enumerate().skip(1) {
        let affinity = node.affinity.value.mpidr();
        power::cpu_on(number, affinity, CpuStack::new(), run_other)
            .map_err(|error| format!("CPU {number} of life {}: {error:?}", life + 1))?;
        let running = || RUNNING.load(Ordering::Acquire) == number;
        expect(running, || format!("CPU {number}"))?;
    }
    Ok(irqchip)
}

/// Takes interrupts on a secondary CPU until `STOPPING` is set. Leaves the CPU's redistributor
/// enabled.
fn run_other() {
    let irqchip = IRQCHIP.get().expect("`bring_up` stores it before it starts CPUs");
    let online = irqchip.cpu_on(Kernel.cpu(), &registers(), |_| ());
    online.expect("this CPU could not be turned on");
    RUNNING.fetch_add(1, Ordering::AcqRel);
    cpu::irq_enable();
    while !STOPPING.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    cpu::irq_save();
    power::cpu_off();
}

fn stop_others(irqchip: &Irqchip<Kernel>, cpus: usize) -> Result<()> {
    STOPPING.store(true, Ordering::Release);
    let others = irqchip.description().enabled_cpus().take(cpus).skip(1);
    for node in others {
        let affinity = node.affinity.value.mpidr();
        expect(|| power::is_off(affinity), || format!("CPU {affinity:#x} off"))?;
    }
    Ok(())
}

fn take_interrupts() {
    let irqchip = IRQCHIP.get().expect("interrupts are unmasked after it is stored");
    irqchip.handle_irq(Kernel.cpu(), &registers(), |_, _| {
        STRAY.fetch_add(1, Ordering::Relaxed);
    });
}

fn find(irqchip: &Irqchip<Kernel>) -> Result<Vec<Edu>> {
    let description = irqchip.description();
    let host = description.hosts.first().ok_or("firmware describes no PCI")?;
    let functions = pci::enumerate(description, host);
    let edus = functions.iter().filter(|function| pci::ids(function) == EDU);
    edus.map(|function| Edu::new(irqchip, host, function)).collect()
}

impl Edu {
    fn new(
        irqchip: &Irqchip<Kernel>,
        host: &gic_firmware::PciHost,
        function: &Function,
    ) -> Result<Self> {
        let requester = function.requester();
        let (registers, FunctionStore { store, shape }) =
            (pci::bar(function, 0), pci::store(function)?);
        // Acknowledge the interrupt that the previous run didn't handle.
        registers.write32(ACKNOWLEDGE, 1);
        let parent = irqchip.pci_parent(host, requester)?;
        let config = MsiDeviceConfig::new("edu", requester.at_host(), parent, store);
        let device = MsiDevice::attach(irqchip.interrupts(), config)?;
        let vectors = device.allocate(shape, 1..=1)?;
        let slot = vectors.first().ok_or("no vector")?.slot;
        let handle = device.request(slot, "edu", move |_| {
            registers.write32(ACKNOWLEDGE, 1);
            if CRASHING.load(Ordering::Relaxed) {
                start_again();
            }
        })?;
        Ok(Self { registers, _device: device, handle })
    }
}

fn start_again() -> ! {
    let boot = *BOOT.get().expect("`main` stored it");
    // SAFETY: the other CPUs are off. Devices write nothing but their messages.
    unsafe { restart::again(boot) }
}

/// Returns the virtual LPI frames of redistributors that have them.
fn vlpi_frames(irqchip: &Irqchip<Kernel>) -> Result<Vec<RawMmio>> {
    let gic = irqchip.gic().v3().ok_or("no GICv3")?;
    let mut frames = Vec::new();
    for cpu in gic.cpus() {
        let redistributor = gic.redistributor_frames(cpu)?;
        if redistributor.typer().vlpis() {
            let base = redistributor.address() + u64::from(VLPI_BASE);
            let region = PhysicalRegion { base, bytes: FRAME_SIZE };
            frames.push(Kernel.map(region).ok_or("VLPI_base is not mapped")?);
        }
    }
    Ok(frames)
}

/// Makes a vPE without pending interrupts resident, as a hypervisor does.
fn make_resident(frame: &RawMmio) -> Result<()> {
    let table = Kernel.allocate_table(TableLayout::new(PAGE_64K, PAGE_64K)).ok_or("no memory")?;
    let configuration = Vpropbaser::new()
        .with_address_51_12(table.address >> 12)
        .with_id_bits_minus_one(VIRTUAL_ID_BITS - 1);
    frame.write(vlpi::VPROPBASER, configuration);
    let vpe = Vpendbaser::new().with_address(table.address).with_valid(true);
    frame.write(vlpi::VPENDBASER, vpe);
    expect(|| frame.read(vlpi::VPENDBASER).valid(), || "a resident vPE".into())
}

fn expect(done: impl FnMut() -> bool, what: impl FnOnce() -> alloc::string::String) -> Result<()> {
    if cpu::wait_until(5000, done) { Ok(()) } else { Err(format!("missing: {}", what()).into()) }
}
